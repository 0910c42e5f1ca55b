"""Bounds of what a user gives, as options or in text files, each rule written once."""

import math
import types
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from clarep.errors import UserError, unknown_name

_DEPTH = 64  # levels; Python's own walks of nested values (json, asdict) end at about 1,000
_LARGEST = 2**63  # what NumPy and PyTorch take as a whole number
_hints_of: Any = cache(partial(get_type_hints, include_extras=True))  # slow, and asked for often
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


def check_seed(seed: int, bits: int = 32) -> None:
    """Raise UserError unless the seed is a whole number in [0, 2^32), as NumPy and torch take."""
    whole = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < 2**bits:
        raise UserError(f"seed {seed!r} is outside 0 to 2^{bits} - 1: give a whole number inside")


def is_setting(value: int | float) -> bool:
    """Whether a number that a user gives, as an option or in a recipe, is finite and below 2^32."""
    return bool(abs(value) < _SETTING)  # false for NaN


def check_bounds(config: Any, group: str = "") -> None:
    """Raise UserError for a value of a config that its field does not take.

    That is what is of another type, such as a text for a number or a fraction for a whole one; a
    number outside its bounds, infinite or beyond 2^32; a word that is none of its Literal's; of a
    tuple, any of its values.

    group: of which these are the options, with a dot; a config within one is a group too.
    """
    hints = _hints_of(type(config))
    for field in fields(config):
        value, name, hint = getattr(config, field.name), f"{group}{field.name}", hints[field.name]
        first = field.default[:1] if isinstance(field.default, tuple) else (field.default,)
        usual = f"{first[0]}, say" if first and isinstance(first[0], int | float) else "a number"
        if not _takes(hint, value):
            _refuse_type(name, value, hint, field.default, usual)
        if is_dataclass(value):
            check_bounds(value, f"{name}.")
            continue
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, bool) or not isinstance(one, int | float):
                continue
            if not is_setting(one):
                raise UserError(f"`{name}={one}` is not finite and below 2^32: give {usual}")
            for bound in _bounds(hint):
                if one not in bound:
                    mend = f"{usual} inside" if usual == "a number" else usual
                    raise UserError(f"`{name}={one}` {bound}: give {mend}")


_TYPES: dict[Any, tuple[type, ...]] = {int: (Integral,), float: (Real,), Path: (str, Path)}
"""Type of a field -> what it takes, where that is more: numpy's numbers are numbers."""


def _takes(hint: Any, value: Any) -> bool:
    """Whether a value is of a field's type; of types that are not told here, any is."""
    kinds = list(_alternatives(hint))
    return any(_is_of(kind, value) for kind in kinds) or (value is None and _is_optional(hint))


def _is_of(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        each = get_args(kind)[0]
        return isinstance(value, tuple | list) and all(_takes(each, one) for one in value)
    if kind is Any or not isinstance(kind, type):
        return True
    is_flag = isinstance(value, bool)  # which Python takes for a whole number
    return kind is bool if is_flag else isinstance(value, _TYPES.get(kind, kind))


def _is_optional(hint: Any) -> bool:
    return hint is type(None) or any(_is_optional(one) for one in get_args(hint))


def _refuse_type(name: str, value: Any, hint: Any, default: Any, usual: Any) -> None:
    """Raise UserError for a value of another type than its field's."""
    kinds = list(_alternatives(hint))
    for kind in kinds:
        if get_origin(kind) is Literal and isinstance(value, str):
            if float in kinds or int in kinds:
                choices = " or ".join(map(repr, get_args(kind)))
                raise UserError(f"`{name}={value!r}` is a text: give a number, or {choices}")
            raise unknown_name(name, value, map(str, get_args(kind)))
        if get_origin(kind) is tuple:
            if not isinstance(value, tuple | list):
                raise UserError(f"`{name}={value!r}` is no tuple: give {default[:1]!r}, say")
            wrong = next(one for one in value if not _takes(kind, (one,)))
            _refuse_type(name, wrong, get_args(kind)[0], default, usual)
    for kind, what in ((int, "whole number"), (float, "number")):
        if kinds == [kind]:
            raise UserError(f"`{name}={value!r}` is no {what}: give {usual}")
    if get_origin(kinds[0]) is Literal:
        mend = " or ".join(map(str, get_args(kinds[0])))
    elif is_dataclass(kinds[0]) or default is None:
        words = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}
        mend = words.get(kinds[0], getattr(kinds[0], "__name__", "None"))
    else:
        mend = f"{default!r}, say"
    raise UserError(f"`{name}={value!r}` is of type {type(value).__name__}: give {mend}")


def _alternatives(hint: Any) -> Iterator[Any]:
    """Yield the types that a hint is made of, but for None."""
    if get_origin(hint) is Annotated:
        yield from _alternatives(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for one in get_args(hint):
            yield from _alternatives(one)
    elif hint is not type(None):
        yield hint


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
