"""The pictures of an identified set as PNG: a row an image, and the spectrum."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.set_pictures import ROWS, SetPictures, read_pictures
from clarep.data.labelled import to_uint8
from clarep.engine.artefacts import atomic_path
from clarep.engine.printable import one_line, printable


def picture_columns(
    shown: CanonicalSet, pictures: SetPictures | None
) -> dict[str, UInt8[Tensor, "rows _ _ _"]]:
    """Return the columns of the picture by their headings.

    What was removed is no image: it is the latent before minus after the projection, drawn on
    grey, each row scaled to its own largest value.

    shown: the set's first ROWS, balanced.
    """
    removed = shown.tensors["x_te"] - shown.tensors["latent"]
    largest = removed.abs().flatten(1).amax(1).clamp_min(1e-12)[:, None, None, None]
    own = {
        "canonical sample": to_uint8(shown.tensors["sample"]),
        "what was removed": to_uint8(removed / largest),
    }
    if pictures is None:
        return own
    return {
        "original": pictures.original,
        "reconstruction": pictures.reconstruction,
        "guidance alone": pictures.guidance_alone,
    } | own


def as_rgb(image: UInt8[Tensor, "c h w"]) -> np.ndarray:
    """Return an image as (H, W, 3): one channel grey, of more than three the first three."""
    channels = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return channels.permute(1, 2, 0).numpy()


def draw_set(canonical: CanonicalSet, folder: Path) -> dict[str, Path]:
    """Write canonical.png and spectrum.png into `folder`; return name -> path.

    The rows are ten stored images, evenly from the classes, of each the first ones (of more than
    ten classes, one of each of the first ten): no image is picked by its looks.
    """
    pictures, config = read_pictures(canonical), canonical.manifest["config"]
    kind, guidance = (canonical.setting[name] for name in ("kind", "guidance"))
    directions = "no directions" if kind == "none" else f"{kind} k = {config['num_dirs']}"
    title = (
        f"{pictures.data_name}\nsigma {config['sigma_te']:.3g}, tap {config['tap']}, "
        f"{directions}, "
        f"guidance {guidance:g}"
    )
    columns = picture_columns(canonical.balanced(ROWS), pictures)
    drawn = {"picture": canonical_figure(columns, pictures.classes, title)}
    if kind == "top":  # other directions have no place on the spectrum's left
        drawn["spectrum"] = _spectrum_figure(canonical, pictures)
    names = {"picture": "canonical.png", "spectrum": "spectrum.png"}
    for name, figure in drawn.items():
        save_figure(figure, folder / names[name])
    return {name: folder / names[name] for name in drawn}


def canonical_figure(
    columns: dict[str, UInt8[Tensor, "rows _ _ _"]], row_labels: list[str], title: str
) -> Figure:
    """Draw a row an image and a column for each of `picture_columns`."""
    rows = len(row_labels)
    figure = Figure(figsize=(1.35 * len(columns) + 0.9, 1.32 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, images) in enumerate(columns.items()):
        axes[0, column].set_title(name, fontsize=9)
        for row, image in enumerate(images):
            axes[row, column].imshow(as_rgb(image), interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
    for row, label in enumerate(row_labels):
        axes[row, 0].set_ylabel(one_line(label), fontsize=9, parse_math=False)
    figure.suptitle(printable(title), fontsize=10, parse_math=False)
    return figure


def _spectrum_figure(canonical: CanonicalSet, pictures: SetPictures) -> Figure:
    """Draw the singular values of all images (median, and 5 to 95 %) with k marked."""
    values = canonical.tensors["singular_values"]
    k = values.shape[1]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    low, middle, high = np.quantile(values.numpy(), [0.05, 0.5, 0.95], axis=0)
    if pictures.spectrum is not None:  # so that the reader sees what lies beyond k
        ranks = np.arange(1, len(pictures.spectrum) + 1)
        exact = "whole spectrum of one image (exact)"
        axis.plot(ranks, pictures.spectrum.numpy(), color="0.6", label=exact)
    ranks = np.arange(1, k + 1)
    axis.fill_between(ranks, low, high, alpha=0.3, label="5 to 95 % of images")
    axis.plot(ranks, middle, label="median image (solver)")
    axis.axvline(k, color="tab:red", linestyle="--", label=f"k = {k}")
    axis.set(xlabel="direction", ylabel="singular value", xscale="log", yscale="log")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG at 150 dots an inch, atomically; the same figure gives the same bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
