"""`fan_out` on Ray: actors with one task each at a time; for one that dies another is started.

Not by Ray (`max_task_retries`), which asks the same actor again, and four times of a machine that
vanished before it knows of that: https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html
"""

import os
import signal
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from threading import current_thread, main_thread
from typing import Any
from uuid import uuid4

import torch

from clarep.engine.artefacts import temporary_name, versions
from clarep.engine.extras import require_extra
from clarep.engine.fan_out import EngineConfig, Result, Task
from clarep.engine.freed_memory import keep_freed_memory
from clarep.engine.lock import WORKER
from clarep.engine.places import Place, place_of
from clarep.engine.progress import announce
from clarep.errors import UserError

_RETRIES = 3  # of a task whose worker died: one that kills every worker has to end


@dataclass(frozen=True)
class _Driver:
    """What a worker must have in common with the process that it works for."""

    threads: int
    folder: str
    """In which it runs: paths may be relative."""
    is_relative: bool
    """Whether that of the results is."""
    versions: dict[str, str]
    written: str | None
    """Where results are written."""
    sign: str
    """Name of a file that lies there."""

    def join(self) -> None:
        """Make this process alike; raises UserError where that is not possible."""
        host, found = socket.gethostname(), versions()
        wanted = self.versions.items()
        other = [f"{name} {found[name]} for {one}" for name, one in wanted if found[name] != one]
        if other:
            raise UserError(
                f"{host} works with {', '.join(other)}: install the same versions on all machines"
            )
        try:
            os.chdir(self.folder)
        except OSError as error:
            if self.is_relative:
                raise UserError(
                    f"{host} has no folder {self.folder}, where the command was started: give the "
                    "whole path of `out`, in a folder that all machines share"
                ) from error
        if self.written is not None and self.sign not in place_of(self.written).names():
            raise UserError(
                f"{host} does not see what is written in {self.written}: give as `out` a folder "
                "that all machines share, by the same path, or an address such as s3://BUCKET/RUN"
            )
        torch.set_num_threads(self.threads)  # the rounding depends on it
        keep_freed_memory()


