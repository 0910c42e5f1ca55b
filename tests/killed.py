"""Commands in processes that are really killed, and what two finished folders differ in."""

import json
import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from forked import Programs

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

LATE = """
import sklearn.cluster, sklearn.manifold, torch.onnx
from PIL import Image
Image.init()
try:
    import torch.utils.tensorboard
except ImportError:
    pass
from clarep.cli.main import main
main(["--version"])
"""
"""Imports what commands import late."""
_COUNTED = """
import os, sys, time
from clarep.cli.main import main
by, most, told, *arguments = sys.argv[1:]
events = 0
def counted(call):
    def count(*given, **named):
        global events
        events += 1
        if events == int(most):
            os.kill(os.getpid(), int(by))
        return call(*given, **named)
    return count
for name in ("replace", "fsync", "unlink", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
BEFORE
code = main(arguments)
with open(told, "w") as stream:
    stream.write(str(events))
sys.exit(code)
"""


@dataclass
class Ended:
    """A command that came to its end, or was killed."""

    code: int
    """Exit status; -9 when killed."""
    seconds: float
    said: str
    """On stdout and stderr."""
    events: int
    """How often it renamed, synced, deleted a file or made a folder, if it came to its end."""


def run_counted(
    programs: Programs,
    cwd: Path,
    arguments: str,
    *,
    after: float = math.inf,
    events: int = 0,
    by: int = signal.SIGKILL,
    before: str = "",
) -> Ended:
    """Run a command; send it a signal after so many seconds or changes of files.

    before: code that its process executes first.
    """
    told = cwd / "events.txt"
    told.unlink(missing_ok=True)
    asked = (int(by), events, told, *arguments.split())
    code = _COUNTED.replace("BEFORE", before)
    program = programs.start(code, *asked, cwd=cwd, OMP_NUM_THREADS="1")
    started, sent = time.monotonic(), False
    while program.poll() is None:
        if not sent and time.monotonic() - started > after:
            program.send_signal(by)
            sent = True
        time.sleep(0.002)
    seconds, count = time.monotonic() - started, int(told.read_text()) if told.exists() else 0
    return Ended(program.wait(), seconds, program.stdout + program.stderr, count)


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
