"""Commands in processes that are really killed, and what two finished folders differ in.

Importing torch takes seconds: one process imports clarep, computes nothing and is forked for each
command (`Forks`).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MAY_DIFFER = {
    "seconds",  # wall time of stages
    "images_per_s",  # and what follows from it
    "loader_share",
    "cost",  # counts of what was computed: a part that was begun twice counts twice
    "peak_memory_mb",
    "content_sha256",  # the seal over these
}
"""Keys of JSON that an interrupted run may hold otherwise than an uninterrupted one."""
MAY_DIFFER_FILES = {"tensorboard", "seconds.json"}
"""Folders and files likewise: curves against wall time, and times that an estimate is made of."""
PAGE = "report"
"""Of `clarep run`: it prints costs, times and the day. Its tables of figures are compared."""

_SERVER = """
import atexit, json, os, signal, sys, time
import torch
torch.set_num_threads(1)
import clarep.cli.main as cli
for name in cli._PLACES:
    cli._imported(name)
import clarep.teachers.families, clarep.robustness.suite.suite
import sklearn.cluster, sklearn.manifold, torch._dynamo, torch.onnx  # what commands import late
from PIL import Image
Image.init()
try:
    import torch.utils.tensorboard
except ImportError:
    pass
cli.main(["--version"])
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    pid = os.fork()
    if pid == 0:
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(asked["cwd"])
        events, most = 0, asked["events"]
        def counted(call):
            def count(*given, **named):
                global events
                events += 1
                if events == most:
                    os.kill(os.getpid(), asked["signal"])
                return call(*given, **named)
            return count
        for name in ("replace", "fsync", "unlink", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        exec(asked["before"])
        try:
            code = cli.main(asked["arguments"])
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 1
        atexit._run_exitfuncs()
        with open(asked["log"] + ".events", "w") as stream:
            stream.write(str(events))
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    started = time.monotonic()
    sent = False
    while True:
        found, status, used = os.wait4(pid, os.WNOHANG)
        if found:
            break
        if asked["after"] is not None and not sent and time.monotonic() - started > asked["after"]:
            os.kill(pid, asked["signal"])
            sent = True
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps([code, time.monotonic() - started, used.ru_utime + used.ru_stime]), flush=True)
"""


@dataclass
class Ended:
    """A command that came to its end, or was killed."""

    code: int
    """Exit status; -9 when killed."""
    seconds: float
    cpu_seconds: float
    said: str
    """On stdout and stderr."""
    events: int
    """How often it renamed, synced, deleted a file or made a folder, if it came to its end."""


class Forks:
    """Runs commands in forks of one process."""

    def __init__(self, cwd: Path) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.cwd, self._log = cwd, cwd / "said.txt"
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._server.stdout is not None
        while (line := self._server.stdout.readline()) != "ready\n":
            assert line, "the process that is forked did not start"

    def run(
        self,
        arguments: str,
        *,
        after: float | None = None,
        events: int | None = None,
        by: int = signal.SIGKILL,
        before: str = "",
    ) -> Ended:
        """Run a command; send it a signal after so many seconds or changes of files.

        before: code that its process executes first.
        """
        asked = {"arguments": arguments.split(), "after": after, "events": events}
        asked |= {"log": str(self._log), "cwd": str(self.cwd), "signal": int(by), "before": before}
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        code, seconds, cpu = json.loads(self._server.stdout.readline())
        events = Path(f"{self._log}.events")
        count = int(events.read_text()) if events.exists() else 0
        events.unlink(missing_ok=True)
        return Ended(code, seconds, cpu, self._log.read_text(errors="replace"), count)

    def close(self) -> None:
        self._server.communicate()


@contextmanager
def forks(cwd: Path) -> Iterator[Forks]:
    opened = Forks(cwd)
    try:
        yield opened
    finally:
        opened.close()


def contents(folder: Path) -> dict[str, Any]:
    """Return all that lies in a folder by its path, but for what may differ."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_dir() or MAY_DIFFER_FILES & set(parts):
            continue
        page = parts[0] == PAGE and (path.suffix == ".html" or path.name.startswith("cost"))
        found["/".join(parts)] = None if page else _content(path)
    return found


def _content(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix == ".json":
        return _without(json.loads(content))
    if path.suffix == ".jsonl":
        return [_without(json.loads(line)) for line in content.splitlines()]
    if path.suffix == ".pt":
        state = torch.load(path, weights_only=True)
        state["config"] = json.loads(state["config"])
        return _without(state)
    return content


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in MAY_DIFFER}
    if isinstance(value, list | tuple):
        return [_without(inner) for inner in value]
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes()
    return value


def differing(one: Path, other: Path) -> list[str]:
    """Return the paths of which two folders hold different contents."""
    ours, theirs = contents(one), contents(other)
    return [path for path in sorted({*ours, *theirs}) if ours.get(path, ...) != theirs.get(path)]
