"""What reaches the terminal: no name of a class, file or model steers it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, cast

from clarep.engine.printable import one_line, printable


def say(text: str) -> None:
    """Write one line to stderr."""
    print(f"clarep: {one_line(text)}", file=sys.stderr)


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
def printable_stdout() -> Iterator[None]:
    """Let through to stdout what steers no terminal."""
    with redirect_stdout(cast(Any, _Printable(sys.stdout))):
        yield
