"""The report's kinds of chart, each a function from numbers to SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from markupsafe import Markup

from clarep.report.html.svg import (
    Axis,
    Number,
    Plot,
    label_room,
    linear_axis,
    log_axis,
    marker_shape,
    tag,
)

_MOST_END_LABELS = 6
_LONGEST_END_LABEL = 18
_DODGE = 2.2  # pixels


@dataclass(frozen=True)
class Point:
    """A figure at a place, with its interval."""

    x: Number
    value: Number
    low: Number
    high: Number
    untrustworthy: str = ""


@dataclass(frozen=True)
class Series:
    """What a line or a row of bars shows."""

    label: str
    css: str
    slot: int
    points: tuple[Point, ...]
    """From left to right."""


def swatch(css: str, slot: int) -> Markup:
    """Return the line and marker of a method, for a legend."""
    line = tag("line", f"line {css}", x1=1, x2=21, y1=6, y2=6)
    mark = tag("g", f"mark {css}", marker_shape(11, 6, slot, 3.6))
    return tag("svg", "swatch", line, mark, viewBox="0 0 22 12", aria_hidden="true")


def class_swatch(label: int) -> Markup:
    """Return the marker of a class, for a legend."""
    mark = tag("g", f"mark {class_css(label)}", marker_shape(6, 6, label, 4))
    return tag("svg", "swatch dot", mark, viewBox="0 0 12 12", aria_hidden="true")


def class_css(label: int) -> str:
    """Return the class name that gives a class its colour; ten colours, four markers."""
    return f"c{label % 10}"


def line_chart(name: str, title: str, x_label: str, series: Sequence[Series]) -> Markup:
    """Draw shares of 1 over x, each series with its intervals and a label at its end."""
    drawn = [one for one in series if one.points]
    xs = [point.x for one in drawn for point in one.points]
    named = len(drawn) <= _MOST_END_LABELS and all(
        len(one.label) <= _LONGEST_END_LABEL for one in drawn
    )
    top = max(point.high for one in drawn for point in one.points)
    y = linear_axis("accuracy", 0.0, 1.0 if top > 0.5 else max(top * 1.1, 0.05))
    words = " ".join(
        f"{one.label}: {_figure(one.points[0])} at {x_label} {one.points[0].x:g}, "
        f"{_figure(one.points[-1])} at {one.points[-1].x:g}."
        for one in drawn
    )
    right = label_room([one.label for one in drawn]) if named else 12
    plot = Plot(name, title, words, _marks_at(x_label, xs), y, right=right)
    for i, one in enumerate(drawn):
        aside = _DODGE * (i - (len(drawn) - 1) / 2)  # so that intervals do not cover each other
        plot.line([(point.x, point.value) for point in one.points], one.css)
        for point in one.points:
            plot.whisker(point.x, point.low, point.high, one.css, aside)
            doubt = " hollow" if point.untrustworthy else ""
            tip = f"{one.label}, {x_label} {point.x:g}: {_figure(point)}"
            if point.untrustworthy:
                tip += f"; not trustworthy: {point.untrustworthy}"
            plot.marker(point.x, point.value, one.slot, one.css + doubt, tip, aside=aside)
    if named:
        plot.end_labels([(one.points[-1].value, one.label, one.css) for one in drawn])
    return plot.svg()


def _marks_at(label: str, xs: Sequence[Number]) -> Axis:
    """Return an axis whose ticks are the measured places, where these are few and apart."""
    low, high = min(xs), max(xs)
    axis = linear_axis(label, low, high, count=4)
    places = sorted(set(xs))
    span = axis.high - axis.low
    near = any(b - a < 0.09 * span for a, b in pairwise(places))
    if len(places) <= 8 and not near:
        return Axis(label, axis.low, axis.high, tuple((x, f"{x:g}") for x in places))
    return axis


def _figure(point: Point) -> str:
    return f"{point.value:.3f} [{point.low:.3f}, {point.high:.3f}]"


def bar_chart(
    name: str, title: str, x_label: str, rows: Sequence[tuple[str, Sequence[tuple[Series, Point]]]]
) -> Markup:
    """Draw a group of lying bars for each row, one a series, with intervals."""
    axis = _share_axis(x_label, [point for _, bars in rows for _, point in bars])
    most = max(len(bars) for _, bars in rows)
    thickness = 14.0 if most == 1 else 8.0 if most <= 3 else 6.0
    pitch = most * thickness + 9
    left = min(150, label_room([label for label, _ in rows]) + 2)
    words = " ".join(
        f"{label}: {', '.join(f'{one.label} {_figure(point)}' for one, point in bars)}."
        for label, bars in rows
    )
    height = round(len(rows) * pitch) + 72
    plot = Plot(name, title, words, axis, Axis("", 0, 1), height=height, left=left)
    for x, _ in axis.ticks:
        plot.upright(x, "grid")
    for i, (label, bars) in enumerate(rows):
        top = i * pitch + 5
        middle = top + len(bars) * thickness / 2
        plot.text(left - 7, middle + 30, label, "tick", "end")
        for j, (one, point) in enumerate(bars):
            y = top + j * thickness
            tip = f"{label}, {one.label}: {_figure(point)}"
            ends = (point.low, point.high)
            plot.bar((y, thickness - 1), point.value, ends, one.css, tip)
    return plot.svg()


def _share_axis(label: str, points: Sequence[Point]) -> Axis:
    """Return an axis of shares that ends at a tick beyond all intervals, with a little air.

    What an interval over few seeds says beyond 0 and 1 is cut off.
    """
    high = min(max(0.05, *(point.high for point in points)), 1.0)
    ticks = linear_axis(label, 0.0, high).ticks
    step = ticks[1][0] - ticks[0][0]
    end = math.ceil(high / step - 1e-9) * step
    return replace(linear_axis(label, 0.0, end), high=end * 1.02)


def scatter(
    name: str, title: str, axes: tuple[str, str], points: Sequence[tuple[Number, Number, int, str]]
) -> Markup:
    """Draw (x, y, class, tooltip) without ticks, a little air around them."""
    x = _around(axes[0], [point[0] for point in points])
    y = _around(axes[1], [point[1] for point in points])
    words = f"{len(points)} points, one an image, coloured by class."
    plot = Plot(name, title, words, x, y, height=300, left=22, right=6, bare=True)
    for px, py, label, tip in points:
        plot.marker(px, py, label, class_css(label), tip, size=2.7)
    return plot.svg()


def _around(label: str, values: Sequence[Number]) -> Axis:
    low, high = min(values), max(values)
    air = 0.05 * (high - low) or 1.0
    return Axis(label, low - air, high + air)


def spectrum_chart(
    name: str,
    quantiles: Sequence[tuple[Number, Number, Number]],
    title: str,
    whole: Sequence[Number] = (),
) -> Markup:
    """Draw (5 %, median, 95 %) of singular values over the direction's rank, k marked.

    whole: all singular values of one image, drawn behind where they are known.
    """
    k, highest = len(quantiles), max(quantiles[0][2], 1e-12)
    lowest = max(min([*(q[0] for q in quantiles), *whole]), highest * 1e-4)
    x = log_axis("direction, ordered by singular value", 1, max(k * 1.5, len(whole), 2))
    y = log_axis("singular value", lowest * 0.8, highest * 1.2)
    words = (
        f"Median from {quantiles[0][1]:.3g} at the first to {quantiles[-1][1]:.3g} at the "
        f"{k}th direction, where the projection stops."
    )
    plot = Plot(name, title, words, x, y, height=280)
    ranks = sorted({round(len(whole) ** (i / 200)) for i in range(201)}) if whole else []
    plot.line([(rank, y.inside(whole[rank - 1])) for rank in ranks], "s0")
    plot.band([(i + 1, low, high) for i, (low, _, high) in enumerate(quantiles)], "s1")
    plot.line([(i + 1, middle) for i, (_, middle, _) in enumerate(quantiles)], "s1")
    plot.upright(k, "reference", f"k = {k}")
    return plot.svg()


def reliability_chart(
    name: str, title: str, bins: Sequence[tuple[Number, Number, Number]], css: str, slot: int
) -> Markup:
    """Draw (confidence, accuracy, share of images) of each bin against the diagonal."""
    words = " ".join(f"Confidence {c:.2f}: accuracy {a:.2f}, {s:.0%}." for c, a, s in bins)
    x, y = linear_axis("mean confidence", 0, 1), linear_axis("accuracy", 0, 1)
    plot = Plot(name, title, words, x, y, height=310)
    plot.line([(0, 0), (1, 1)], "reference")
    for confidence, accuracy, share in bins:
        tip = f"confidence {confidence:.2f}, accuracy {accuracy:.2f}, {share:.1%} of images"
        plot.whisker(confidence, confidence, accuracy, css)
        plot.marker(confidence, accuracy, slot, css, tip, size=2.5 + 9 * share**0.5)
    return plot.svg()
