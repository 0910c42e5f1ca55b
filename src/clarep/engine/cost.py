"""What a computation cost: counted where it happens, kept in every artefact."""

import ctypes
import gc
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_STATM = Path("/proc/self/statm")


@dataclass
class Ledger:
    """Counts and seconds of a run so far."""

    images: int = 0
    """Images that went through."""
    denoiser_evaluations: int = 0
    """Passes of one image through the whole network; guidance takes two."""
    jacobian_products: int = 0
    """Directions multiplied with J or its transpose, over all images."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds of each stage."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes to stage `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def as_dict(self) -> dict[str, Any]:
        """Return all counts, with the process's peak memory so far in MiB."""
        return sum_costs([asdict(self) | {"peak_memory_mb": peak_memory_mb()}])


def sum_costs(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up what `Ledger.as_dict` gave for several parts; memory is the largest of them."""
    seconds: dict[str, float] = {}
    for cost in costs:
        for name, spent in cost["seconds"].items():
            seconds[name] = seconds.get(name, 0.0) + spent
    counts = ("images", "denoiser_evaluations", "jacobian_products")
    return {name: sum(cost[name] for cost in costs) for name in counts} | {
        "seconds": {name: round(spent, 3) for name, spent in seconds.items()},
        "peak_memory_mb": max((cost["peak_memory_mb"] for cost in costs), default=0),
    }


def peak_memory_mb() -> int:
    """Return the largest resident memory that this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 2**20 if sys.platform == "darwin" else peak // 2**10


@contextmanager
def peak_memory() -> Iterator[Callable[[], float | None]]:
    """Sample the resident memory every 5 ms, yielding a function that returns the peak in MiB.

    It is the peak above what was resident before, once freed memory has gone back to the
    system. The process's own high-water mark never falls, so it would show the largest case in
    all later ones. None where /proc does not tell it.
    """
    if not _STATM.exists():
        yield lambda: None
        return
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    before = peak = _resident_mb()
    stop = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            peak = max(peak, _resident_mb())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: peak - before
    finally:
        stop.set()
        thread.join()


def _resident_mb() -> float:
    pages = int(_STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
