"""Progress on stderr: what, how far, rate, time left. Bars on a terminal, else plain lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Advance(Protocol):
    """What `progress` yields."""

    def __call__(self, count: int, note: str = "") -> None:
        """Say that `count` more units are done; note, such as a loss, is shown behind the rate."""


def announce(text: str) -> None:
    """Say on stderr what is about to be done, before a stretch that would be silent."""
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


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
        TextColumn(what),
        BarColumn(),
        TextColumn(f"{{task.completed}}/{{task.total}} {unit}  {{task.fields[rate]}}"),
        TimeRemainingColumn() if even else TimeElapsedColumn(),
    )
    started, new = time.perf_counter(), 0
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what, total=total, completed=done, rate="")

        def advance(count: int, note: str = "") -> None:
            nonlocal new
            new += count
            rate = f"{new / max(time.perf_counter() - started, 1e-9):.2f} {unit}/s" if even else ""
            bars.update(task, advance=count, rate=f"{rate}  {note}")

        yield advance


def _lines(
    console: Console, what: str, unit: str, total: int, done: int, *, even: bool
) -> Iterator[Advance]:
    started, new = time.perf_counter(), 0

    def advance(count: int, note: str = "") -> None:
        nonlocal new
        new += count
        spent = max(time.perf_counter() - started, 1e-9)
        rate = new / spent
        left = f", {(total - done - new) / rate:.0f} s left" if rate else ""
        pace = f"{rate:.2f} {unit}/s{left}" if even else f"{spent:.0f} s so far"
        text = f"{what}: {done + new}/{total} {unit}, {pace}"
        text += f", {note}" if note else ""
        console.print(text, highlight=False, soft_wrap=True)

    yield advance
