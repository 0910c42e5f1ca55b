"""`Evaluation`: every figure measured on one student, with the per-image values behind it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clarep.engine.artefacts import read_json, sha256_file, write_json
from clarep.engine.figure_rows import FigureRows
from clarep.engine.statistics import binomial_interval, bootstrap_interval
from clarep.engine.tensors import check_header, save_tensors
from clarep.errors import UserError, nearest, said_by

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATION_NAME = "evaluation.json"
ARRAYS_NAME = "arrays.safetensors"
_FORMAT = 3  # since shares have the exact interval


@dataclass(frozen=True)
class Measurement:
    """One figure with its 95 % interval."""

    key: str
    """What was measured: group/name[/setting], such as attack/pgd-linf/eps_255=1."""
    value: float
    """The figure; accuracies and shares lie in [0, 1]."""
    interval: tuple[float, float]
    """95 %, over images: exact for a share, else by the bootstrap."""
    images: int
    """How many images it was measured on."""
    untrustworthy: str = ""
    """Why the figure must not be trusted, in words; empty where nothing speaks against it."""
    note: str = ""
    """What else must be known of the figure, in words; empty where nothing."""

    @property
    def remarks(self) -> list[str]:
        """All that qualifies the figure, a sentence each, so that tables can say each once."""
        return remarks_of(self.untrustworthy, self.note)


def remarks_of(untrustworthy: str, note: str) -> list[str]:
    """Return the sentences of a measurement's `untrustworthy` and `note`."""
    doubts = [f"not trustworthy: {reason}" for reason in untrustworthy.split("; ") if reason]
    return doubts + [text for text in note.split("; ") if text]


@dataclass(frozen=True, repr=False)
class Evaluation(FigureRows):
    """Figures of one student on one test set."""

    config: dict[str, Any]
    """Student (name, weights' SHA-256, method), data, suite settings, seed, versions, cost."""
    measurements: list[Measurement]
    """In the order in which they were measured."""
    arrays: dict[str, Tensor]
    """What the figures are made of: under a measurement's own key its per-image values (N,)
    where it is their mean; `label`, `probabilities`, `features` of the clean images; and
    `examples/...`, images and maps for the report."""

    def __getitem__(self, key: str) -> Measurement:
        """Return the measurement of that key; KeyError if it was not measured."""
        for measurement in self.measurements:
            if measurement.key == key:
                return measurement
        raise KeyError(f"{key}: {nearest(key, [m.key for m in self.measurements])}not measured")

    def __contains__(self, key: str) -> bool:
        return any(measurement.key == key for measurement in self.measurements)

    @property
    def title(self) -> str:
        """Of which run and data these are."""
        run, data = self.config.get("run"), self.config.get("data", {}).get("name")
        of = "".join((f" of {run}" if run else "", f" on {data}" if data else ""))
        return f"Evaluation{of}: {len(self.measurements)} figures with 95 % intervals"

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a row a figure: key, value, ends of the 95 % interval, images, remarks."""
        return [
            {
                "key": one.key,
                "value": one.value,
                "low": one.interval[0],
                "high": one.interval[1],
                "images": one.images,
                "remarks": "; ".join(one.remarks),
            }
            for one in self.measurements
        ]

    def figure(self) -> "Figure":
        """Draw the headline shares and the curves under attack, 95 % intervals on each."""
        from clarep.robustness.evaluation_figure import evaluation_figure

        return evaluation_figure(self.measurements)

    def save(self, folder: Path) -> None:
        """Write arrays.safetensors, then evaluation.json, with the SHA-256 of both."""
        save_tensors(folder / ARRAYS_NAME, self.arrays)
        content = {
            "format": _FORMAT,
            "config": self.config,
            "measurements": [asdict(measurement) for measurement in self.measurements],
            "arrays_sha256": sha256_file(folder / ARRAYS_NAME),
        }
        write_json(folder / EVALUATION_NAME, content, sealed=True)

    @classmethod
    def load(cls, folder: Path | str) -> "Evaluation":
        """Load what `save` wrote.

        Raises UserError if there is none, or a file is damaged, was changed, or does not belong to
        the other.
        """
        folder = Path(folder)
        path = folder / EVALUATION_NAME
        again = "run clarep evaluate again"
        try:
            content = read_json(path)
            if content["format"] != _FORMAT:
                raise UserError(
                    f"{path} is of format {content['format']}, this clarep reads {_FORMAT}: {again}"
                )
            if sha256_file(folder / ARRAYS_NAME) != content["arrays_sha256"]:
                raise UserError(
                    f"{folder / ARRAYS_NAME} is not the file that {path.name} was written with "
                    f"(its SHA-256 differs): {again}"
                )
            check_header(folder / ARRAYS_NAME)
            measurements = [_measurement(**entry) for entry in content["measurements"]]
            config = content["config"]
            parts = (config, *(config[name] for name in ("data", "suite") if name in config))
            if other := [part for part in parts if not isinstance(part, dict)]:
                raise TypeError(f"its config holds {other[0]!r:.80} in place of options")
            return cls(config, measurements, load_file(folder / ARRAYS_NAME))
        except UserError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                f"{folder} holds no evaluation (no {Path(error.filename).name}): "
                "give a folder that clarep evaluate wrote"
            ) from None
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            SafetensorError,
        ) as error:
            raise UserError(f"cannot read {path} ({said_by(error)}): {again}") from error


def _measurement(value: Any, interval: Any, **others: Any) -> Measurement:
    """Build a measurement from JSON; a distance that is infinite is a text there.

    Raises ValueError or TypeError for other values than a measurement has.
    """
    low, high = interval
    found = Measurement(value=float(value), interval=(float(low), float(high)), **others)
    texts = (found.key, found.untrustworthy, found.note)
    if not all(isinstance(text, str) for text in texts) or type(found.images) is not int:
        raise TypeError(f"the measurement {found.key!r:.80} holds other values than it may")
    return found


class Measured(NamedTuple):
    """What one part of the suite gives."""

    measurements: list[Measurement]
    arrays: dict[str, Tensor]
    """What is behind them, as in `Evaluation`."""
    doubts: Mapping[str, str] = MappingProxyType({})
    """Pattern of keys, of this and other parts -> why no such figure can be trusted."""


def mean_of(key: str, values: Tensor, untrustworthy: str = "") -> Measurement:
    """Return the mean of per-image values (N,) as a measurement, with its interval."""
    values = values.double()
    is_share = bool(((values == 0) | (values == 1)).all())
    right = int(values.sum())
    interval = binomial_interval(right, len(values)) if is_share else bootstrap_interval(values)
    return Measurement(key, float(values.mean()), interval, len(values), untrustworthy)
