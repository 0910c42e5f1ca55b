"""A plot as inline SVG: axes, marks and words, coloured by the page's style sheet.

Coordinates given to a `Plot` are the data's; text is 11 units high and a plot 352 units wide,
what fits a phone, so that a plot is never scaled down to where it cannot be read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from clarep.report.html.markup import escape

WIDTH = 352
Number = int | float
_CHARACTER = 6.1  # width of an average character at 11 units
_MARKERS = 4


@dataclass(frozen=True)
class Axis:
    """Range and ticks of one axis."""

    label: str
    """What it shows, with the unit."""
    low: Number
    high: Number
    ticks: tuple[tuple[Number, str], ...] = ()
    log: bool = False

    def share(self, value: Number) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high."""
        if self.log:
            span = math.log(self.high / self.low)
            return math.log(max(value, self.low) / self.low) / span
        return (value - self.low) / (self.high - self.low)

    def inside(self, value: Number) -> Number:
        """Return the value, or the end of the axis beyond which it lies."""
        return min(max(value, self.low), self.high)


def linear_axis(label: str, low: Number, high: Number, count: int = 5) -> Axis:
    """Return an axis with about `count` ticks at round numbers."""
    if not high > low:
        high = low + 1
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    ticks = tuple((i * step, f"{i * step:g}") for i in range(first, last + 1))
    return Axis(label, low, high, ticks)


def log_axis(label: str, low: Number, high: Number) -> Axis:
    """Return a logarithmic axis with ticks at powers of ten, or at 1, 2, 5 of short ranges."""
    if not high > low:
        high = low * 2
    digits = (1,) if high / low > 300 else (1, 2, 5)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [d * 10.0**e for e in exponents for d in digits]
    ticks = tuple((v, f"{v:g}") for v in values if low * 0.999 <= v <= high * 1.001)
    return Axis(label, low, high, ticks, log=True)


