"""The measures as a table: on a terminal, as CSV, as JSON."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from clarep.clarid.measures import Measures
from clarep.engine.artefacts import atomic_path, write_json

_HEADINGS = {
    "kind": "directions",
    "images": "images",
    "removed_on_background": "removed off garment",
    "background_spread": "background spread",
    "background_r2": "background R2",
    "judge_accuracy": "judge accuracy",
    "judge_confidence": "judge confidence",
    "sample_within": "within/total samples",
    "feature_within": "within/total features",
    "nmi_conditional": "NMI given class",
    "nmi_null": "NMI no class",
}


def measures_table(rows: Sequence[Measures]) -> str:
    """Return the table as plain text, one row a kind; 95 % intervals over images in brackets."""
    table = Table(*_HEADINGS.values(), box=None, pad_edge=False, header_style="")
    for row in rows:
        table.add_row(*(_cell(row, field) for field in _HEADINGS))
    console = Console(width=200, file=io.StringIO(), no_color=True)
    with console.capture() as capture:
        console.print(table)
        area = rows[0].background_area
        console.print(f"(pixels off the garment: {area:.2f}; 95 % intervals over images)")
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def write_measures(rows: Sequence[Measures], folder: Path) -> None:
    """Write measures.json and measures.csv into `folder`."""
    values = [row.as_dict() for row in rows]
    write_json(folder / "measures.json", values)
    with (
        atomic_path(folder / "measures.csv") as temporary,
        open(temporary, "w", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, fieldnames=list(values[0]))
        writer.writeheader()
        writer.writerows(values)


def _cell(row: Measures, field: str) -> str:
    value = getattr(row, field)
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    interval = {
        "removed_on_background": row.removed_interval,
        "judge_accuracy": row.judge_interval,
    }.get(field)
    bracket = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
    return f"{value:.2f}{bracket}"
