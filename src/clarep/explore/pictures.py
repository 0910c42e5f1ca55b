"""Pieces of the page: rows of pictures, galleries of buttons, maps of points, the spectrum."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup
from torch import Tensor

from clarep.clarid.clareps import as_rgb
from clarep.report.html.blocks import Picture
from clarep.report.html.charts import class_css
from clarep.report.html.svg import Plot, log_axis, tag

PICKED = """
element.addEventListener('click', event => {
    const button = event.target.closest('button[data-i]')
    if (button) trigger('click', {i: +button.dataset.i})
})
"""
"""What makes a `gallery` or a `map_of` tell which of its buttons was pressed."""
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
Shown = tuple[str, UInt8[Tensor, "c h w"]]
"""A caption and an image."""


def image(pixels: UInt8[Tensor, "c h w"], what: str) -> Markup:
    """Return an image element."""
    return tag("img", "", src=Picture(as_rgb(pixels), what).source, alt=what)


def row(shown: Iterable[Shown], css: str = "") -> Markup:
    """Return pictures side by side, each with its caption."""
    figures = [
        tag("figure", "", image(pixels, name), tag("figcaption", "", name))
        for name, pixels in shown
    ]
    return tag("div", f"pictures {css}", *figures)


def at(steps: float) -> str:
    """Return how far a walk has gone, in words."""
    return f"{steps:+g} {SIGMA}".replace("-", "\N{MINUS SIGN}").replace("+0", "0")


def waiting(words: str) -> Markup:
    """Return what is said while something is computed, or cannot be."""
    return tag("p", "waiting", words, role="status")


def computing(words: str, done: float, total: float) -> Markup:
    """Return a bar of how far something is, and in words what is being done."""
    bar = tag("progress", "", max=total, value=done, aria_label=words)
    return bar + waiting(f"{words} …")


def gallery(shown: Mapping[int, Shown], picked: int | None = None, css: str = "") -> Markup:
    """Return pictures as buttons that tell their numbers; `picked` is the one that is marked."""
    buttons = [
        tag(
            "button",
            "",
            image(pixels, name),
            tag("span", "", name),
            type="button",
            data_i=i,
            aria_pressed="true" if i == picked else "false",
        )
        for i, (name, pixels) in shown.items()
    ]
    return tag("div", f"gallery {css}", *buttons)


def map_of(
    title: str, places: Float[np.ndarray, "n 2"], labels: Sequence[int], shown: Mapping[int, Shown]
) -> Markup:
    """Return points as buttons that show their picture under the pointer or in focus."""
    low, high = places.min(axis=0), places.max(axis=0)
    at = 100 * (places - low) / np.maximum(high - low, 1e-12)
    points = [
        tag(
            "button",
            f"point {class_css(label)}",
            image(pixels, ""),
            type="button",
            data_i=i,
            aria_label=name,
            title=name,
            style=f"left:{x:.1f}%;bottom:{y:.1f}%",
        )
        for (x, y), label, (i, (name, pixels)) in zip(at, labels, shown.items(), strict=True)
    ]
    return tag("figure", "map", tag("figcaption", "", title), tag("div", "points", *points))


def legend(names: Mapping[int, str]) -> Markup:
    """Return which colour is which class's; `names` by label."""
    chips = [
        tag("li", "", tag("i", f"chip {class_css(label)}"), name)
        for label, name in sorted(names.items())
    ]
    several = len({class_css(label) for label in names}) < len(names)
    words = "A colour stands for several classes: a point's name is under the pointer."
    return tag("ul", "legend", *chips) + (waiting(words) if several else Markup())


def spectrum(values: Float[Tensor, " most"], k: int) -> Markup:
    """Return the singular values of the directions, k marked."""
    found = values.tolist()
    x = log_axis("direction, the strongest first", 1, max(2, len(found)))
    y = log_axis("singular value", max(min(found), found[0] * 1e-4) * 0.8, found[0] * 1.2)
    words = f"From {found[0]:.3g} at the first to {found[-1]:.3g} at number {len(found)}."
    plot = Plot("spectrum", "Spectrum of the Jacobian", words, x, y, height=240)
    plot.line([(i + 1, y.inside(value)) for i, value in enumerate(found)], "s1")
    if k:
        plot.upright(k, "reference", f"k = {k}")
    return plot.svg()
