"""What reaches the terminal: options instead of arguments, and nothing that steers it.

The library speaks of arguments, in backticks (`image_size=32`), as Python takes them; on the
command line they are the options of the command that runs (--image-size 32).
"""

import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast, get_origin, get_type_hints

from clarep.engine.printable import one_line, printable
from clarep.errors import ClarepWarning

if TYPE_CHECKING:  # without torch: a mistaken command line is told here too
    from clarep.data.labelled import LabelledImages

_OTHERWISE = {"canonical": "canon", "folder": "out"}
"""Arguments whose option has another name."""
_ARGUMENT = re.compile(r"`([a-z_][a-z0-9_.]*)(?:=([^`]*))?`")
_OPTIONS = ContextVar[Collection[str]]("options", default=())


def say(text: str) -> None:
    """Write one line to stderr."""
    print(f"clarep: {one_line(in_own_options(text))}", file=sys.stderr)


def note(text: str) -> None:
    """Say on stderr what a run does otherwise than one may expect, if anything."""
    if text:
        say(f"note: {text}")


def warn(text: str) -> None:
    """Say on stderr why a run's result should not be trusted, if there is such a reason."""
    if text:
        say(f"warning: {text}")


def told(data: "LabelledImages") -> "LabelledImages":
    """Return a set, having said what should be known of it before it is trusted."""
    for text in data.notes:
        note(text)
    return data


def options_of(command: Any, group: str = "") -> Iterator[str]:
    """Yield the options of a command, or of a `group` of its own."""
    hints = get_type_hints(type(command), include_extras=True)
    for field in fields(command):
        value = getattr(command, field.name)
        name = group + field.name.replace("_", "-")
        if is_dataclass(value):
            # A subcommand, and a group that is annotated with an empty name, add none.
            yield from options_of(value, group if get_origin(hints[field.name]) else f"{name}.")
        else:
            yield from (f"--{name}", f"--{group}no-{name.removeprefix(group)}")


def in_own_options(text: str) -> str:
    """Return text whose arguments are written as options of the command that runs."""
    return in_options(text, _OPTIONS.get())


def in_options(text: str, options: Collection[str]) -> str:
    """Return text whose arguments in backticks are written as options, where there are such.

    An argument is the option of its name, or, of a group of options, the one that ends in it
    (`epochs` is --train.epochs). Whole commands lose their backticks.
    """

    def spoken(found: re.Match[str]) -> str:
        *groups, name = found[1].split(".")
        name, value = _OTHERWISE.get(name, name), found[2]
        if value in ("True", "False"):  # of flags
            name, value = name if value == "True" else f"no_{name}", None
        for i in range(len(groups) + 1):  # not every group is part of its options' names
            wanted = ".".join([*groups[i:], name]).replace("_", "-")
            ending = [one for one in options if one == f"--{wanted}" or one.endswith(f".{wanted}")]
            if ending:
                return min(ending, key=len) + (f" {value}" if value else "")
        return found[0]

    return re.sub("`(clarep [^`]*)`", r"\1", _ARGUMENT.sub(spoken, text))


class _Printable:
    """A stream in front of another, to which all text goes `printable`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def terminal_of(options: Iterable[str]) -> Iterator[None]:
    """Let a command of these options speak: `say` in options, stdout as `_Printable`.

    A `ClarepWarning` is a note.
    """

    def shown(text: Any, category: type[Warning], *where: Any, **named: Any) -> None:
        if issubclass(category, ClarepWarning):
            note(str(text))
        else:
            usual(text, category, *where, **named)

    token, usual = _OPTIONS.set(tuple(options)), warnings.showwarning
    warnings.showwarning = cast(Any, shown)
    try:
        with redirect_stdout(cast(Any, _Printable(sys.stdout))):
            yield
    finally:
        warnings.showwarning = usual
        _OPTIONS.reset(token)
