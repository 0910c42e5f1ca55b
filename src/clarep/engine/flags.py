"""A dataclass of options as the words of a command line."""

import shlex
from dataclasses import fields
from typing import Any


def flags(settings: Any, *names: str) -> str:
    """Return the fields of a dataclass that differ from their defaults, as command-line options.

    names: those that are looked at; all without any. Empty, or it starts with a space.
    """
    given = ""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value != field.default and field.name in (names or (field.name,)):
            given += f" --{field.name.replace('_', '-')}"
            given += "" if value is True else f" {shlex.quote(str(value))}"
    return given
