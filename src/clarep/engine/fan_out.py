"""Tasks that do not wait for each other: one after another here, or beside each other on workers.

What a task gives follows from the task alone, so that engine, number of workers and order change
nothing.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from clarep.engine.bounds import Within, check_bounds
from clarep.engine.places import Place
from clarep.errors import UserError, check_type

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class EngineConfig:
    """Where the work is done."""

    engine: Literal["local", "ray"] = "local"
    """In this process, or on the workers of Ray, on one machine or many (extra ray): the results
    are the same to the last bit, on the same kind of processor or GPU and with as many threads."""
    address: str | None = None
    """Of the Ray cluster: auto for the one that this machine belongs to, or HOST:PORT of its head;
    without it RAY_ADDRESS, else Ray is started for this command on this machine alone."""
    workers: Annotated[int, Within(1)] | None = None
    """Processes of Ray that work beside each other; without it, as many as there is room for."""
    gpus_per_worker: Annotated[float, Within(0)] = 0.0
    """GPUs that each of them takes, 0.5 for two on one; without a GPU it takes as many CPUs as it
    has threads (OMP_NUM_THREADS) and sees no GPU."""


LOCAL = EngineConfig()


def check_engine(config: EngineConfig, device: str = "cpu", is_written: bool = True) -> None:
    """Raise UserError for options of Ray without it, and for what its workers cannot do.

    device: where the work is done. is_written: whether results are written to somewhere.
    """
    check_type("engine", config, EngineConfig, "an EngineConfig, such as EngineConfig('ray')")
    check_bounds(config)
    if config.engine == "local":
        for name in ("address", "workers", "gpus_per_worker"):
            if (given := getattr(config, name)) != getattr(LOCAL, name):
                raise UserError(
                    f"`{name}={given}` is of Ray: give `engine=ray` too, or leave it out"
                )
    elif device != "cpu" and not config.gpus_per_worker:
        raise UserError(
            f"`device={device}` and workers of Ray without a GPU do not fit: give "
            "`gpus_per_worker=1`, or 0.5 for two workers on one"
        )
    elif device.partition(":")[2] not in ("", "0"):
        raise UserError(
            f"`device={device}` is one GPU of this machine, and Ray gives each worker its own: "
            "give `device=cuda`"
        )
    elif not is_written:
        raise UserError("workers of Ray write what they find, and no `folder` is given: give one")


def fan_out(
    tasks: Sequence[Task],
    make_worker: Callable[[], Callable[[Task], Result]],
    engine: EngineConfig = LOCAL,
    *,
    after: Sequence[Collection[int]] = (),
    written: Place | None = None,
) -> Iterator[Result]:
    """Yield what a worker gives for each task, as they come to an end.

    >>> from clarep.engine.fan_out import fan_out
    >>> sorted(fan_out([3, 1, 2], lambda: lambda task: task * task))
    [1, 4, 9]

    Args:
        tasks: small values, in an order in which they can be done.
        make_worker: makes, once a worker, the function that does a task. With Ray it goes to other
            machines, with all that it refers to; what is large in its results should be written by
            the worker, to where all machines see it.
        engine: where; a worker or a machine that dies is replaced, and its task done again.
        after: for each task, the numbers of earlier ones that must have ended; none where it is
            empty.
        written: where the worker writes, which all machines must see.

    Raises UserError as a task does, if Ray is not installed, if there is no cluster at the address
    or no room in it, if a machine has other versions or does not see what is written, and if
    workers died at one task again and again.
    """
    if engine.engine == "ray":
        from clarep.engine.ray_engine import fan_out_on_ray

        yield from fan_out_on_ray(tasks, make_worker, engine, after, written)
        return
    work = make_worker() if tasks else None
    for task in tasks:
        assert work is not None
        yield work(task)
