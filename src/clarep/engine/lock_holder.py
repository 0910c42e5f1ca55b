"""What a lock says of the process that holds it, and whether that one runs."""

import json
import os
import socket
from pathlib import Path

from clarep.engine.artefacts import parse_json

_BOOT = Path("/proc/sys/kernel/random/boot_id")  # the same in every container of a machine


def own_words() -> bytes:
    """Return what a lock of this process says."""
    return json.dumps({"pid": os.getpid()} | _machine()).encode()


def _machine() -> dict[str, str]:
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    return {"host": socket.gethostname(), "boot": boot}


def read_holder(content: bytes) -> tuple[int, str, bool]:
    """Return process and machine that a lock names (0: none), and whether that machine is ours."""
    here = _machine()
    try:
        words = parse_json(content.decode())
        pid, host = int(words["pid"]), str(words["host"])
        return pid, host, host == here["host"] or words.get("boot") in {here["boot"]} - {""}
    except (ValueError, LookupError, TypeError, AttributeError):
        return 0, here["host"], True


def is_running(pid: int) -> bool:
    """Tell whether a process of this machine has that id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return pid > 0
