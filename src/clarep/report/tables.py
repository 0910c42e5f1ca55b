"""Tables: rows of cells as plain text for a terminal, and rows of values as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from clarep.engine.artefacts import atomic_path

_WIDTH = 200  # characters


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[str]], note: str) -> str:
    """Return a table as plain text of at most 200 columns, without frames, a note below it."""
    table = Table(*headings, box=None, pad_edge=False, header_style="")
    for row in rows:
        table.add_row(*row)
    console = Console(width=_WIDTH, file=io.StringIO(), no_color=True)
    with console.capture() as capture:
        console.print(table)
        console.print(note)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows of the same keys as CSV with a heading, atomically; None is an empty cell."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
