"""Which jobs of a study are missing, and building them in turn, with the time that is left."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clarep.engine.artefacts import Progressed, read_json, write_json
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


def missing_jobs(study: Study) -> list[Job]:
    """Return the jobs that are not done."""
    return [job for job in study.jobs if not job.is_done()]


def turns(study: Study) -> Iterator[Turn]:
    """Yield each missing job in turn; it is built while the caller walks `Turn.parts`.

    What is done stays done: after a kill, the same study goes on in the middle of a job.
    """
    path = study.out / STORE / _TIMES_NAME
    times, missing = _read_times(path), missing_jobs(study)
    for i, job in enumerate(missing):
        known = [seconds for one in missing[i:] if (seconds := _expected(one, times)) is not None]
        left = sum(known) if len(known) == len(missing) - i else None
        yield Turn(job, i + 1, len(missing), left, _timed(job, times, path))


def _timed(job: Job, times: _Times, path: Path) -> Iterator[Progressed]:
    """Build a job, and store how long it took unless an earlier run had begun it."""
    started, fresh = time.perf_counter(), True
    for i, part in enumerate(job.build()):
        fresh = fresh and (i > 0 or part.done == 0)
        yield part
    if fresh:
        times.setdefault(_like(job), []).append(round(time.perf_counter() - started, 1))
        write_json(path, times)


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
