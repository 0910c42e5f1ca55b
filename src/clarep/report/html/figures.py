"""Measurements as cells of a table, and as rows to take away."""

import math
from collections.abc import Sequence
from typing import Any

from clarep.report.html.markup import DASH, Cell
from clarep.report.html.runs import Group
from clarep.robustness.evaluation import Measurement

_DAGGER = "† Not trustworthy: "


def share_cell(measured: Measurement | None, below: str = "") -> Cell:
    """Return a share of 1 in percent with its interval; an en dash if it was not measured."""
    return figure_cell(measured, scale=100.0, digits=1, below=below)


def figure_cell(
    measured: Measurement | None, *, scale: float = 1.0, digits: int = 3, below: str = ""
) -> Cell:
    """Return a figure with its interval below it; an en dash if it was not measured."""
    if measured is None or not math.isfinite(measured.value):
        return Cell(DASH, number=True, css="none")
    low, high = (scale * bound for bound in measured.interval)
    interval = f"[{low:.{digits}f}, {high:.{digits}f}]"
    return Cell(
        minus(f"{scale * measured.value:.{digits}f}"),
        number=True,
        below=minus(" ".join(filter(None, (interval, below)))),
        mark=measured.untrustworthy,
    )


def minus(text: str) -> str:
    """Set a minus sign instead of a hyphen before a digit."""
    return "".join(
        "\N{MINUS SIGN}" if char == "-" and text[i + 1 : i + 2].isdigit() else char
        for i, char in enumerate(text)
    )


def doubts(groups: Sequence[Group], keys: Sequence[str]) -> list[str]:
    """Return each reason why figures among `keys` must not be trusted, with these."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for group in groups:
        for key in keys:
            measured = group.get(key)
            if measured is not None and measured.untrustworthy:
                reasons.setdefault((group.label, measured.untrustworthy), []).append(key)
    return [
        f"{_DAGGER}{label}, {', '.join(of)}: {reason}" for (label, reason), of in reasons.items()
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
        }
        for group in groups
        for key in keys
        if (measured := group.get(key)) is not None
    ]
