"""The honest picture of CLARID: images beside what became of them, and the spectrum."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from clarep.data.labelled import to_uint8
from clarep.engine.artefacts import atomic_path
from clarep.engine.printable import one_line, printable

COLUMNS = (
    "original",
    "reconstruction",
    "guidance alone",
    "canonical sample",
    "what was removed",
)


def canonical_picture(
    columns: Sequence[Float[Tensor, "rows _ _ _"]], row_labels: Sequence[str], title: str
) -> Figure:
    """Draw a row an image and a column for each of COLUMNS, images in [-1, 1].

    The last column is not an image: it is drawn on grey, each row scaled to its own largest
    value. One channel is drawn grey; of more than three (a latent), the first three.
    """
    rows = len(row_labels)
    figure = Figure(figsize=(1.35 * len(columns) + 0.9, 1.32 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, images) in enumerate(zip(COLUMNS, columns, strict=True)):
        axes[0, column].set_title(name, fontsize=9)
        for row, image in enumerate(images):
            shown = image / image.abs().max().clamp_min(1e-12) if name == COLUMNS[-1] else image
            pixels = to_uint8(shown[:3] if len(shown) >= 3 else shown[:1].expand(3, -1, -1))
            axes[row, column].imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
    for row, label in enumerate(row_labels):
        axes[row, 0].set_ylabel(one_line(label), fontsize=9, parse_math=False)
    figure.suptitle(printable(title), fontsize=10, parse_math=False)
    return figure


def spectrum_figure(
    singular_values: Float[Tensor, "images k"],
    removed_k: int,
    full_spectrum: Float[Tensor, " n"] | None = None,
) -> Figure:
    """Draw the singular values of all images (median, and 5 to 95 %) with k marked.

    full_spectrum: all singular values of one image, drawn behind where they are known.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    ranks = np.arange(1, singular_values.shape[1] + 1)
    low, middle, high = np.quantile(singular_values.numpy(), [0.05, 0.5, 0.95], axis=0)
    if full_spectrum is not None:
        axis.plot(
            np.arange(1, len(full_spectrum) + 1),
            full_spectrum.numpy(),
            color="0.6",
            label="whole spectrum of one image (exact)",
        )
    axis.fill_between(ranks, low, high, alpha=0.3, label="5 to 95 % of images")
    axis.plot(ranks, middle, label="median image (solver)")
    axis.axvline(removed_k, color="tab:red", linestyle="--", label=f"k = {removed_k}")
    axis.set(xlabel="direction", ylabel="singular value", xscale="log", yscale="log")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG at 150 dots an inch, atomically; the same figure gives the same bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
