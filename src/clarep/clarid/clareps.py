"""`CLAReps`: the canonical latent representations of some images, stacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from clarep.data.class_balance import rank_within_class
from clarep.data.labelled import to_uint8
from clarep.engine.cost import Ledger
from clarep.engine.extras import require_extra
from clarep.engine.printable import counted, one_line, printable
from clarep.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from clarep.clarid.canonical_set import CanonicalSet

_Reps = TypeVar("_Reps", bound="CLAReps")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CLAReps:
    """Canonical latent representations of N images, and what was made from them.

    `reps[3]`, `reps[2:5]`, `reps[[7, 1]]` and `reps[reps.label == 0]` are `CLAReps` again, of these
    images; the tensors are `reps.latent` and so on.
    """

    index: Int64[Tensor, " n"]
    """Each image's index in its data set, or among those that were given."""
    label: Int64[Tensor, " n"]
    """Its class."""
    x_te: Float[Tensor, "n c h w"]
    """The inverted latents."""
    latent: Float[Tensor, "n c h w"]
    """The CLAReps: x_te without their extraneous directions."""
    singular_values: Float[Tensor, "n k"]
    """Of the directions projected out; NaN for random ones, k = 0 for none."""
    features: Float[Tensor, "n *feature"]
    """Canonical features: the teacher's activations at the tap, given the CLARep and its class."""
    sample: Float[Tensor, "n ci hi wi"]
    """Canonical samples: the CLAReps decoded with guidance, about [-1, 1]."""
    round_trip_psnr: Float[Tensor, " n"]
    """PSNR in dB of each image against itself inverted and decoded, guidance 1."""
    original: Float[Tensor, "n ci hi wi"] | None = None
    """The images they were made of, in [-1, 1]; None where they are not at hand."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What made them, as JSON values: clarid, sigma_te, tap, num_dirs, teacher_sha256 ..."""

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(
        self: _Reps, rows: int | slice | Sequence[int] | Tensor | NDArray[Any]
    ) -> _Reps:
        """Return those at some rows: a number, a slice, a list of numbers or a mask.

        Raises IndexError, a UserError, for a row that there is not, and for what names no rows.
        """
        chosen = named_rows(len(self), rows)
        kept: dict[str, Any] = {name: tensor[chosen] for name, tensor in self.tensors.items()}
        kept["original"] = None if self.original is None else self.original[chosen]
        return replace(self, **kept)

    def __repr__(self) -> str:
        c, h, w = self[:1].latent.shape[1:]
        quality = f"{float(self.round_trip_psnr.median()):.1f} dB" if len(self) else "none"
        return (
            f"{type(self).__name__}({counted(len(self), 'image')} of "
            f"{counted(len(self.label.unique()), 'class')}, latents {c}x{h}x{w}, k = "
            f"{self.singular_values.shape[1]}, sigma {self.sigma_te:.3g}, tap {self.tap}, median "
            f"round trip {quality})"
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors that are stored, by their names."""
        return {name: getattr(self, name) for name in TENSORS}

    @property
    def sigma_te(self) -> float:
        """Noise level of the latents."""
        return float(self.config["sigma_te"])

    @property
    def tap(self) -> str:
        """Layer of the Jacobian and the features."""
        return str(self.config["tap"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the teacher's classes, or their numbers where they are not known."""
        known = self.config.get("class_names")
        return tuple(known or map(str, range(int(self.label.max()) + 1)))

    def balanced(self: _Reps, count: int) -> _Reps:
        """Return at most `count`, evenly from the classes, each class's first ones."""
        labels = self.label.numpy()
        order = np.lexsort((labels, rank_within_class(labels)))
        return self[order[:count]]

    def save(self, folder: Path | str) -> "CanonicalSet":
        """Store them in a folder, as `clarep identify` does, and return the stored set.

        Raises UserError if the folder holds others.
        """
        from clarep.clarid.canonical_set import CanonicalSet, CanonicalSetWriter
        from clarep.clarid.canonical_shards import sha256_tensors

        if Path(folder).is_file():
            raise UserError(f"{folder} is a file: give a folder, which need not exist")
        chosen = self.index.tolist()
        config = {**self.config, "chosen": chosen, "reps_sha256": sha256_tensors(self.tensors)}
        writer = CanonicalSetWriter(Path(folder), config, chosen, max(1, len(self)))
        for name, _ in writer.missing():
            writer.add(name, [self], Ledger().as_dict())
        writer.finish()
        return CanonicalSet.load(folder)

    def to_dataset(self, features: bool = False) -> TensorDataset:
        """Return (canonical sample in [0, 1], label) of each for a torch `DataLoader`.

        features: give the canonical features as a third.
        """
        images = ((self.sample.float() + 1) / 2).clamp(0, 1)
        return TensorDataset(images, self.label, *([self.features] if features else []))

    def to_hf(self) -> Any:
        """Return the canonical samples as a `datasets.Dataset` of image and label.

        Raises UserError where Hugging Face's datasets is not installed.
        """
        from PIL import Image

        datasets = require_extra("datasets", "notebooks")
        names = datasets.ClassLabel(names=list(self.class_names))
        columns = {
            "image": [Image.fromarray(as_rgb(one)) for one in to_uint8(self.sample)],
            "label": self.label.tolist(),
        }
        kinds = datasets.Features({"image": datasets.Image(), "label": names})
        return datasets.Dataset.from_dict(columns, features=kinds)

    def to_frame(self) -> Any:
        """Return a `pandas.DataFrame`, a row an image.

        removed: the share of the latent's energy that was projected out.

        Raises UserError where pandas is not installed.
        """
        energy = [x.double().flatten(1).square().sum(1) for x in (self.latent, self.x_te)]
        names = self.class_names
        return require_extra("pandas", "notebooks").DataFrame(
            {
                "index": self.index.numpy(),
                "label": self.label.numpy(),
                "class": [names[label] for label in self.label.tolist()],
                "round_trip_psnr": self.round_trip_psnr.numpy(),
                "removed": (1 - energy[0] / energy[1]).numpy(),
            }
        )

    def columns(self) -> dict[str, UInt8[Tensor, "n _ _ _"]]:
        """Return what a picture shows of each, by its heading.

        What was removed is no image: it is the latent before minus after the projection, drawn on
        grey, each scaled to its own largest value.
        """
        removed = self.x_te - self.latent
        largest = removed.abs().flatten(1).amax(1).clamp_min(1e-12)[:, None, None, None]
        original = {} if self.original is None else {"original": to_uint8(self.original)}
        shown = {"canonical sample": self.sample, "what was removed": removed / largest}
        return original | {name: to_uint8(images) for name, images in shown.items()}

    def figure(self, rows: int = 10) -> "Figure":
        """Draw the first `rows` images: `columns` beside each other, a row an image."""
        shown = self[:rows]
        names = [self.class_names[label] for label in shown.label.tolist()]
        return draw_rows(shown.columns(), names)


class NoSuchRow(UserError, IndexError):
    """A row that `CLAReps` do not have; an IndexError, which ends a loop over them."""


def named_rows(
    count: int, rows: int | slice | Sequence[int] | Tensor | NDArray[Any]
) -> Int64[Tensor, " m"]:
    """Return which of `count` rows are named; raises NoSuchRow."""
    everything = np.arange(count)
    try:
        given = rows if isinstance(rows, slice) else np.asarray(rows)
        if isinstance(given, np.ndarray):
            if not given.size and given.ndim == 1:
                given = given.astype(np.int64)
            if given.ndim > 1 or given.dtype.kind not in ("iu" if given.ndim == 0 else "iub"):
                raise TypeError
        return torch.from_numpy(everything[given].reshape(-1))
    except (IndexError, TypeError, ValueError):
        raise NoSuchRow(
            f"[{rows!r}] names no rows of {count}: give a number from {-count} to {count - 1}, a "
            f"slice, a list of such numbers, or a mask of {count}"
        ) from None


TENSORS = tuple(one.name for one in fields(CLAReps) if one.name not in ("original", "config"))
"""The fields of `CLAReps` that are stored."""


def as_rgb(image: UInt8[Tensor, "c h w"]) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3): one channel grey, of more than three the first three."""
    channels = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return channels.permute(1, 2, 0).numpy()


def draw_rows(
    columns: Mapping[str, UInt8[Tensor, "rows _ _ _"]], row_labels: Sequence[str], title: str = ""
) -> "Figure":
    """Draw images, heading -> column, a row each."""
    from clarep.engine.figure_style import paper_figure, styled

    with styled():
        figure = paper_figure(1.1 * len(columns) + 0.8, 1.1 * len(row_labels) + 0.6)
        axes = figure.subplots(len(row_labels), len(columns), squeeze=False)
        for column, (name, images) in zip(axes.T, columns.items(), strict=True):
            column[0].set_title(name)
            for axis, image in zip(column, images, strict=True):
                axis.imshow(as_rgb(image))
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
        for axis, label in zip(axes[:, 0], row_labels, strict=True):
            axis.set_ylabel(one_line(label), parse_math=False)
        figure.suptitle(printable(title), parse_math=False)
    return figure
