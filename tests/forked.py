"""Programs in processes of their own, to be killed or held to limits, that import nothing anew.

Importing clarep and torch takes a process five seconds: one imports them, without the tests' hook,
computes nothing, and is forked for each program.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMAND = "import sys; from clarep.cli.main import main; sys.exit(main(sys.argv[1:]))"
"""The program that is the command line."""

_SERVER = """
import atexit, contextlib, gc, json, os, signal, sys, traceback
import torch
torch.set_num_threads(1)
import clarep.cli.main as cli
for name in cli._PLACES:
    cli._imported(name)
import clarep.teachers.families, clarep.robustness.suite.suite, clarep.distill.trainer.student_run
import torch._dynamo  # an optimiser imports it
gc.freeze()

def become(asked):
    for number, place in enumerate((os.devnull, asked["stdout"], asked["stderr"])):
        os.dup2(os.open(place, os.O_RDWR | os.O_CREAT), number)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count()))
    sys.argv = ["program", *asked["arguments"]]
    try:
        exec(compile(asked["code"], "<program>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)

running = set()
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "code" in asked:
        if not (pid := os.fork()):
            become(asked)
        running.add(pid)
        print(pid, flush=True)
    elif "import" in asked:
        with contextlib.redirect_stdout(sys.stderr):
            exec(asked["import"], {})
        gc.freeze()
        print("null", flush=True)
    else:
        pid, status = os.waitpid(asked["pid"], os.WNOHANG)
        running.discard(pid)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
for pid in running:
    os.kill(pid, signal.SIGKILL)
"""


class Program:
    """One that was started: what of subprocess.Popen the tests need."""

    def __init__(self, server: "Programs", pid: int, said: Path) -> None:
        self._server, self._said = server, said
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"pid": self.pid})
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"no end in {timeout} s"
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def stdout(self) -> str:
        return self._said.with_suffix(".out").read_text()

    @property
    def stderr(self) -> str:
        return self._said.with_suffix(".err").read_text()


class Programs:
    """Starts programs in forks of one process."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n", "the process to fork did not start"

    def ask(self, asked: Mapping[str, Any]) -> Any:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def have_imported(self, code: str) -> None:
        """Have all later programs begin with what some lines import."""
        self.ask({"import": code})

    def start(
        self, code: str, *arguments: object, cwd: Path | None = None, **environment: str
    ) -> Program:
        """Start a Python program here, with variables of the environment beside those of now."""
        self._count += 1
        said = self._folder / f"{self._count}.said"
        asked = {"code": code, "arguments": [*map(str, arguments)], "cwd": str(cwd or Path.cwd())}
        asked |= {"environment": dict(os.environ) | environment}
        asked |= {"stdout": str(said.with_suffix(".out")), "stderr": str(said.with_suffix(".err"))}
        return Program(self, self.ask(asked), said)

    def run(self, code: str, *arguments: object, **environment: str) -> Program:
        """Start one and wait for its end."""
        started = self.start(code, *arguments, **environment)
        started.wait()
        return started

    def close(self) -> None:
        self._server.communicate()
