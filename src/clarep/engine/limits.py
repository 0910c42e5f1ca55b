"""Limits of values that a user or a stored text file gives: JSON, TOML, options."""

import math
from typing import Any

_DEPTH = 64  # levels; Python's own walks of nested values (json, asdict) end at about 1,000
_LARGEST = 2**63  # what NumPy and PyTorch take as a whole number
_SETTING = 2**32  # seeds end there, and no count or length that fits a machine is beyond


def is_setting(value: int | float) -> bool:
    """Whether a number that a user gives, as an option or in a recipe, is finite and below 2^32."""
    return abs(value) < _SETTING  # false for NaN


def check_values(value: Any) -> None:
    """Raise ValueError, which names the place, unless a parsed text is fit to compute with.

    Numbers must be finite, whole ones lie in 64 bits, and brackets be nested at most 64 deep. A
    parser may itself raise RecursionError for what is deeper still.
    """
    level: list[tuple[str, Any]] = [("", value)]
    for _ in range(_DEPTH):
        level = [inner for place, found in level for inner in _checked(place, found)]
        if not level:
            return
    raise ValueError(f"its brackets are nested more than {_DEPTH} deep")


def _checked(place: str, value: Any) -> list[tuple[str, Any]]:
    """Check one value; return those within, each with its place."""
    if isinstance(value, dict):
        return [(f"{place}.{name}".lstrip("."), inner) for name, inner in value.items()]
    if isinstance(value, list):
        return [(f"{place}[{i}]", inner) for i, inner in enumerate(value)]
    named = place or "its value"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{named} is {value}, which is no finite number")
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"{named} is a whole number beyond 64 bits")
    return []
