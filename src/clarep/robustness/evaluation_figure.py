"""An evaluation as a figure: its headline figures, and the curves under attack."""

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clarep.engine.figure_style import BLUE, PAGE, SERIES, paper_figure, styled
from clarep.errors import UserError
from clarep.robustness.evaluation import Measurement
from clarep.robustness.measures import heading_of, measure_of

_CURVE = re.compile(r"attack/(.+)-(linf|l2)/eps_(?:255|l2)=(.+)")
_RADIUS = {"linf": "radius in 1/255 (L∞)", "l2": "radius (L2)"}
_SHARES = ("share", "difference of shares", "0 to 1")
_ROW = 0.19  # inches


def evaluation_figure(measurements: Sequence[Measurement], width: float = PAGE) -> Figure:
    """Draw all headline shares with their 95 % intervals, and accuracy over each attack's radius.

    Hollow marks are figures that must not be trusted.

    Raises UserError where nothing of that kind was measured.
    """
    dots = [one for one in measurements if _is_headline(one.key)]
    curves: dict[str, dict[str, list[tuple[float, Measurement]]]] = {}
    for one in measurements:
        if found := _CURVE.fullmatch(one.key):
            name, norm, radius = found.groups()
            curves.setdefault(norm, {}).setdefault(name, []).append((float(radius), one))
    if not dots and not curves:
        raise UserError("none of the figures is a share, so that there is nothing to draw")
    with styled():
        panels = [*([dots] if dots else []), *curves]
        figure = paper_figure(width, max(2.1, _ROW * len(dots) + 0.6))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        if dots:
            _draw_dots(axes[0], dots)
        for axis, norm in zip(axes[len(panels) - len(curves) :], curves, strict=True):
            _draw_curves(axis, norm, curves[norm])
    return figure


def _is_headline(key: str) -> bool:
    measure = measure_of(key)
    is_share = measure.unit.startswith(_SHARES)
    return is_share and measure.shown != "report" and not _CURVE.fullmatch(key)


def _draw_dots(axis: Axes, dots: Sequence[Measurement]) -> None:
    for row, one in enumerate(dots):
        axis.plot(one.interval, (row, row), color=BLUE, linewidth=1)
        fill = "none" if one.untrustworthy else "full"
        axis.plot(one.value, row, "o", color=BLUE, fillstyle=fill)
    names = [heading_of(one.key) for one in dots]
    less = [measure_of(one.key).better == "less" for one in dots]
    marked = [f"{name} ↓" if few else name for name, few in zip(names, less, strict=True)]
    axis.set_yticks(range(len(dots)), marked)
    axis.invert_yaxis()
    axis.set_xlabel("share, 95 % interval (↓ less is better)")


def _draw_curves(axis: Axes, norm: str, curves: dict[str, list[tuple[float, Measurement]]]) -> None:
    for i, (name, unsorted) in enumerate(curves.items()):
        colour = SERIES[i % len(SERIES)]
        points = sorted(unsorted, key=lambda point: point[0])
        radii = [radius for radius, _ in points]
        low, high = ([one.interval[end] for _, one in points] for end in (0, 1))
        axis.fill_between(radii, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(radii, [one.value for _, one in points], color=colour, label=name.upper())
        for radius, one in points:
            fill = "none" if one.untrustworthy else "full"
            axis.plot(radius, one.value, "os^D"[i % 4], color=colour, fillstyle=fill)
    axis.set(xlabel=_RADIUS[norm], ylabel="accuracy under attack", ylim=(0, 1))
    axis.legend()
