"""Progress on stderr: what, how far, rate, time left. Bars on a terminal, else plain lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Advance(Protocol):
    """What `progress` yields."""

    def __call__(self, count: int, note: str = "") -> None:
        """Say that `count` more units are done; note, such as a loss, is shown behind the rate."""


@contextmanager
def progress(what: str, unit: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Yield a function that is told how many more units are done.

    done: units that an earlier run had finished; they do not count for the rate.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        yield from _bar(console, what, unit, total, done)
    else:
        yield from _lines(console, what, unit, total, done)


def _bar(console: Console, what: str, unit: str, total: int, done: int) -> Iterator[Advance]:
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn(f"{{task.completed}}/{{task.total}} {unit}  {{task.fields[rate]}}"),
        TimeRemainingColumn(),
    )
    started, new = time.perf_counter(), 0
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what, total=total, completed=done, rate="")

        def advance(count: int, note: str = "") -> None:
            nonlocal new
            new += count
            rate = f"{new / max(time.perf_counter() - started, 1e-9):.2f} {unit}/s"
            bars.update(task, advance=count, rate=f"{rate}  {note}")

        yield advance


def _lines(console: Console, what: str, unit: str, total: int, done: int) -> Iterator[Advance]:
    started, new = time.perf_counter(), 0

    def advance(count: int, note: str = "") -> None:
        nonlocal new
        new += count
        rate = new / max(time.perf_counter() - started, 1e-9)
        left = f", {(total - done - new) / rate:.0f} s left" if rate else ""
        text = f"{what}: {done + new}/{total} {unit}, {rate:.2f} {unit}/s{left}"
        text += f", {note}" if note else ""
        console.print(text, highlight=False, soft_wrap=True)

    yield advance
