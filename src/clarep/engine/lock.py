"""One writer a folder: a lock that ends with its process, however that ends.

The lock is the kernel's (flock) on a file `.lock` in the folder, which says who holds it. A
process that is killed loses it, so that what it leaves behind stops nobody on its machine. Where
a file system knows no such locks, and between machines that do not share them, the file's words
stand for it; under an address (`engine.places`) there are only these. Parts of one set that several
processes write at once have a lock each; it keeps out whoever locks the whole, and parts of another
division, and is kept out by these. What all parts write, the manifest, they lock `briefly`.
"""

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary, finalize

from clarep.engine.artefacts import TEMPORARY, host_tag, named
from clarep.engine.lock_holder import is_running, own_words, read_holder
from clarep.engine.places import Folder, Place, Remote, address_of
from clarep.errors import UserError

LOCK_NAME = ".lock"
WORKER = "CLAREP_WORKER"
"""In the environment of a worker of `engine.fan_out`."""
_LOCK = re.compile(r"\.lock(-\d+-of-(?P<parts>\d+))?")
_BRIEF_LOCK = ".lock-manifest"
_PATIENCE = 300.0  # seconds; closing a set of thousands of shards in an object store takes a minute


class FolderLock:
    """A folder's lock, from `hold`: let go when nothing refers to it any more."""

    def __init__(self, folder: Path, name: str = LOCK_NAME) -> None:
        """Take the lock; raises UserError if another process has it, and OSError as `open`."""
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # as below /proc
            place = "its place takes no folders"
            raise UserError(f"{folder} cannot be made, {place}: give another `out`") from error
        path = folder / name
        while (file := _locked(path)) is None:  # deleted by its holder as we took it
            pass
        self._end = finalize(self, _let_go, file, path, made, os.getpid())
        with named(path):
            os.truncate(file, 0)
            os.pwrite(file, own_words(), 0)

    def release(self) -> None:
        """Let go now, whatever still refers to it."""
        self._end()


class AddressLock:
    """The lock of what lies under an address: an object that names its process."""

    def __init__(self, place: Remote, name: str) -> None:
        """Take the lock; raises UserError if another process has it, or its words name one."""
        while not place.create(name, own_words()):
            try:
                with place.open(name) as stream:
                    holder = read_holder(stream.read(1000))
            except FileNotFoundError:  # let go of since
                continue
            _refuse(holder, str(place), name, held=holder[2] and is_running(holder[0]))
            place.remove(name)  # of a process of this machine that is no more
        self._key = str(place), name
        self._end = finalize(self, _remove, place, name, os.getpid())

    def release(self) -> None:
        """Let go now: what a library of the network raised may keep references for a while."""
        _HELD.pop(self._key, None)
        self._end()


class DriversLock:
    """Of a worker's folder: the process that it works for keeps others out, and Ray knows which of
    its workers are no more, on machines too that left a lock behind."""


_Lock = FolderLock | AddressLock | DriversLock
_HELD: WeakValueDictionary[tuple[str, str], _Lock] = WeakValueDictionary()  # flocks are a process's


def hold_place(place: Place, part: tuple[int, int] | None = None) -> _Lock:
    """Do as `hold`, in a folder or under an address.

    part: I of N, which alone is locked: other processes may write other parts of N.
    """
    name = LOCK_NAME if part is None else f"{LOCK_NAME}-{part[0]}-of-{part[1]}"
    if place.folder is not None:
        return hold(place.folder, name)
    assert isinstance(place, Remote)
    lock = _HELD.get((str(place), name))
    if lock is None:
        lock = _HELD[str(place), name] = AddressLock(place, name)
        _keep_apart(lock, place, name)
    return lock


def hold(folder: Path, name: str = LOCK_NAME) -> _Lock:
    """Make this process the one that writes in a folder, for as long as what is returned lives.

    The folder is made, and what killed processes left half written in it is deleted. A process
    may hold a folder twice; a folder within a held one has a lock of its own.

    Raises UserError, which names process and machine, if another process writes there, and for an
    address, where only a canonical set can be written.
    """
    if (address := address_of(folder)) is not None:
        raise UserError(
            f"this command writes in a folder and {address} is none: give a folder of this "
            "machine as `out`; clarep identify alone writes under an address"
        )
    place = folder.resolve()
    if WORKER in os.environ:
        place.mkdir(parents=True, exist_ok=True)
        return DriversLock()
    lock = _HELD.get((str(place), name))
    if lock is None:
        lock = _HELD[str(place), name] = FolderLock(place, name)
        _keep_apart(lock, Folder(place), name)
    for path in place.rglob(".*.tmp"):
        if is_half_written(path.name):
            path.unlink(missing_ok=True)
    for path in place.rglob(LOCK_NAME):
        if path.parent != place:
            _clear(path)
    return lock


