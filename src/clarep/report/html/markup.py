"""Pieces of HTML: escaped text, tables, figures, images inside the page, links to data."""

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarep.engine.artefacts import atomic_path
from clarep.engine.printable import printable
from clarep.report.tables import csv_text


def escape(text: str) -> str:
    """Return text as HTML and SVG take it, in an element or a quoted attribute."""
    return html.escape(printable(text))


DASH = "\N{EN DASH}"
"""What stands where there is no figure."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table; its text is escaped here and nowhere else."""

    text: str
    number: bool = False
    """Right-aligned, with figures of equal width."""
    below: str = ""
    """Smaller lines under it, such as an interval."""
    mark: str = ""
    """Why the figure must not be trusted: marked with a dagger, and said in the tooltip."""
    html: str = ""
    """Markup instead of text, from this package's own functions."""
    css: str = ""
    """Further class names."""


def cell(value: object) -> Cell:
    """Return a plain cell; numbers are aligned right, None is an en dash."""
    if isinstance(value, Cell):
        return value
    if value is None:
        return Cell(DASH, number=True, css="none")
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    return Cell(plain_number(value), number=isinstance(value, int | float))


def plain_number(value: object) -> str:
    """Write a number so that it can be read: thousands apart, few decimals; else its text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def table(
    name: str,
    headings: Sequence[str | Cell],
    rows: Iterable[Sequence[object]],
    *,
    css: str = "",
) -> str:
    """Return a table that scrolls in a box of its own; the first cell of a row names it."""
    body = list(rows)
    columns = [cell(heading) for heading in headings]
    numeric = [any(cell(row[i]).number for row in body) for i in range(len(columns))]
    head = "".join(
        _cell("th", column, ' scope="col"', "n" if is_number else "")
        for column, is_number in zip(columns, numeric, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(
            _cell("th" if i == 0 else "td", cell(value), ' scope="row"' if i == 0 else "", "")
            for i, value in enumerate(row)
        )
        + "</tr>"
        for row in body
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">'
        f'<table class="{escape(css)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _cell(tag: str, content: Cell, attributes: str, css: str) -> str:
    names = " ".join(filter(None, (css, "n" if content.number else "", content.css)))
    inner = content.html or escape(content.text)
    if content.mark:
        note = escape(content.mark)
        inner = f'<span class="untrusted" title="{note}">{inner}<sup>†</sup></span>'
    for line in content.below.splitlines():
        inner += f"<small>{escape(line)}</small>"
    return f'<{tag}{attributes} class="{names}">{inner}</{tag}>'


def paragraph(text: str, css: str = "") -> str:
    """Return a paragraph of escaped text."""
    return f'<p class="{css}">{escape(text)}</p>' if css else f"<p>{escape(text)}</p>"


def notes(texts: Sequence[str]) -> str:
    """Return what is missing or doubtful as a list; nothing if there is nothing."""
    return html_notes([with_code(text) for text in texts])


def html_notes(items: Sequence[str]) -> str:
    """Return notes that are markup already, from this package's own functions."""
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<ul class="notes">{listed}</ul>' if items else ""


def link(anchor: str, words: str) -> str:
    """Return a link to a place of the page."""
    return f'<a href="#{escape(anchor)}">{escape(words)}</a>'


def commands(lines: str) -> str:
    """Return commands, a line each, to be copied; they wrap between words alone."""
    words = "\n".join(
        " ".join(f"<span>{escape(word)}</span>" for word in line.split(" ")) if line else ""
        for line in lines.split("\n")
    )
    return f'<pre class="commands" tabindex="0">{words}</pre>'


def with_code(text: str) -> str:
    """Escape text; what stands between backticks is set as code."""
    parts = text.split("`")
    return "".join(
        f"<code>{escape(part)}</code>" if i % 2 and i < len(parts) - 1 else escape(part)
        for i, part in enumerate(parts)
    )


def fact_list(facts: Mapping[str, object]) -> str:
    """Return names with what belongs to them."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items()
    )
    return f'<dl class="facts">{items}</dl>'


def figure(content: str, caption: str, links: str = "") -> str:
    """Return content with its caption and the links to its numbers."""
    return f"<figure>{content}<figcaption>{escape(caption)} {links}</figcaption></figure>"


def charts(svgs: Iterable[str], css: str = "") -> str:
    """Return charts side by side where there is room."""
    return f'<div class="charts {css}">' + "".join(svgs) + "</div>"


def picture(pixels: NDArray[np.uint8], what: str, side: int = 64) -> str:
    """Return an image (H, W, 3) or (H, W) as a PNG inside the page, `side` CSS pixels high."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    encoded = base64.b64encode(stream.getvalue()).decode()
    width = round(side * pixels.shape[1] / pixels.shape[0])
    return (
        f'<img src="data:image/png;base64,{encoded}" alt="{escape(what)}" '
        f'width="{width}" height="{side}">'
    )


@dataclass
class Downloads:
    """Tables of numbers behind the page: embedded as links, and written beside it."""

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Name -> rows of the same keys."""

    def add(self, name: str, rows: Sequence[dict[str, Any]]) -> str:
        """Keep rows under a name of its own; return links to them as CSV and JSON."""
        if name in self.tables:
            raise ValueError(f"the page has two tables {name}")
        if not rows:
            return ""
        self.tables[name] = list(rows)
        return self.links(name)

    def keep(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Keep rows under a name, or add them to those kept; `links` gives the links later."""
        self.tables.setdefault(name, []).extend(rows)

    def links(self, name: str) -> str:
        """Return links that hold the table."""
        rows = self.tables[name]
        made = [
            f'<a download="{escape(name)}.{kind}" href="data:{mime};base64,'
            f'{base64.b64encode(text.encode()).decode()}" '
            f'aria-label="{escape(name)} as {kind.upper()}">{kind.upper()}</a>'
            for kind, mime, text in (
                ("csv", "text/csv", csv_text(rows)),
                ("json", "application/json", _json(rows)),
            )
        ]
        return f'<span class="downloads">{" ".join(made)}</span>'

    def write(self, folder: Path) -> None:
        """Write each table as NAME.csv and NAME.json."""
        for name, rows in self.tables.items():
            if not rows:
                continue
            for suffix, text in ((".csv", csv_text(rows)), (".json", _json(rows))):
                with atomic_path(folder / f"{name}{suffix}") as temporary:
                    temporary.write_text(text, newline="")


def _json(rows: Sequence[dict[str, Any]]) -> str:
    # NaN is no JSON: a strict reader would refuse the file.
    clean = [
        {key: None if isinstance(v, float) and not np.isfinite(v) else v for key, v in row.items()}
        for row in rows
    ]
    return json.dumps(clean, indent=1) + "\n"