@dataclass
class Plot:
    """Collects marks; `svg()` draws them inside axes."""

    name: str
    """Unique on the page."""
    title: str
    description: str
    """What a reader who cannot see it should know."""
    x: Axis
    y: Axis
    height: int = 250
    width: int = WIDTH
    left: int = 46
    right: int = 12
    bare: bool = False
    """Without ticks and grid, for axes that have no unit."""
    _parts: list[str] = field(default_factory=list)

    @property
    def _top(self) -> int:
        return 26

    @property
    def _bottom(self) -> int:
        return 24 if self.bare else 40

    def px(self, x: Number) -> float:
        """Return the horizontal place of a value."""
        return self.left + self.x.share(x) * (self.width - self.left - self.right)

    def py(self, y: Number) -> float:
        """Return the vertical place of a value."""
        span = self.height - self._top - self._bottom
        return self.height - self._bottom - self.y.share(y) * span

    def line(self, points: Sequence[tuple[Number, Number]], css: str) -> None:
        """Draw a line through points."""
        path = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)
        self._parts.append(f'<polyline class="line {css}" points="{path}"/>')

    def band(self, points: Sequence[tuple[Number, Number, Number]], css: str) -> None:
        """Fill between (x, low, high)."""
        over = [f"{self.px(x):.1f},{self.py(high):.1f}" for x, _, high in points]
        under = [f"{self.px(x):.1f},{self.py(low):.1f}" for x, low, _ in reversed(points)]
        self._parts.append(f'<polygon class="band {css}" points="{" ".join(over + under)}"/>')

    def whisker(self, x: Number, low: Number, high: Number, css: str, aside: Number = 0) -> None:
        """Draw an interval upright, cut at the frame, `aside` pixels to the right."""
        place = self.px(x) + aside
        self._parts.append(
            f'<line class="whisker {css}" x1="{place:.1f}" x2="{place:.1f}" '
            f'y1="{self.py(self.y.inside(low)):.1f}" y2="{self.py(self.y.inside(high)):.1f}"/>'
        )

    def marker(
        self,
        x: Number,
        y: Number,
        slot: int,
        css: str,
        tip: str,
        *,
        size: Number = 3.4,
        aside: Number = 0,
    ) -> None:
        """Draw a marker, whose shape goes with its slot, with a tooltip."""
        shape = marker_shape(self.px(x) + aside, self.py(self.y.inside(y)), slot, size)
        self._parts.append(f'<g class="mark {css}">{shape}<title>{escape(tip)}</title></g>')

    def bar(self, y_pixel: Number, thickness: Number, x: Number, css: str, tip: str) -> None:
        """Draw a bar from the axis' zero (or low end) to x, y_pixel from the frame's top."""
        start, end = sorted((self.px(max(0.0, self.x.low)), self.px(x)))
        self._parts.append(
            f'<rect class="bar {css}" x="{start:.1f}" y="{self._top + y_pixel:.1f}" '
            f'width="{max(end - start, 0.5):.1f}" height="{thickness:.1f}">'
            f"<title>{escape(tip)}</title></rect>"
        )

    def bar_whisker(self, y_pixel: Number, low: Number, high: Number) -> None:
        """Draw an interval lying on a bar."""
        y = self._top + y_pixel
        self._parts.append(
            f'<line class="whisker ink" x1="{self.px(self.x.inside(low)):.1f}" '
            f'x2="{self.px(self.x.inside(high)):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
        )

    def grid_across(self) -> None:
        """Draw upright grid lines at the ticks of x, for lying bars."""
        bottom = self.height - self._bottom
        for value, _ in self.x.ticks:
            x = f"{self.px(value):.1f}"
            self._parts.append(
                f'<line class="grid" x1="{x}" x2="{x}" y1="{self._top}" y2="{bottom}"/>'
            )

    def text(self, x: Number, y: Number, words: str, css: str = "", anchor: str = "start") -> None:
        """Write words at a place in pixels."""
        self._parts.append(
            f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    def upright(self, x: Number, words: str, css: str) -> None:
        """Draw a vertical line across the plot with its name beside it."""
        place = self.px(x)
        self._parts.append(
            f'<line class="{css}" x1="{place:.1f}" x2="{place:.1f}" y1="{self._top}" '
            f'y2="{self.height - self._bottom}"/>'
        )
        late = self.x.share(x) > 0.6
        self.text(
            place + (-5 if late else 5), self._top + 11, words, css, "end" if late else "start"
        )

    def end_labels(self, labels: Sequence[tuple[Number, str, str]]) -> None:
        """Write (y, words, css) right of the frame, moved apart where they would overlap."""
        gap, top, bottom = 12.0, self._top + 4.0, self.height - self._bottom + 4.0
        ordered = sorted(labels, key=lambda label: self.py(label[0]))
        places: list[float] = []
        for y, _, _ in ordered:
            place = max(self.py(y) + 4, top)
            places.append(max(place, places[-1] + gap) if places else place)
        for i in reversed(range(len(places))):  # pushed back up where they ran out of the frame
            places[i] = min(places[i], bottom - gap * (len(places) - 1 - i))
        for place, (_, words, css) in zip(places, ordered, strict=True):
            self.text(self.width - self.right + 8, place, words, f"label {css}")

    def svg(self) -> str:
        """Return the whole plot."""
        name = escape(self.name)
        return (
            f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{escape(self.title)}'
            f'</title><desc id="{name}-d">{escape(self.description)}</desc>'
            f'<text class="heading" x="2" y="14">'
            f"{escape(self.title)}</text>{self._frame()}{''.join(self._parts)}</svg>"
        )

    def _frame(self) -> str:
        left, right = self.left, self.width - self.right
        top, bottom = self._top, self.height - self._bottom
        parts = []
        if self.bare:
            parts.append(
                f'<rect class="frame" x="{left}" y="{top}" width="{right - left}" '
                f'height="{bottom - top}"/>'
            )
        for value, words in () if self.bare else self.y.ticks:
            y = self.py(value)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{left - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
                f"{escape(words)}</text>"
            )
        for value, words in () if self.bare else self.x.ticks:
            x = self.px(value)
            parts.append(
                f'<line class="tickmark" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" '
                f'y2="{bottom + 4}"/><text class="tick" x="{x:.1f}" y="{bottom + 15}" '
                f'text-anchor="middle">{escape(words)}</text>'
            )
        if not self.bare:
            parts.append(
                f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
            )
        middle = (top + bottom) / 2
        across = f'x="{(left + right) / 2:.1f}" y="{self.height - 7}"'
        upward = f'transform="translate(11 {middle:.1f}) rotate(-90)"'
        for words, place in ((self.x.label, across), (self.y.label, upward)):
            if words:
                parts.append(
                    f'<text class="name" {place} text-anchor="middle">{escape(words)}</text>'
                )
        return "".join(parts)


def label_room(labels: Sequence[str]) -> int:
    """Return the right margin in which labels of that length fit, 11 units high."""
    return 12 + math.ceil(max((len(label) for label in labels), default=0) * _CHARACTER)


def marker_shape(x: Number, y: Number, slot: int, size: Number) -> str:
    """Return a circle, square, triangle or diamond around a place in pixels."""
    kind = slot % _MARKERS
    if kind == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    corners = {
        1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        2: ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        3: ((0, -1.3), (1.2, 0), (0, 1.3), (-1.2, 0)),
    }[kind]
    points = " ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}"/>'
