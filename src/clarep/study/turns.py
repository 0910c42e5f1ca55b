"""Which jobs of a study are missing, and building them in turn, with the time that is left."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clarep.engine.artefacts import Progressed, read_json, write_json
from clarep.engine.fan_out import LOCAL, EngineConfig, fan_out
from clarep.engine.places import place_of
from clarep.study.plan import STORE, Job, Study

_TIMES_NAME = "seconds.json"
_Times = dict[str, list[float]]
"""What finished jobs took, kept in a file for later runs."""


@dataclass(frozen=True)
class Turn:
    """A job whose turn it is: walk `parts` to its end to build it."""

    job: Job  # what is built
    number: int  # which of the jobs that were missing, from 1
    total: int  # how many were missing
    seconds_left: float | None  # for it and all later ones; None where a kind was never timed
    parts: Iterator[Progressed]  # the building itself


def walk_silently(turn: Turn) -> None:
    """Build a job and tell nobody; here, since a worker of Ray loads what this file needs alone."""
    for _ in turn.parts:
        pass


def missing_jobs(study: Study) -> list[Job]:
    """Return the jobs that are not done."""
    return [job for job in study.jobs if not job.is_done()]


def build_jobs(
    study: Study, walk: Callable[[Turn], object], engine: EngineConfig = LOCAL
) -> Iterator[Job]:
    """Build each missing job, in turn or beside each other; yield each when it is done.

    What is done stays done: after a kill, the same study goes on in the middle of a job.

    walk: walks `Turn.parts` to their end, where the job is built.
    """
    path = study.out / STORE / _TIMES_NAME
    times, missing = _read_times(path), missing_jobs(study)
    after = [
        [j for j in range(i) if missing[j].folder in missing[i].reads] for i in range(len(missing))
    ]
    builder = _Builder(missing, times, walk)
    for i, seconds in fan_out(
        range(len(missing)), lambda: builder, engine, after=after, written=place_of(study.out)
    ):
        if seconds is not None:
            times.setdefault(_like(missing[i]), []).append(seconds)
            write_json(path, times)
        yield missing[i]


@dataclass(frozen=True)
class _Builder:
    """Builds jobs, in whatever process."""

    missing: list[Job]
    times: _Times
    walk: Callable[[Turn], object]

    def __call__(self, i: int) -> tuple[int, float | None]:
        """Build one; return its number, and how long it took unless an earlier run had begun it."""
        later, fresh = self.missing[i:], True

        def parts() -> Iterator[Progressed]:
            nonlocal fresh
            for j, part in enumerate(self.missing[i].build()):
                fresh = fresh and (j > 0 or part.done == 0)
                yield part

        expected = [_expected(job, self.times) for job in later]
        known = [seconds for seconds in expected if seconds is not None]
        left = sum(known) if len(known) == len(later) else None
        started = time.perf_counter()
        self.walk(Turn(self.missing[i], i + 1, len(self.missing), left, parts()))
        return i, round(time.perf_counter() - started, 1) if fresh else None


def _like(job: Job) -> str:
    """Return what jobs have in common that take about as long: all but the seed."""
    return f"{job.kind} {job.name.split(' seed ')[0]}"


def _read_times(path: Path) -> _Times:
    try:
        return {str(k): [float(s) for s in v] for k, v in read_json(path).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # an estimate is all that is lost


def _expected(job: Job, times: _Times) -> float | None:
    """Return the mean of jobs like it, or of all of its kind; None if there was none."""
    of_kind = [spent for name, spent in times.items() if name.startswith(f"{job.kind} ")]
    alike = times.get(_like(job)) or [seconds for spent in of_kind for seconds in spent]
    return sum(alike) / len(alike) if alike else None
