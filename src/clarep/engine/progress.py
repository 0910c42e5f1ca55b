"""Progress on stderr: what, how far, rate, time left. Bars on a terminal, else plain lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from clarep.engine.printable import one_line


class Advance(Protocol):
    """What `progress` yields."""

    def __call__(self, count: int, note: str = "", skipped: int = 0) -> None:
        """Say that `count` more units are done; note, such as a loss, is shown behind the rate.

        skipped: of these units, those that took no work: they do not count for the rate.
        """


def duration(seconds: float) -> str:
    """Return a length of time for a reader, such as "12 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def announce(text: str) -> None:
    """Say on stderr what is about to be done, before a stretch that would be silent."""
    _print(Console(stderr=True), text)


def _print(console: Console, text: str) -> None:
    console.print(one_line(text), highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextmanager
def progress(
    what: str, unit: str, total: int, done: int = 0, *, even: bool = True
) -> Iterator[Advance]:
    """Yield a function that is told how many more units are done.

    done: units that an earlier run had finished; they do not count for the rate.
    even: whether all units cost about the same; if not, the time spent is shown instead of a
    rate and a time left, which would be false.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        yield from _bar(console, what, unit, total, done, even=even)
    else:
        yield from _lines(console, what, unit, total, done, even=even)


def _bar(
    console: Console, what: str, unit: str, total: int, done: int, *, even: bool
) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(
            f"{{task.completed}}/{{task.total}} {unit}  {{task.fields[rate]}}", markup=False
        ),
        TextColumn("{task.fields[left]}") if even else TimeElapsedColumn(),
    )
    started, new, worked = time.perf_counter(), 0, 0
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(one_line(what), total=total, completed=done, rate="", left="")

        def advance(count: int, note: str = "", skipped: int = 0) -> None:
            nonlocal new, worked
            new, worked = new + count, worked + count - skipped
            rate = worked / max(time.perf_counter() - started, 1e-9)
            shown = f"{rate:.2f} {unit}/s" if even else ""
            left = _seconds_left(total - done - new, rate)
            bars.update(task, advance=count, rate=f"{shown}  {one_line(note)}", left=left)

        yield advance


def _seconds_left(units: int, rate: float) -> str:
    return f"{units / rate:.0f} s left" if rate else ""


def _lines(
    console: Console, what: str, unit: str, total: int, done: int, *, even: bool
) -> Iterator[Advance]:
    started, new, worked = time.perf_counter(), 0, 0

    def advance(count: int, note: str = "", skipped: int = 0) -> None:
        nonlocal new, worked
        new, worked = new + count, worked + count - skipped
        spent = max(time.perf_counter() - started, 1e-9)
        rate = worked / spent
        left = _seconds_left(total - done - new, rate)
        pace = (
            f"{rate:.2f} {unit}/s{', ' if left else ''}{left}" if even else f"{spent:.0f} s so far"
        )
        text = f"{what}: {done + new}/{total} {unit}, {pace}"
        text += f", {note}" if note else ""
        _print(console, text)

    yield advance
