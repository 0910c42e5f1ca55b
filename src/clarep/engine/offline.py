"""A Python process of its own, cut off from the network as far as the system allows."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

_CLOSED = """
import socket
class Closed(socket.socket):
    def __init__(self, *_, **__):
        raise OSError("no network in this process")
socket.socket = Closed
"""
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH")
_OFFLINE = (["unshare", "--net"], ["unshare", "--map-root-user", "--net"])


def run_offline(
    program: str, arguments: Sequence[str] = (), content: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Run a program of Python with `content` as its standard input, Python's sockets closed.

    Isolated: Python looks neither where --user installs nor in PYTHONPATH.
    """
    environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return subprocess.run(
        [*offline_prefix(), sys.executable, "-I", "-c", _CLOSED + program, *arguments],
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        input=content,
        capture_output=True,
        check=False,
    )


@cache
def offline_prefix() -> tuple[str, ...]:
    """Return the command that starts a process without network, or nothing if none is allowed."""
    for prefix in _OFFLINE if shutil.which("unshare") else ():
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return tuple(prefix)
    return ()


def last_line(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return the last that it said of its errors, cut to 200 characters."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return (lines or [f"it ended with {done.returncode}"])[-1][:200]
