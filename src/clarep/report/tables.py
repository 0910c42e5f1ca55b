"""Tables: rows of cells as plain text for a terminal, and rows of values as CSV."""

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from clarep.engine.artefacts import atomic_path
from clarep.engine.printable import one_line, printable

WIDTH = 80
"""Characters that every terminal has beside each other."""
_GAP = 2  # characters between columns
_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # the last four are the full-width ones


def plain_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    note: str,
    width: int = WIDTH,
    keys: int = 1,
) -> str:
    """Return a table as plain text, without frames, a note below it, of at most so many characters.

    What does not fit beside the first columns is a further table below, which has them again.

    keys: how many columns say what a row is of.
    """
    cells = [list(map(one_line, row)) for row in (headings, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    console = Console(width=width, file=io.StringIO(), no_color=True, markup=False, emoji=False)
    with console.capture() as capture:
        for i, shown in enumerate(_beside(widths, keys, width)):
            if i:
                console.print()
            head, *body = [[row[column] for column in shown] for row in cells]
            table = Table(*head, box=None, pad_edge=False, header_style="")
            for row in body:
                table.add_row(*row)
            console.print(table)
        if note:
            console.print(printable(note))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _beside(widths: Sequence[int], keys: int, width: int) -> list[list[int]]:
    """Return which columns stand in each table, the first `keys` in all."""
    first = list(range(keys))
    tables = [[*first]]
    for column in range(keys, len(widths)):
        wide = sum(widths[i] + _GAP for i in tables[-1]) + widths[column]
        if wide > width and len(tables[-1]) > keys:
            tables.append([*first])
        tables[-1].append(column)
    return tables


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
