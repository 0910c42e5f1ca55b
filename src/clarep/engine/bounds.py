"""Bounds of a config's numbers, written where its fields are, and checked in one walk."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from clarep.errors import UserError


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
        end = self.ends[1] if math.isfinite(self.high) else ")"
        return f"{self.ends[0]}{self.low:g}, {self.high:g}{end}"


def check_bounds(config: Any, group: str = "") -> None:
    """Raise UserError for a number of a config that lies outside the bounds of its field.

    group: of which these are the options, with a dot; a config within one is a group too.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            check_bounds(value, f"{group}{field.name}.")
            continue
        for bound in _bounds(hints[field.name]):
            if value is not None and value not in bound:
                usual = field.default if isinstance(field.default, int | float) else "one inside"
                raise UserError(
                    f"`{group}{field.name}={value}` is outside {bound}: give {usual}, say"
                )


def _bounds(hint: Any) -> Iterator[Within]:
    if get_origin(hint) is Annotated:
        yield from (mark for mark in get_args(hint)[1:] if isinstance(mark, Within))
    for inner in get_args(hint):
        yield from _bounds(inner)
