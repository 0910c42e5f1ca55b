"""One writer a folder: a lock that ends with its process, however that ends.

The lock is the kernel's (flock) on a file `.lock` in the folder, which says who holds it. A
process that is killed loses it, so that what it leaves behind stops nobody on its machine. Where
a file system knows no such locks, and between machines that do not share them, the file's words
stand for it.
"""

import errno
import fcntl
import json
import os
import re
import socket
import stat
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary, finalize

from clarep.engine.artefacts import parse_json
from clarep.errors import UserError

LOCK_NAME = ".lock"
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # of `atomic_path`: it holds the process's id
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # the same in every container of a machine


class FolderLock:
    """A folder's lock, from `hold`: let go when nothing refers to it any more."""

    def __init__(self, folder: Path) -> None:
        """Take the lock; raises UserError if another process has it, and OSError as `open`."""
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # as below /proc
            place = "its place takes no folders"
            raise UserError(f"{folder} cannot be made, {place}: give another `out`") from error
        path = folder / LOCK_NAME
        while (file := _locked(path)) is None:  # deleted by its holder as we took it
            pass
        finalize(self, _let_go, file, path, made, os.getpid())
        os.truncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid()} | _machine()).encode(), 0)


_HELD: WeakValueDictionary[Path, FolderLock] = WeakValueDictionary()  # flocks are a process's too


def hold(folder: Path) -> FolderLock:
    """Make this process the one that writes in a folder, for as long as what is returned lives.

    The folder is made, and what killed processes left half written in it is deleted. A process
    may hold a folder twice; a folder within a held one has a lock of its own.

    Raises UserError, which names process and machine, if another process writes there.
    """
    place = folder.resolve()
    lock = _HELD.get(place)
    if lock is None:
        lock = _HELD[place] = FolderLock(place)
    for path in place.rglob(".*.tmp"):  # half written, but not by a process that lives
        found = _TEMPORARY.fullmatch(path.name)
        if found and (int(found[1]) == os.getpid() or not _is_running(int(found[1]))):
            path.unlink(missing_ok=True)
    return lock


def is_leftover(path: Path) -> bool:
    """Tell whether a file is a lock or a temporary one, as a kill leaves them."""
    return path.name == LOCK_NAME or _TEMPORARY.fullmatch(path.name) is not None


def _let_go(file: int, path: Path, made: list[Path], pid: int) -> None:
    if os.getpid() != pid:  # of a process forked from the holder
        return
    with suppress(OSError):  # the folder may be gone
        path.unlink()
        for folder in made:  # if nothing was written
            folder.rmdir()
    os.close(file)


def _locked(path: Path) -> int | None:
    """Return the descriptor of the file, locked; None if it lies there no more."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise UserError(f"{path} is no regular file, so it can lock nothing: delete it")
        _take(file, path)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _take(file: int, path: Path) -> None:
    """Lock the file; raises UserError if another process has it, or its words name one."""
    pid, host, is_here = _holder(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = False
    except OSError as error:
        known = error.errno == errno.EWOULDBLOCK
        held = known or (is_here and _is_running(pid))  # a file system without such locks
    if held:
        raise UserError(
            f"process {pid or 'unknown'} on {host} is writing in {path.parent}: wait for its end, "
            "stop it, or give another `out`"
        )
    if not is_here:
        raise UserError(
            f"process {pid} on {host} was writing in {path.parent} and may still be: once it is "
            f"gone, delete {path} and run the same command again, or give another `out`"
        )


def _machine() -> dict[str, str]:
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    return {"host": socket.gethostname(), "boot": boot}


def _holder(file: int) -> tuple[int, str, bool]:
    """Return process and machine that a lock names (0: none), and whether that machine is ours."""
    here = _machine()
    try:
        words = parse_json(os.pread(file, 1000, 0).decode())
        pid, host = int(words["pid"]), str(words["host"])
        return pid, host, host == here["host"] or words.get("boot") in {here["boot"]} - {""}
    except (ValueError, LookupError, TypeError, AttributeError):
        return 0, here["host"], True


def _is_running(pid: int) -> bool:
    """Tell whether a process of this machine has that id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return pid > 0
