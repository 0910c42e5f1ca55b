"""The measures as a table: on a terminal, as CSV, as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clarep.clarid.measures import Measures
from clarep.engine.artefacts import write_json
from clarep.report.tables import plain_table, write_csv

_HEADINGS = {
    "kind": "directions",
    "images": "images",
    "removed_on_background": "removed off garment",
    "background_colour": "background colour",
    "background_spread": "its spread",
    "background_r2": "its R2",
    "judge_accuracy": "judge accuracy",
    "judge_confidence": "confidence",
    "sample_within": "within/total samples",
    "feature_within": "features",
    "nmi_conditional": "NMI given class",
    "nmi_null": "no class",
}

_LEGEND = """\
removed off garment: share of the removed energy that lies on the backdrop; background colour: the
samples' distance from grey there, its spread between images, and its R2, how well a probe reads
the backdrop's colour from the features; judge: an independent classifier; within/total: variance
inside the classes; NMI: k-means clusters of the features against the classes. More in
docs/method.md#measures""".replace("\n", " ")


def measures_table(rows: Sequence[Measures]) -> str:
    """Return the table as plain text, one row a kind; 95 % intervals over images in brackets."""
    cells = [[_cell(row, field) for field in _HEADINGS] for row in rows]
    area = rows[0].background_area
    note = f"(pixels off the garment: {area:.2f}; 95 % intervals over images)\n{_LEGEND}"
    return plain_table(list(_HEADINGS.values()), cells, note)


def write_measures(rows: Sequence[Measures], folder: Path) -> None:
    """Write measures.json and measures.csv into `folder`.

    In the CSV an interval is two columns: `judge_interval` is `judge_low` and `judge_high`.
    """
    values = [row.as_dict() for row in rows]
    write_json(folder / "measures.json", values)
    write_csv([_flat(row) for row in values], folder / "measures.csv")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("_interval"):
            low, high = (None, None) if value is None else value
            stem = name.removesuffix("_interval")
            flat |= {f"{stem}_low": low, f"{stem}_high": high}
        else:
            flat[name] = value
    return flat


def _cell(row: Measures, field: str) -> str:
    value = getattr(row, field)
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    interval = {
        "removed_on_background": row.removed_interval,
        "background_colour": row.background_interval,
        "judge_accuracy": row.judge_interval,
    }.get(field)
    bracket = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
    return f"{value:.2f}{bracket}"
