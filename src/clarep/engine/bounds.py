"""Bounds of what a user gives, as options or in text files, each rule written once."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from clarep.errors import UserError, unknown_name

_DEPTH = 64  # levels; Python's own walks of nested values (json, asdict) end at about 1,000
_LARGEST = 2**63  # what NumPy and PyTorch take as a whole number
_SETTING = 2**32  # seeds end there, and no count or length that fits a machine is beyond


@dataclass(frozen=True)
class Within:
    """A range of finite numbers, of which a field `Annotated[float, Within(0, 1, "[)")]` is one."""

    low: int | float
    high: int | float = math.inf
    ends: str = "[]"
    """In square brackets what belongs to it, in round ones what does not; infinity never does."""

    def __contains__(self, value: int | float) -> bool:
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        below = value <= self.high if self.ends[1] == "]" else value < self.high
        return bool(above and below and math.isfinite(value))

    def __str__(self) -> str:
        if math.isfinite(self.high):
            return f"is outside {self.ends[0]}{self.low:g}, {self.high:g}{self.ends[1]}"
        return f"is {'below' if self.ends[0] == '[' else 'not above'} {self.low:g}"


Seed = Annotated[int, Within(0)]
"""What seeds anything; like every number, it is below 2^32."""


def check_seed(seed: int) -> None:
    """Raise UserError unless the seed is a whole number in [0, 2^32), as NumPy and torch take."""
    if not 0 <= seed < _SETTING:
        raise UserError(f"seed {seed} is outside 0 to 2^32 - 1: give a whole number inside")


def is_setting(value: int | float) -> bool:
    """Whether a number that a user gives, as an option or in a recipe, is finite and below 2^32."""
    return bool(abs(value) < _SETTING)  # false for NaN


def check_bounds(config: Any, group: str = "") -> None:
    """Raise UserError for a value of a config that its field does not take.

    That is what is no number where one is wanted, or no whole one; a number outside its bounds,
    infinite or beyond 2^32; a word that is none of its Literal's; of a tuple, any of its values.

    group: of which these are the options, with a dot; a config within one is a group too.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value, name, hint = getattr(config, field.name), f"{group}{field.name}", hints[field.name]
        if is_dataclass(value):
            check_bounds(value, f"{name}.")
            continue
        first = field.default[:1] if isinstance(field.default, tuple) else (field.default,)
        usual = first[0] if first and isinstance(first[0], int | float) else "one inside"
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and get_origin(hint) is Literal and one not in get_args(hint):
                raise unknown_name(name, one, get_args(hint))
            if (wanted := _number_of(hint)) and not isinstance(one, wanted):
                what = "whole number" if wanted is Integral else "number"
                raise UserError(f"`{name}={one!r}` is no {what}: give {usual}, say")
            if isinstance(one, bool) or not isinstance(one, int | float):
                continue
            if not is_setting(one):
                raise UserError(f"`{name}={one}` is not finite and below 2^32: give {usual}, say")
            for bound in _bounds(hint):
                if one not in bound:
                    raise UserError(f"`{name}={one}` {bound}: give {usual}, say")


def _number_of(hint: Any) -> Any:
    """Return Integral or Real where a hint takes such numbers alone, or a tuple of them."""
    inner = get_args(hint)[:1] if get_origin(hint) in (Annotated, tuple) else ()
    if inner:
        return _number_of(inner[0])
    return {int: Integral, float: Real}.get(hint) if isinstance(hint, type) else None


def _bounds(hint: Any) -> Iterator[Within]:
    if get_origin(hint) is Annotated:
        yield from (mark for mark in get_args(hint)[1:] if isinstance(mark, Within))
    for inner in get_args(hint):
        yield from _bounds(inner)


def check_values(value: Any, place: str = "", depth: int = 0) -> None:
    """Raise ValueError, which names the place, unless a parsed text is fit to compute with.

    Numbers must be finite, whole ones lie in 64 bits, and brackets be nested at most 64 deep. A
    parser may itself raise RecursionError for what is deeper still.
    """
    if depth >= _DEPTH:
        raise ValueError(f"its brackets are nested more than {_DEPTH} deep")
    if isinstance(value, dict):
        for name, inner in value.items():
            check_values(inner, f"{place}.{name}".lstrip("."), depth + 1)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            check_values(inner, f"{place}[{i}]", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place or 'its value'} is {value}, which is no finite number")
    elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"{place or 'its value'} is a whole number beyond 64 bits")
