"""Do a study's missing jobs one after the other, and estimate how long the rest takes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clarep.engine.artefacts import Progressed, read_json, write_json
from clarep.study.plan import STORE, Job, Study

_TIMES_NAME = "seconds.json"


@dataclass(frozen=True)
class Turn:
    """A job whose turn it is: walk `parts` to its end to build it."""

    job: Job
    """What is built."""
    number: int
    """Which of the jobs that were missing, from 1."""
    total: int
    """How many were missing."""
    seconds_left: float | None
    """For this and all later jobs, from finished ones of the same kind; None if any kind has
    none yet."""
    parts: Iterator[Progressed]
    """The building itself."""


def missing_jobs(study: Study) -> list[Job]:
    """Return the jobs that are not done."""
    return [job for job in study.jobs if not job.is_done()]


def turns(study: Study) -> Iterator[Turn]:
    """Yield each missing job in turn; it is built while the caller walks `Turn.parts`.

    What is done stays done: after a kill, the same study goes on in the middle of a job.
    """
    times = _Times(study.out / STORE / _TIMES_NAME)
    missing = missing_jobs(study)
    for i, job in enumerate(missing):
        left = times.estimate(missing[i:])
        yield Turn(job, i + 1, len(missing), left, _timed(job, times))


def _timed(job: Job, times: "_Times") -> Iterator[Progressed]:
    """Build a job, and remember how long it took unless an earlier run had begun it."""
    started, fresh = time.perf_counter(), True
    for i, part in enumerate(job.build()):
        fresh = fresh and (i > 0 or part.done == 0)
        yield part
    if fresh:
        times.add(job.cost_class, time.perf_counter() - started)


class _Times:
    """Seconds that finished jobs took, by class of cost, kept in a file for later runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, list[float]] = {}
        try:
            stored = read_json(path)
            self._seconds = {str(k): [float(s) for s in v] for k, v in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # an estimate is all that is lost

    def add(self, cost_class: str, seconds: float) -> None:
        self._seconds.setdefault(cost_class, []).append(round(seconds, 1))
        write_json(self._path, self._seconds)

    def estimate(self, jobs: Sequence[Job]) -> float | None:
        each = [self._one(job) for job in jobs]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) if len(known) == len(each) else None

    def _one(self, job: Job) -> float | None:
        """Return the mean of its class, or of all that are of its kind."""
        alike = self._seconds.get(job.cost_class) or [
            seconds
            for name, all_seconds in self._seconds.items()
            if name.startswith(job.kind)
            for seconds in all_seconds
        ]
        return sum(alike) / len(alike) if alike else None
