"""A comparison as a table: on a terminal, as Markdown, CSV and JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clarep.engine.artefacts import atomic_path, write_json
from clarep.engine.lock import hold
from clarep.engine.printable import one_line, printable
from clarep.report.tables import plain_table, remarks_once, write_csv
from clarep.robustness.evaluation import remarks_of
from clarep.robustness.measures import heading_of
from clarep.study.comparison import Cell, Comparison, Row

_NONE = "\N{EN DASH}"
_MARKS = {"better": " ▲", "worse": " ▼", "neither": "", "untested": f" {_NONE}"}


def comparison_table(comparison: Comparison) -> str:
    """Return the table as plain text, notes below it."""
    headings, *rows = _cells(comparison)
    # The notes have commands and paths, which are copied: a terminal may wrap them, we do not.
    return "\n".join([plain_table(headings, rows, ""), *map(printable, _notes(comparison))])


def comparison_markdown(comparison: Comparison) -> str:
    """Return the table in Markdown, notes below it."""
    headings, *rows = _cells(comparison)
    lines = [
        f"| {' | '.join(one_line(cell).replace('|', chr(92) + '|') for cell in cells)} |"
        for cells in [headings, ["---"] * len(headings), *rows]
    ]
    return "\n".join([*lines, "", *(f"- {one_line(note)}" for note in _notes(comparison)), ""])


def write_comparison(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write table.md, table.csv (a line a method and measure) and table.json into `folder`."""
    _lock = hold(folder)
    paths = {suffix: folder / f"table.{suffix}" for suffix in ("md", "csv", "json")}
    with atomic_path(paths["md"]) as temporary:
        temporary.write_text(comparison_markdown(comparison))
    lines = [
        {"method": row.name, "seeds": " ".join(map(str, row.seeds))} | _line(key, cell)
        for row in comparison.rows
        for key, cell in zip(comparison.measures, row.cells, strict=True)
    ]
    write_csv(lines, paths["csv"])
    write_json(paths["json"], comparison_json(comparison))
    return paths


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return all of a comparison as JSON values."""
    return asdict(comparison) | {
        "verdicts": {
            row.name: {cell.measure: cell.verdict for cell in row.cells if cell is not None}
            for row in comparison.rows
            if row.name != comparison.reference
        }
    }


def _cells(comparison: Comparison) -> list[list[str]]:
    """Return the headings, and a row a method: its figures, and what training cost if known."""
    counted = _is_counted(comparison)
    rows = [["method", *map(heading_of, comparison.measures), *(["training"] if counted else [])]]
    for row in comparison.rows:
        is_marked = comparison.reference not in (None, row.name)
        cost = _NONE if row.training is None else f"{row.training:.2f} x"
        texts = [_text(cell, is_marked) for cell in row.cells]
        rows.append([row.name, *texts, *([cost] if counted else [])])
    return rows


def _is_counted(comparison: Comparison) -> bool:
    return any(row.training is not None for row in comparison.rows)


def _text(cell: Cell | None, is_marked: bool) -> str:
    if cell is None:
        return _NONE
    low, high = cell.interval
    text = f"{cell.value:.3f} [{low:.2f}, {high:.2f}]{_MARKS[cell.verdict] if is_marked else ''}"
    return f"{text} *not trustworthy*" if cell.untrustworthy else text


def _line(key: str, cell: Cell | None) -> dict[str, Any]:
    difference = cell.difference if cell else None
    return {
        "measure": key,
        "value": cell and cell.value,
        "low": cell and cell.interval[0],
        "high": cell and cell.interval[1],
        "difference": difference and difference.value,
        "difference_low": difference and difference.interval[0],
        "difference_high": difference and difference.interval[1],
        "p": difference and difference.p_value,
        "p_holm": difference and difference.p_holm,
        "verdict": cell and cell.verdict,
        "untrustworthy": cell and cell.untrustworthy,
        "note": cell and cell.note,
    }


def _notes(comparison: Comparison) -> list[str]:
    notes = [_intervals_note(comparison.rows)]
    if comparison.tests:
        notes.append(
            f"▲ better, ▼ worse than {comparison.reference} at 5 %: paired bootstrap over images "
            f"of these students, Holm over {comparison.tests} tests; {_NONE} not tested (no "
            "per-image values)"
        )
    elif comparison.reference is None:
        notes.append("nothing is marked: no run is of vanilla, and no other reference was named")
    if _is_counted(comparison):
        notes.append(
            f"training: operations of convolutions and matrix products over {comparison.reference}"
            "'s, counted; in seconds gradients of gradients are dearer; what is read of a teacher "
            f"(canonical set, audit) is paid for beside it, once for all seeds; {_NONE} not counted"
        )
    seeds = {row.seeds for row in comparison.rows}
    if len(seeds) > 1:
        each = ", ".join(f"{row.name} {' '.join(map(str, row.seeds))}" for row in comparison.rows)
        notes.append(f"the methods were trained with other seeds: {each}")
    figures = (
        (row.name, heading_of(cell.measure), remarks_of(cell.untrustworthy, cell.note))
        for row in comparison.rows
        for cell in filter(None, row.cells)
    )
    return [*notes, *remarks_once(figures), *comparison.notes]


def _intervals_note(rows: Sequence[Row]) -> str:
    counts = sorted({len(row.seeds) for row in rows})
    if counts == [1]:
        return (
            "ONE seed a method: 95 % intervals over images, which do not show "
            "what another seed would change"
        )
    over_seeds = "mean over seeds, 95 % intervals by Student's t over them"
    if counts[0] == 1:
        return f"{over_seeds}; methods of one seed: over images"
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} seeds: {over_seeds}"
