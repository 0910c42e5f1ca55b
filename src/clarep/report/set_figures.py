"""The pictures of an identified set as PNG: a row an image, and the spectrum."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clareps import draw_rows
from clarep.clarid.set_pictures import ROWS, SetPictures, read_pictures
from clarep.engine.artefacts import atomic_path


def picture_columns(
    shown: CanonicalSet, pictures: SetPictures | None
) -> dict[str, UInt8[Tensor, "rows _ _ _"]]:
    """Return the columns of the picture by their headings; shown: the first ROWS, balanced."""
    if pictures is None:
        return shown.columns()
    return {
        "original": pictures.original,
        "reconstruction": pictures.reconstruction,
        "guidance alone": pictures.guidance_alone,
    } | shown.columns()


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
    drawn = {"picture": draw_rows(columns, pictures.classes, title)}
    if kind == "top":  # other directions have no place on the spectrum's left
        drawn["spectrum"] = _spectrum_figure(canonical, pictures)
    names = {"picture": "canonical.png", "spectrum": "spectrum.png"}
    for name, figure in drawn.items():
        save_figure(figure, folder / names[name])
    return {name: folder / names[name] for name in drawn}


def _spectrum_figure(canonical: CanonicalSet, pictures: SetPictures) -> Figure:
    """Draw the singular values of all images (median, and 5 to 95 %) with k marked."""
    values = canonical.singular_values
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
