"""What a section of the page is made of: data alone. `page.html.jinja` says how each looks."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from clarep.engine.artefacts import atomic_path
from clarep.report.tables import csv_text

DASH = "\N{EN DASH}"
"""What stands where there is no figure."""


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) or (H, W)."""
    what: str
    """For who cannot see it."""
    side: int = 64
    """Its height in CSS pixels."""

    @property
    def width(self) -> int:
        height, width, *_ = self.pixels.shape
        return self.side * int(width) // int(height)

    @property
    def source(self) -> str:
        """Return it as a PNG in a data URI."""
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self.pixels)).save(stream, "PNG")
        return _data_uri("image/png", stream.getvalue())


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str = ""
    number: bool = False
    """Right-aligned, with figures of equal width."""
    below: str = ""
    """Smaller lines under it, such as an interval."""
    mark: str = ""
    """Why the figure must not be trusted: marked with a dagger, and said in the tooltip."""
    css: str = ""
    """Further class names."""
    link: str = ""
    """Anchor of the page that it leads to."""
    tip: str = ""
    """The whole of what is shortened."""
    picture: Picture | None = None


NO_FIGURE = Cell(DASH, number=True, css="none")


def cell(value: object) -> Cell:
    """Return a plain cell; numbers are aligned right, with thousands apart and few decimals."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, Picture):
        return Cell(picture=value)
    if value is None:
        return NO_FIGURE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value))
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:.4g}", number=True)


@dataclass(frozen=True)
class Download:
    """A table of numbers behind the page: links inside it, and files beside it."""

    name: str
    """Of the files in data/."""
    rows: Sequence[dict[str, Any]]
    """Of the same keys."""

    @property
    def texts(self) -> dict[str, str]:
        """The table as CSV and as JSON."""
        # NaN is no JSON: a strict reader would refuse the file.
        clean = [
            {key: None if isinstance(v, float) and not isfinite(v) else v for key, v in row.items()}
            for row in self.rows
        ]
        return {"csv": csv_text(self.rows), "json": json.dumps(clean, indent=1) + "\n"}

    @property
    def links(self) -> dict[str, str]:
        """What each of `texts` is linked by."""
        csv, table = (text.encode() for text in self.texts.values())
        return {"csv": _data_uri("text/csv", csv), "json": _data_uri("application/json", table)}

    def write(self, folder: Path) -> None:
        """Write NAME.csv and NAME.json."""
        for kind, text in self.texts.items():
            with atomic_path(folder / f"{self.name}.{kind}") as temporary:
                temporary.write_text(text, newline="")


def _data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Block:
    """A part of a section; the template knows it by its kind."""

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__name__.lower()


@dataclass(frozen=True)
class Text(Block):
    """Words: a paragraph, a heading, a text as it is, or commands to be copied, a line each."""

    words: str
    role: Literal["p", "h3", "pre", "commands"] = "p"
    anchor: str = ""


@dataclass(frozen=True)
class Notes(Block):
    """What is missing or doubtful; what stands between backticks is a command."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Facts(Block):
    """Names with what belongs to them."""

    of: Mapping[str, object]


@dataclass(frozen=True)
class Details(Block):
    """What is folded away."""

    summary: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Legend(Block):
    """Swatches with names."""

    entries: Sequence[tuple[Markup, str]]


@dataclass(frozen=True)
class Charts(Block):
    """Charts side by side where there is room."""

    drawn: Sequence[Markup]


@dataclass(frozen=True)
class Table(Block):
    """A table that scrolls in a box of its own; the first cell of a row names it."""

    name: str
    headings: Sequence[object]
    rows: Sequence[Sequence[object]]
    css: str = ""

    @property
    def head(self) -> list[tuple[Cell, bool]]:
        """Each column's heading, and whether numbers stand under it."""
        numeric = [any(cell(row[i]).number for row in self.rows) for i in range(len(self.headings))]
        return list(zip(map(cell, self.headings), numeric, strict=True))

    @property
    def body(self) -> list[list[Cell]]:
        return [[cell(value) for value in row] for row in self.rows]


@dataclass(frozen=True)
class Figure(Block):
    """A table, facts or charts with a caption and the links to the numbers."""

    content: Block
    caption: str
    download: Download | None = None


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    key: str
    """Its anchor."""
    title: str
    blocks: Sequence[Block]
    missing: Sequence[str] = ()
    """What could not be shown and which command gives it, a sentence each, said at its top."""

    @property
    def downloads(self) -> list[Download]:
        """The tables behind its figures."""
        kept = [block.download for block in self.blocks if isinstance(block, Figure)]
        return [one for one in kept if one is not None and one.rows]
