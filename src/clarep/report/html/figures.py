"""Measurements as cells of a table, and as rows to take away."""

import math
from collections.abc import Sequence
from typing import Any

from clarep.report.html.markup import DASH, Cell
from clarep.report.html.run_folders import Group
from clarep.robustness.evaluation import Measurement

_DAGGER = "† "


def figure_cell(measured: Measurement | None) -> Cell:
    """Return a figure with its interval below it; an en dash if it was not measured."""
    if measured is None or not math.isfinite(measured.value):
        return Cell(DASH, number=True, css="none")
    low, high = measured.interval
    return Cell(
        minus(f"{measured.value:.3f}"),
        number=True,
        below=minus(f"[{low:.3f}, {high:.3f}]"),
        mark=measured.untrustworthy,
    )


def minus(text: str) -> str:
    """Set a minus sign instead of a hyphen before a digit."""
    return "".join(
        "\N{MINUS SIGN}" if char == "-" and text[i + 1 : i + 2].isdigit() else char
        for i, char in enumerate(text)
    )


def doubts(groups: Sequence[Group], keys: Sequence[str]) -> list[str]:
    """Return what qualifies figures among `keys`, each remark once with all figures it is of."""
    of: dict[tuple[str, str], list[str]] = {}
    for group in groups:
        for key in dict.fromkeys(keys):
            if (measured := group.get(key)) is not None:
                for remark in measured.remarks:
                    of.setdefault((group.label, remark), []).append(key)
    return [
        f"{_DAGGER if remark.startswith('not') else ''}{label}, {', '.join(found)}: {remark}"
        for (label, remark), found in of.items()
    ]


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
