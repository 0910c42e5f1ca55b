"""Progress on stderr: what, how far, rate, time left. Bars on a terminal, else plain lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
    console = Console(stderr=True)
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
    bar = _bar(console, unit, even) if console.is_terminal else None
    task = bar.add_task(one_line(what), total=total, completed=done, pace="") if bar else None
    started, new, worked = time.perf_counter(), 0, 0

    def advance(count: int, note: str = "", skipped: int = 0) -> None:
        nonlocal new, worked
        new, worked = new + count, worked + count - skipped
        spent = max(time.perf_counter() - started, 1e-9)
        rate = f"{worked / spent:.2f} {unit}/s"
        left = f"{(total - done - new) * spent / worked:.0f} s left" if worked else ""
        if bar is not None and task is not None:
            told = [rate, left, note] if even else [note]
            bar.update(task, advance=count, pace=one_line("  ".join(filter(None, told))))
        else:
            told = [rate, left, note] if even else [f"{spent:.0f} s so far", note]
            announce(f"{what}: {done + new}/{total} {unit}, " + ", ".join(filter(None, told)))

    with bar or nullcontext():
        yield advance


def _bar(console: Console, unit: str, even: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *([] if even else [TimeElapsedColumn()]),
        TextColumn(f"{{task.completed}}/{{task.total}} {unit}", markup=False),
        TextColumn("{task.fields[pace]}", markup=False),
        console=console,
    )
