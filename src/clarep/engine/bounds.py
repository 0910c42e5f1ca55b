"""Bounds of a config's values, written where its fields are, and checked in one walk."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from clarep.engine.limits import is_setting
from clarep.errors import UserError, unknown_name


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
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        if math.isfinite(self.high):
            return f"is outside {self.ends[0]}{self.low:g}, {self.high:g}{self.ends[1]}"
        return f"is {'below' if self.ends[0] == '[' else 'not above'} {self.low:g}"


Seed = Annotated[int, Within(0)]
"""What seeds anything; like every number, it is below 2^32."""


def check_bounds(config: Any, group: str = "") -> None:
    """Raise UserError for a value of a config that its field does not take.

    That is a number outside its bounds, infinite or beyond 2^32, and a word that is none of its
    Literal's; of a tuple, any of its values.

    group: of which these are the options, with a dot; a config within one is a group too.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value, name = getattr(config, field.name), f"{group}{field.name}"
        if is_dataclass(value):
            check_bounds(value, f"{name}.")
            continue
        usual = field.default if isinstance(field.default, int | float) else "one inside"
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str):
                _check_word(name, one, hints[field.name])
            if isinstance(one, bool) or not isinstance(one, int | float):
                continue
            if not is_setting(one):
                raise UserError(f"`{name}={one}` is not finite and below 2^32: give {usual}, say")
            for bound in _bounds(hints[field.name]):
                if one not in bound:
                    raise UserError(f"`{name}={one}` {bound}: give {usual}, say")


def _check_word(name: str, word: str, hint: Any) -> None:
    names = get_args(hint) if get_origin(hint) is Literal else ()
    if names and word not in names:
        raise unknown_name(name, word, names)


def _bounds(hint: Any) -> Iterator[Within]:
    if get_origin(hint) is Annotated:
        yield from (mark for mark in get_args(hint)[1:] if isinstance(mark, Within))
    for inner in get_args(hint):
        yield from _bounds(inner)
