"""The spectrum of a Jacobian as a figure."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from clarep.engine.figure_style import COLUMN, ORANGE, paper_figure, styled
from clarep.errors import UserError


def spectrum_figure(
    values: Float[Tensor, "images k"],
    whole: Float[Tensor, " n"] | None = None,
    width: float = COLUMN,
) -> Figure:
    """Draw singular values, the largest first: their median over images, and 5 to 95 %.

    Args:
        values: of the k directions that were found, of each image.
        whole: all of one image, so that the reader sees what lies beyond k.
        width: in inches.

    Raises:
        UserError: where they are not known, as of random directions, or there are none.
    """
    if not values.numel() or not values.isfinite().all():
        raise UserError(
            "these directions have no known singular values (kind random or none): draw those of "
            "kind top"
        )
    low, middle, high = np.quantile(values.double().cpu().numpy(), [0.05, 0.5, 0.95], axis=0)
    k = values.shape[1]
    ranks = np.arange(1, k + 1)
    with styled():
        figure = paper_figure(width, 0.62 * width)
        axis = figure.subplots()
        if whole is not None:
            every = np.arange(1, len(whole) + 1)
            label = "whole spectrum of one image (exact)"
            axis.plot(every, whole.cpu().numpy(), color="0.6", label=label)
        several = len(values) > 1
        if several:
            axis.fill_between(ranks, low, high, alpha=0.3, linewidth=0, label="5 to 95 % of images")
        label = f"median of {len(values)} images" if several else "one image"
        axis.plot(ranks, middle, label=label, marker="" if k > 1 else "o")
        axis.axvline(k, color=ORANGE, linestyle="--", linewidth=0.9, label=f"k = {k}")
        axis.set(xlabel="direction", ylabel="singular value", xscale="log", yscale="log")
        axis.legend()
    return figure