class _Worker:
    """What runs in an actor's process."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._work: Callable[[Any], Any] | None = None

    def do(self, made: list[Any], task: Any) -> tuple[Any, Exception | None]:
        """Return what a task gives, or the mistake that it met.

        made: the reference of `make_worker`; in a list, as Ray would fetch it for each task anew.
        """
        try:
            if self._work is None:  # not in __init__, whose mistakes reach nobody
                self._driver.join()
                self._work = import_module("ray").get(made[0])()
            assert self._work is not None
            return self._work(task), None
        except UserError as error:
            return None, UserError(str(error))  # single kinds of it do not survive a pickle
        except OSError as error:
            return None, OSError(error.errno, error.strerror, error.filename)


def fan_out_on_ray(
    tasks: Sequence[Task],
    make_worker: Callable[[], Callable[[Task], Result]],
    engine: EngineConfig,
    after: Sequence[Collection[int]] = (),
    written: Place | None = None,
) -> Iterator[Result]:
    """Do as `fan_out`, on Ray."""
    if not tasks:
        return
    is_relative = False
    if written is not None and written.folder is not None:
        is_relative = not written.folder.is_absolute()
        written = place_of(written.folder.resolve())
    sign = temporary_name(f"seen-by-all-{uuid4().hex}")
    ray: Any = require_extra("ray", "ray")
    _connect(ray, engine)
    threads = torch.get_num_threads()
    options: dict[str, Any] = {
        "num_cpus": 1 if engine.gpus_per_worker else threads,
        "num_gpus": engine.gpus_per_worker,
    }
    count = min(_room(ray, engine, options), len(tasks))
    options |= {"scheduling_strategy": "SPREAD"}
    # Libraries beside torch read the first when they are imported.
    own = {"OMP_NUM_THREADS": str(threads), WORKER: "1"}
    # With GPUs each takes those that it sees.
    own |= {} if engine.gpus_per_worker else {"CUDA_VISIBLE_DEVICES": ""}
    options["runtime_env"] = {"env_vars": own}
    kind, made = ray.remote(_Worker).options(**options), ray.put(make_worker)
    driver = _Driver(
        threads, os.getcwd(), is_relative, versions(), str(written or "") or None, sign
    )
    chains = longest_chains(after) if after else [0] * len(tasks)
    waiting, ended = dict(enumerate(tasks)), set[int]()
    idle: list[Any] = []
    running: dict[Any, tuple[int, Any]] = {}
    tries = [0] * len(tasks)
    try:
        if written is not None:
            written.write(sign, b"")
        while waiting or running:
            ready = [i for i in waiting if not after or ended.issuperset(after[i])]
            ready.sort(key=lambda i: -chains[i])
            for i in ready[: count - len(running)]:
                actor = idle.pop() if idle else kind.remote(driver)
                running[actor.do.remote([made], waiting.pop(i))] = i, actor
            while idle:  # its place may be wanted by one whose machine is gone
                ray.kill(idle.pop())
            [first], _ = ray.wait(list(running), num_returns=1)
            i, actor = running.pop(first)
            tries[i] += 1
            got = _got(ray, first, tasks[i], tries[i])
            if got is None:
                ray.kill(actor)  # it may be out of reach alone
                waiting[i] = tasks[i]
                continue
            idle.append(actor)
            ended.add(i)
            yield got[0]
    finally:
        for actor in [*idle, *(actor for _, actor in running.values())]:
            ray.kill(actor)
        if written is not None:
            written.remove(sign)


def longest_chains(after: Sequence[Collection[int]]) -> list[int]:
    """Return the length of the longest chain of tasks that wait for each one.

    after: for each task, the numbers of earlier ones that must have ended. With long chains first,
    none is left to one worker at the end (list scheduling by levels, Hu 1961).
    """
    chains = [0] * len(after)
    for i in reversed(range(len(after))):
        for earlier in after[i]:
            chains[earlier] = max(chains[earlier], chains[i] + 1)
    return chains


def _connect(ray: Any, engine: EngineConfig) -> None:
    """Make this process a driver of the cluster, unless it is one, or of a new one of its own."""
    if ray.is_initialized():
        return
    address = engine.address or os.environ.get("RAY_ADDRESS") or "local"
    alone = {"include_dashboard": False} if address == "local" else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of our own: nobody is told
    in_main = current_thread() is main_thread()
    stop = signal.getsignal(signal.SIGTERM)
    try:
        if address.count(":") == 1:  # else Ray looks for a head that is not there for minutes
            host, port = address.split(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, logging_level="error", log_to_driver=False, **alone)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(
            f"there is no cluster of Ray at {address}, or it lets this process not in ({error}): "
            "start one, or use its RAY_AUTH_MODE and its token here (docs/scale.md), or leave out "
            "`address`, which starts Ray on this machine alone"
        ) from error
    finally:
        if in_main:  # Ray puts its own there
            signal.signal(signal.SIGTERM, stop)


def _room(ray: Any, engine: EngineConfig, options: dict[str, Any]) -> int:
    """Return how many workers there are to be; say what the cluster has."""
    whole = ray.cluster_resources()
    cpus, gpus = whole.get("CPU", 0.0), whole.get("GPU", 0.0)
    found = [cpus // options["num_cpus"]]
    if engine.gpus_per_worker:
        found.append(gpus // engine.gpus_per_worker)
    room, each = int(min(found)), f"{options['num_cpus']:g} CPUs, {engine.gpus_per_worker:g} GPUs"
    if not room and engine.workers is None:
        raise UserError(
            f"the cluster of Ray has {cpus:g} CPUs and {gpus:g} GPUs, and a worker takes {each}: "
            "give fewer `gpus_per_worker` or OMP_NUM_THREADS, or `workers` if machines are to come"
        )
    workers = engine.workers or room
    nodes = sum(node["Alive"] for node in ray.nodes())
    waits = f"; there is room for {room}, the others wait" if workers > room else ""
    announce(f"ray: workers {workers} (each {each}), machines {nodes}{waits}")
    return workers


def _got(ray: Any, reference: Any, task: Any, tries: int) -> tuple[Any] | None:
    """Return what a worker gave, None if it died; raises UserError if all that tried did.

    Raises the task's own mistake, too.
    """
    try:
        result, mistake = ray.get(reference)
    except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
        if tries <= _RETRIES:
            return None
        raise UserError(
            f"{tries} workers died at {task} ({str(error).splitlines()[0]}): look for the "
            "cause, such as memory, in the logs of Ray (/tmp/ray/session_latest/logs), and run "
            "the same command again, which goes on"
        ) from error
    if mistake is not None:
        raise mistake
    return (result,)
