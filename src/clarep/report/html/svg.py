"""A plot as inline SVG: axes, marks and words, coloured by the page's style sheet.

Coordinates given to a `Plot` are the data's; text is 11 units high and a plot 352 units wide,
what fits a phone, so that a plot is never scaled down to where it cannot be read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH = 352
Number = int | float
_CHARACTER = 6.1  # width of an average character at 11 units
_TOP = 26
_LONGEST_TITLE = 48  # characters that fit above a plot
_CORNERS = (  # of markers but the circle
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    ((0, -1.3), (1.2, 0), (0, 1.3), (-1.2, 0)),
)


def tag(name: str, css: str = "", *inside: str, **attributes: str | Number) -> Markup:
    """Return an element around what is inside; all but markup is escaped.

    attributes: floats are rounded to a tenth of a pixel.
    """
    given = ({"class": css} if css else {}) | attributes
    written = Markup().join(
        Markup(' {}="{}"').format(key.replace("_", "-"), f"{v:.1f}" if isinstance(v, float) else v)
        for key, v in given.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, Markup().join(inside))


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
            return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
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
    left: int = 46
    right: int = 12
    bare: bool = False
    """Without ticks and grid, for axes that have no unit."""
    _parts: list[Markup] = field(default_factory=list)

    @property
    def _bottom(self) -> int:
        return self.height - (24 if self.bare else 40)

    def px(self, x: Number) -> float:
        """Return the horizontal place of a value."""
        return self.left + self.x.share(x) * (WIDTH - self.left - self.right)

    def py(self, y: Number) -> float:
        """Return the vertical place of a value."""
        return self._bottom - self.y.share(y) * (self._bottom - _TOP)

    def _draw(self, name: str, css: str, *inside: str, **attributes: str | Number) -> None:
        self._parts.append(tag(name, css, *inside, **attributes))

    def _places(self, points: Sequence[tuple[Number, Number]]) -> str:
        return " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)

    def line(self, points: Sequence[tuple[Number, Number]], css: str) -> None:
        """Draw a line through points."""
        self._draw("polyline", f"line {css}", points=self._places(points))

    def band(self, points: Sequence[tuple[Number, Number, Number]], css: str) -> None:
        """Fill between (x, low, high)."""
        around = [(x, high) for x, _, high in points] + [(x, low) for x, low, _ in points[::-1]]
        self._draw("polygon", f"band {css}", points=self._places(around))

    def whisker(self, x: Number, low: Number, high: Number, css: str, aside: Number = 0) -> None:
        """Draw an interval upright, cut at the frame, `aside` pixels to the right."""
        place = self.px(x) + aside
        y1, y2 = (self.py(self.y.inside(y)) for y in (low, high))
        self._draw("line", f"whisker {css}", x1=place, x2=place, y1=y1, y2=y2)

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
        self._draw("g", f"mark {css}", shape, tag("title", "", tip))

    def bar(
        self, place: tuple[float, float], x: Number, ends: tuple[Number, Number], css: str, tip: str
    ) -> None:
        """Draw a bar from the axis' zero (or low end) to x, its interval on it.

        place: its upper edge, in pixels from the frame's top, and its height.
        """
        start, end = sorted((self.px(max(0.0, self.x.low)), self.px(x)))
        top, width = _TOP + place[0], max(end - start, 0.5)
        title = tag("title", "", tip)
        self._draw("rect", f"bar {css}", title, x=start, y=top, width=width, height=place[1])
        x1, x2 = (self.px(self.x.inside(bound)) for bound in ends)
        middle = top + place[1] / 2
        self._draw("line", "whisker ink", x1=x1, x2=x2, y1=middle, y2=middle)

    def upright(self, x: Number, css: str, words: str = "") -> None:
        """Draw a vertical line across the plot with words beside it."""
        place, late = self.px(x), self.x.share(x) > 0.6
        self._draw("line", css, x1=place, x2=place, y1=_TOP, y2=self._bottom)
        if words:
            beside = place + (-5 if late else 5)
            self.text(beside, _TOP + 11, words, css, "end" if late else "start")

    def text(self, x: Number, y: Number, words: str, css: str = "", anchor: str = "start") -> None:
        """Write words at a place in pixels."""
        self._draw("text", css, words, x=float(x), y=float(y), text_anchor=anchor)

    def end_labels(self, labels: Sequence[tuple[Number, str, str]]) -> None:
        """Write (y, words, css) right of the frame, moved apart where they would overlap."""
        gap, top, bottom = 12.0, _TOP + 4.0, self._bottom + 4.0
        ordered = sorted(labels, key=lambda label: self.py(label[0]))
        places: list[float] = []
        for y, _, _ in ordered:
            place = max(self.py(y) + 4, top)
            places.append(max(place, places[-1] + gap) if places else place)
        for i in reversed(range(len(places))):  # pushed back up where they ran out of the frame
            places[i] = min(places[i], bottom - gap * (len(places) - 1 - i))
        for place, (_, words, css) in zip(places, ordered, strict=True):
            self.text(WIDTH - self.right + 8, place, words, f"label {css}")

    def svg(self) -> Markup:
        """Return the whole plot."""
        marks, self._parts = self._parts, []
        short = f"{self.title[: _LONGEST_TITLE - 1]}\N{HORIZONTAL ELLIPSIS}"
        title = short if len(self.title) > _LONGEST_TITLE else self.title
        self.text(2, 14, title, "heading")
        self._frame()
        return tag(
            "svg",
            "plot",
            tag("title", "", self.title, id=f"{self.name}-t"),
            tag("desc", "", self.description, id=f"{self.name}-d"),
            *self._parts,
            *marks,
            viewBox=f"0 0 {WIDTH} {self.height}",
            role="img",
            aria_labelledby=f"{self.name}-t {self.name}-d",
        )

    def _frame(self) -> None:
        left, right, bottom = self.left, WIDTH - self.right, self._bottom
        middle = (left + right) / 2
        if self.bare:
            size = {"width": right - left, "height": bottom - _TOP}
            self._draw("rect", "frame", x=left, y=_TOP, **size)
        else:
            for value, words in self.y.ticks:
                y = self.py(value)
                self._draw("line", "grid", x1=left, x2=right, y1=y, y2=y)
                self.text(left - 6, y + 3.5, words, "tick", "end")
            for value, words in self.x.ticks:
                x = self.px(value)
                self._draw("line", "tickmark", x1=x, x2=x, y1=bottom, y2=bottom + 4)
                self.text(x, bottom + 15, words, "tick", "middle")
            self._draw("line", "axis", x1=left, x2=right, y1=bottom, y2=bottom)
        if self.x.label:
            self.text(middle, self.height - 7, self.x.label, "name", "middle")
        if self.y.label:
            turned = f"translate(11 {(_TOP + bottom) / 2:.1f}) rotate(-90)"
            self._draw("text", "name", self.y.label, transform=turned, text_anchor="middle")


def label_room(labels: Sequence[str]) -> int:
    """Return the right margin in which labels of that length fit, 11 units high."""
    return 12 + math.ceil(max((len(label) for label in labels), default=0) * _CHARACTER)


def marker_shape(x: Number, y: Number, slot: int, size: Number) -> Markup:
    """Return a circle, square, triangle or diamond around a place in pixels."""
    kind = slot % (len(_CORNERS) + 1)
    if kind == 0:
        return tag("circle", cx=float(x), cy=float(y), r=float(size))
    places = (f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in _CORNERS[kind - 1])
    return tag("polygon", points=" ".join(places))
