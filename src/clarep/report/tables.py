"""Tables: rows of cells as plain text for a terminal, and rows of values as CSV."""

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from clarep.engine.artefacts import atomic_path
from clarep.engine.printable import one_line, printable

_WIDEST = 200  # characters
WIDTH = 100
"""Characters that a terminal of most people has beside each other."""
_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # the last four are the full-width ones


def plain_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], note: str, width: int = _WIDEST
) -> str:
    """Return a table as plain text, without frames, a note below it, of at most so many columns."""
    table = Table(*map(one_line, headings), box=None, pad_edge=False, header_style="")
    for row in rows:
        table.add_row(*map(one_line, row))
    console = Console(width=width, file=io.StringIO(), no_color=True, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
        if note:
            console.print(printable(note))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def filled(text: str, width: int) -> str:
    """Return a text in lines of at most so many characters."""
    return textwrap.fill(printable(text), width, break_long_words=False, break_on_hyphens=False)


def remarks_once(figures: Iterable[tuple[str, str, Iterable[str]]]) -> list[str]:
    """Return each remark of (method, measure, remarks) once, with all the measures it is of."""
    of: dict[tuple[str, str], list[str]] = {}
    for method, measure, remarks in figures:
        for remark in remarks:
            of.setdefault((method, remark), []).append(measure)
    return [f"{method}, {', '.join(found)}: {remark}" for (method, remark), found in of.items()]


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as `csv_text`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(csv_text(rows), encoding="utf-8", newline="")


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows of the same keys as CSV with a heading; None is an empty cell.

    Text that a spreadsheet would take for a formula has an apostrophe in front.
    """
    stream = io.StringIO()
    writer = csv.writer(stream)
    for row in ([*rows[0]], *([row[key] for key in rows[0]] for row in rows)):
        writer.writerow([_as_text(value) if isinstance(value, str) else value for value in row])
    return stream.getvalue()


def _as_text(value: str) -> str:
    shown = one_line(value)
    return f"'{shown}" if shown[:1] and shown[0] in _FORMULA else shown
