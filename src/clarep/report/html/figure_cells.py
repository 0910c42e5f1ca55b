"""Measurements as cells and tables, what qualifies them, and how many images stand behind."""

import math
import re
from collections.abc import Sequence
from typing import Any

from clarep.report.html.blocks import NO_FIGURE, Block, Cell, Download, Figure, Notes, Table
from clarep.report.html.report_data import ReportData
from clarep.report.html.run_folders import Group
from clarep.report.tables import remarks_once
from clarep.robustness.evaluation import Measurement
from clarep.robustness.measures import heading_of, measure_of


def measures_table(
    data: ReportData,
    name: str,
    keys: Sequence[str],
    caption: str = "",
    *,
    explained: bool = True,
    behind: Sequence[str] = (),
) -> list[Block]:
    """Return a table of measures by methods with its numbers to take away, and the doubts below.

    Args:
        data: all methods.
        name: of the table and its files.
        keys: one a row.
        caption: its beginning.
        explained: whether each measure's meaning stands under it.
        behind: all keys to take away, where they are more than those shown.
    """
    counts, units = _counts_of_rows(data.measured, keys), [measure_of(key).unit for key in keys]
    usual = max(units, key=units.count)
    rows = []
    for key in keys:
        measure = measure_of(key)
        unit = measure.unit_and_better.removeprefix(usual).removeprefix(", ")
        below = [measure.meaning if explained else "", unit, counts[key]]
        label = Cell(heading_of(key), below="\n".join(filter(None, below)))
        rows.append([label, *(figure_cell(group.get(key)) for group in data.measured)])
    table = Table(f"{name} by methods", ["measure", *data.labels], rows)
    unless = ", unless a row says otherwise" if len(set(units)) > 1 else ""
    intervals = f"{usual[0].upper()}{usual[1:]}{unless}, with 95 % intervals."
    caption = f"{caption} {intervals}{counted(data.measured, keys)}".strip()
    download = Download(name, rows_of(data.measured, behind or keys))
    return [Figure(table, caption, download), Notes(doubts(data.measured, behind or keys))]


def figure_cell(measured: Measurement | None, below: str = "") -> Cell:
    """Return a figure with its interval below it; an en dash if it was not measured."""
    if measured is None or not math.isfinite(measured.value):
        return NO_FIGURE
    low, high = measured.interval
    lines = f"[{low:.3f}, {high:.3f}]\n{below}".strip()
    return Cell(
        minus(f"{measured.value:.3f}"), True, below=minus(lines), mark=measured.untrustworthy
    )


def minus(text: str) -> str:
    """Set a minus sign instead of a hyphen before a digit."""
    return re.sub(r"-(?=\d)", "\N{MINUS SIGN}", text)


def doubts(groups: Sequence[Group], keys: Sequence[str]) -> list[str]:
    """Return what qualifies figures among `keys`, each remark once with all figures it is of."""
    figures = (
        (group.label, heading_of(key), measured.remarks)
        for group in groups
        for key in dict.fromkeys(keys)
        if (measured := group.get(key)) is not None
    )
    said = remarks_once(figures)
    return [f"† {line}" if ": not trustworthy" in line else line for line in said]


def rows_of(groups: Sequence[Group], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row a method and key, as the tables and charts show them."""
    return [
        {
            "method": group.label,
            "key": key,
            "value": measured.value,
            "low": measured.interval[0],
            "high": measured.interval[1],
            "seeds": group.seeds_of(key),
            "images": measured.images,
            "untrustworthy": measured.untrustworthy,
            "note": measured.note,
        }
        for group in groups
        for key in keys
        if (measured := group.get(key)) is not None
    ]


def images_of(groups: Sequence[Group], keys: Sequence[str]) -> str:
    """Return the number of images of each run, such as n = 200 or n = 896 to 930."""
    evaluations = [evaluation for group in groups for evaluation in group.evaluations]
    counts = sorted({e[key].images for e in evaluations for key in keys if key in e})
    if not counts:
        return ""
    return f"n = {counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")


def counted(groups: Sequence[Group], keys: Sequence[str]) -> str:
    """Return the end of a caption: how many images."""
    if not (usual := _usual(groups, keys)):
        return ""
    each = " for each seed" if any(len(group.evaluations) > 1 for group in groups) else ""
    uneven = any(_counts_of_rows(groups, keys).values())
    return f" {usual} images{each}{', unless a row says otherwise' if uneven else ''}."


def _counts_of_rows(groups: Sequence[Group], keys: Sequence[str]) -> dict[str, str]:
    """Return what a row of each key says of its images: nothing where the caption says it."""
    usual = _usual(groups, keys)
    said = {key: images_of(groups, [key]) for key in keys}
    return {key: "" if images == usual else images for key, images in said.items()}


def _usual(groups: Sequence[Group], keys: Sequence[str]) -> str:
    said = [images for key in keys if (images := images_of(groups, [key]))]
    return max(said, key=said.count, default="")
