"""The canonicity curve as a picture: what is extraneous against what is left of the class."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clarep.engine.figure_style import BLUE, GREEN, ORANGE, PINK, SKY, paper_figure, styled
from clarep.engine.printable import printable
from clarep.select.canonicity import KEPT, Choice, Point, class_left

_LOOKS = {
    "top": (BLUE, "o", "top directions (CLARID)"),
    "contrast": (ORANGE, "D", "contrast: across directions of class evidence"),
    "mask": (PINK, "^", "mask: outside pixels of class evidence"),
    "centre": (SKY, "P", "centre: outside a disc in the middle"),
    "random": ("0.55", "s", "as many random directions"),
    "bottom": (GREEN, "v", "bottom directions"),
}
_HOW_TO_READ = (
    "Every line starts at the star, where nothing is taken out (guidance alone), and goes on as "
    "more directions are taken out; the numbers are their k. To the left is good: less is left "
    "that does not belong to the class. Down is bad: the class goes too; 1 is what the latents of "
    "the lowest t hold of it, 0 is chance. Below a panel's dashed line more than a tenth of what "
    "its star holds of the class is lost, and no k is taken. No t is taken whose star itself has "
    "lost a tenth."
)
_STANDS = "The red ring is the choice."
_LEAST_HARMFUL = (
    "Nothing keeps enough of the class for sure. So the red ring is no recommendation: it is the "
    "least harmful of what was measured, and may lie below the line."
)


@styled()
def curve_figure(curves: Mapping[str, Sequence[Point]], found: Choice, extraneous: str) -> Figure:
    """Draw a panel for each tap (down) and t (across), a line for each kind of directions.

    Args:
        curves: kind -> its points, those of k = 0 among them; of the first the choice was made.
        found: the choice, which is ringed.
        extraneous: what it is that is drawn across, in words.
    """
    chosen_kind, points = next(iter(curves.items()))
    taps = list(dict.fromkeys(point.tap for point in points))
    ts = sorted({point.t for point in points})
    size = (2.3 * max(2, len(ts)) + 1.0, 2.5 * len(taps) + 1.9)
    figure = paper_figure(*size)
    grid = figure.subplots(len(taps), len(ts), squeeze=False, sharex=True, sharey=True)
    reference = min(points, key=lambda point: (point.t, point.k))
    for tap, row in zip(taps, grid, strict=True):
        for t, axis in zip(ts, row, strict=True):
            here = {
                kind: sorted((p for p in of if (p.t, p.tap) == (t, tap)), key=lambda p: p.k)
                for kind, of in curves.items()
            }
            _panel(axis, here, reference, found, chosen_kind)
            name = f"t = {t:g}" + (f", {tap}" if len(taps) > 1 else "")
            axis.set_title(printable(name), parse_math=False)
    across = [point.extraneous for of in curves.values() for point in of]
    grid[0, 0].set_xlim(0, 1.08 * float(np.nanmax(across)))  # shared by all panels
    width = int(16 * size[0])
    ring = "" if found.chosen is None else f" {_STANDS if found.stands else _LEAST_HARMFUL}"
    said = f"{_HOW_TO_READ}{ring}\n{printable(found.reason)}"
    below = "\n".join(fill(line, width) for line in said.splitlines())
    figure.supxlabel(f"{printable(extraneous)}\n\n{below}", fontsize=8, parse_math=False)
    figure.supylabel("what is left of the class", fontsize=8)
    legend = dict(zip(*reversed(grid[0, 0].get_legend_handles_labels()), strict=True))
    columns = min(len(legend), len(ts))
    figure.legend(legend.values(), legend, loc="outside upper center", ncols=columns)
    return figure


def _panel(
    axis: Axes, here: dict[str, list[Point]], reference: Point, found: Choice, chosen_kind: str
) -> None:
    """Draw the curves of one t and tap; the choice was made among those of one kind."""
    alone = here[chosen_kind][0]
    held = class_left(reference, alone)
    axis.axhline(KEPT * held, color="0.3", linestyle="--", linewidth=0.8)
    axis.axhline(0, color="0.3", linestyle=":", linewidth=0.8)
    for kind, points in here.items():
        colour, marker, label = _LOOKS[kind]
        x = [point.extraneous for point in points]
        y = [class_left(reference, point) for point in points]
        axis.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=1, label=label)
        if kind == chosen_kind:
            for point, at in zip(points, zip(x, y, strict=True), strict=True):
                if point.k and np.isfinite(at).all():
                    axis.annotate(
                        f"{point.k}", at, fontsize=6, xytext=(2, 2), textcoords="offset points"
                    )
                if found.chosen is not None and str(point) == str(found.chosen):
                    axis.plot(
                        *at,
                        marker="o",
                        markersize=11,
                        fillstyle="none",
                        color="tab:red",
                        linestyle="none",
                    )
                    if not found.stands:
                        axis.annotate(
                            "least harmful",
                            at,
                            fontsize=6,
                            color="tab:red",
                            xytext=(7, -7),
                            textcoords="offset points",
                        )
    axis.plot(
        alone.extraneous,
        held,
        marker="*",
        markersize=9,
        color="black",
        linestyle="none",
        label="nothing taken out",
    )
    axis.tick_params(labelsize=7)