@contextmanager
def briefly(place: Place) -> Iterator[None]:
    """Keep all other parts of a set from what they all write; wait while one of them does this.

    Raises UserError if it still does after minutes, or a process of another machine died at it.
    """
    if place.folder is not None and WORKER in os.environ:  # a whole set's, as `DriversLock`
        yield
        return
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            lock = _brief_lock(place)
            break
        except UserError:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()


def _brief_lock(place: Place) -> FolderLock | AddressLock:
    if place.folder is not None:
        return FolderLock(place.folder.resolve(), _BRIEF_LOCK)
    assert isinstance(place, Remote)
    return AddressLock(place, _BRIEF_LOCK)


def _keep_apart(lock: FolderLock | AddressLock, place: Place, name: str) -> None:
    """Let go of a lock and raise UserError where others hold the whole, or other divisions' parts.

    It is held already, so that of two who take such locks at once one at least sees the other's.
    """
    own = _LOCK.fullmatch(name)
    try:
        for other in place.names():
            found = _LOCK.fullmatch(other)
            if not own or not found or other == name or found["parts"] == own["parts"]:
                continue
            if (str(place), other) not in _HELD:
                _refuse_held(place, other)
    except BaseException:
        _HELD.pop((str(place), name), None)
        lock.release()
        raise


def _refuse_held(place: Place, name: str) -> None:
    """Raise UserError if a lock's process lives, or is of another machine."""
    with suppress(FileNotFoundError):  # let go of since
        if place.folder is None:
            with place.open(name) as stream:
                holder = read_holder(stream.read(1000))
            _refuse(holder, str(place), name, held=holder[2] and is_running(holder[0]))
            return
        file = os.open(place.folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _take(file, place.folder / name, fcntl.LOCK_SH)  # several may look at once
        finally:
            os.close(file)


def _clear(path: Path) -> None:
    """Delete a lock within a held folder if its process is no more: it may never be taken again."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pid, _, is_here = read_holder(os.pread(file, 1000, 0))
        if pid and is_here and not is_running(pid):
            path.unlink(missing_ok=True)
    except OSError:  # somebody writes there, or it is no lock
        pass
    finally:
        os.close(file)


def is_half_written(name: str) -> bool:
    """Tell whether a process of this host that is no more, or an earlier one, left a file."""
    found = TEMPORARY.fullmatch(name)
    if not found or found["host"] not in (None, host_tag()):
        return False
    return int(found["pid"]) == os.getpid() or not is_running(int(found["pid"]))


def is_leftover(path: Path) -> bool:
    """Tell whether a file is a lock or a temporary one, as a kill leaves them."""
    is_lock = path.name == _BRIEF_LOCK or _LOCK.fullmatch(path.name)
    return bool(is_lock or TEMPORARY.fullmatch(path.name))


def _remove(place: Remote, name: str, pid: int) -> None:
    if os.getpid() == pid:
        with suppress(OSError, UserError):  # the network may be gone
            place.remove(name)


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


def _take(file: int, path: Path, how: int = fcntl.LOCK_EX) -> None:
    """Lock the file; raises UserError if another process has it, or its words name one."""
    holder = read_holder(os.pread(file, 1000, 0))
    own = _LOCK.fullmatch(path.name)
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
        if own and own["parts"] and how == fcntl.LOCK_EX:
            return  # a queue begins a lost machine's part on another; made twice it is the same
        held = False
    except OSError as error:
        known = error.errno == errno.EWOULDBLOCK
        # else a file system without such locks
        held = known or (holder[2] and is_running(holder[0]))
    _refuse(holder, str(path.parent), path.name, held=held)


def _refuse(holder: tuple[int, str, bool], place: str, name: str, *, held: bool) -> None:
    """Raise UserError if the lock is held, or its words name a process of another machine."""
    pid, host, is_here = holder
    if held:
        raise UserError(
            f"process {pid or 'unknown'} on {host} is writing in {place}: wait for its end, "
            "stop it, or give another `out`"
        )
    if not is_here:
        raise UserError(
            f"process {pid} on {host} was writing in {place} and may still be: once it is "
            f"gone, delete {place}/{name} and run the same command again, or give another `out`"
        )
