"""A comparison as a figure: a panel a measure, a row a method."""

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clarep.engine.figure_style import PAGE, SERIES, paper_figure, styled
from clarep.engine.printable import one_line
from clarep.robustness.measures import heading_of, measure_of

if TYPE_CHECKING:
    from clarep.study.comparison import Cell, Comparison

_ROW = 0.19  # inches
_ACROSS = 4  # panels
_MARKS = {"better": "^", "worse": "v", "neither": "o", "untested": "s"}
_MEANING = (
    "▲ better, ▼ worse than {} (5 %, Holm), ● neither, ■ not tested; hollow: not to be trusted"
)


def comparison_figure(comparison: "Comparison", width: float = PAGE) -> Figure:
    """Draw each measure's means with their 95 % intervals, and how they differ from the reference.

    The reference's mean is the dashed line of each panel.
    """
    rows = comparison.rows
    across = min(_ACROSS, len(comparison.measures))
    down = -(-len(comparison.measures) // across)
    with styled():
        figure = paper_figure(width, down * (_ROW * len(rows) + 0.55) + 0.3)
        grid = figure.subplots(down, across, squeeze=False, sharey=True)
        for axis in grid.flat[len(comparison.measures) :]:
            axis.remove()
        names = [one_line(row.name) for row in rows]
        for place, key in enumerate(comparison.measures):
            axis = grid.flat[place]
            cells = {i: row.cells[place] for i, row in enumerate(rows)}
            base = next((c for i, c in cells.items() if names[i] == comparison.reference), None)
            _panel(axis, key, {i: c for i, c in cells.items() if c is not None}, base)
        for axis in grid[:, 0]:
            axis.set_yticks(range(len(rows)), names, parse_math=False)
        grid[0, 0].set_ylim(len(rows) - 0.5, -0.5)
        words = _MEANING.format(one_line(comparison.reference or "the reference"))
        figure.supxlabel(words, fontsize=7, parse_math=False)
    return figure


def _panel(axis: Axes, key: str, cells: "dict[int, Cell]", base: "Cell | None") -> None:
    for row, cell in cells.items():
        colour = SERIES[row % len(SERIES)]
        axis.plot(cell.interval, (row, row), color=colour, linewidth=1)
        fill = "none" if cell.untrustworthy else "full"
        axis.plot(cell.value, row, _MARKS[cell.verdict], color=colour, fillstyle=fill)
    if base is not None:
        axis.axvline(base.value, color="0.5", linestyle="--", linewidth=0.7)
    less = measure_of(key).better == "less"
    axis.set_title(heading_of(key) + (" ↓" if less else ""))
    axis.locator_params(axis="x", nbins=4)
