"""Files, read whole or refused; written under another name, synced, renamed: a kill harms none."""

import errno
import hashlib
import json
import math
import os
import platform
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Any

from clarep.engine.bounds import check_values
from clarep.errors import UserError

_SEAL = "content_sha256"
_MOST_BYTES = 1 << 28  # of a JSON file: the largest that clarep writes names 50,000 images
_PACKAGES = (
    *("clarep", "torch", "numpy", "scipy", "pillow"),
    *("scikit-learn", "scikit-image", "safetensors"),
)


@dataclass(frozen=True)
class Progressed:
    """Where a resumable walk stands: it yields one at its start and after each part."""

    done: int
    """Units stored so far, by earlier runs too."""
    new: int
    """Of them, stored since the last report."""
    total: int
    """Units in all."""
    skipped: int = 0
    """Of the new ones, those that turned out to need no work: they do not count for the rate."""


def require_regular(path: Path) -> None:
    """Raise OSError if there is no such file, or it is a pipe, device or socket.

    A pipe that nobody writes to would be waited for without end.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a name that no file can have: a NUL, half a character
        raise OSError(errno.ENOENT, f"no file can be called so ({error})", repr(path)) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        reason = "it is no regular file (a pipe, device or socket)"
        raise OSError(errno.EINVAL, reason, str(path))


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes; raises OSError as `open` and `require_regular` do."""
    require_regular(path)
    return open(path, "rb")


TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)(@(?P<host>[\w-]+))?\.tmp")
"""Names from `temporary_name`: of which process, on which host."""


@cache
def host_tag() -> str:
    """Return what tells this host in a file name."""
    return re.sub(r"[^\w-]", "_", socket.gethostname(), flags=re.ASCII)[:40] or "host"


def temporary_name(name: str) -> str:
    """Return the name of a file that is this process's, and a leftover once that is no more."""
    return f".{name}.{os.getpid()}@{host_tag()}.tmp"


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Give an OSError that names no file, as that of a full disk does not, the name of this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that becomes `path` when the block succeeds.

    A reader sees the old file or the whole new one, never a part. If the block raises (a full
    disk, say) the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a full disk names no file at all
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(place: Path) -> None:
    descriptor = os.open(str(place), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, *, sealed: bool = False) -> None:
    """Write `value` as indented JSON, atomically. Keys keep their order.

    Numbers that are not finite, which JSON has none of, become texts that `float` reads: "inf".

    sealed: of an object, add the SHA-256 of its contents, by which `read_json` tells a change.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(json_bytes(value, sealed=sealed))


def json_bytes(value: Any, *, sealed: bool = False) -> bytes:
    """Return what `write_json` writes."""
    value = _without_infinities(value)
    return (json.dumps(seal(value) if sealed else value, indent=2) + "\n").encode()


def seal(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object of finite JSON values with the SHA-256 of its contents, for `unseal`."""
    return value | {_SEAL: hashlib.sha256(json.dumps(value).encode()).hexdigest()}


def unseal(value: Any) -> dict[str, Any]:
    """Return an object that was sealed, or never; raises ValueError if it was changed since."""
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    inner = {key: value[key] for key in value if key != _SEAL}
    if _SEAL in value and value != seal(inner):
        raise ValueError("it was changed after it was written: its SHA-256 differs")
    return inner


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_infinities(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises OSError where there is no such file, and ValueError, which says why, for whatever is no
    JSON object of finite numbers (`check_values`), and for a sealed one that was changed.
    """
    path.stat()  # raises where there is none
    if not path.is_file():
        raise ValueError("it is no regular file")
    with open(path, "rb") as stream:
        return read_json_object(stream)


def read_json_object(stream: BufferedIOBase) -> dict[str, Any]:
    """Return the JSON object in a stream of bytes. Raises ValueError as `read_json` does."""
    content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it has over {_MOST_BYTES >> 20} MiB")
    return unseal(parse_json(content.decode("utf-8")))


def parse_json(text: str) -> Any:
    """Return what a text of JSON holds. Raises ValueError as `read_json` does."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
    check_values(value)
    return value


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open_regular(path) as stream:
        return sha256_stream(stream)


def sha256_stream(stream: BufferedIOBase) -> str:
    """Return the SHA-256 of all bytes that are still to be read, in hexadecimal."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def check_recorded(path: Path, record: Path, *keys: str) -> None:
    """Raise UserError if a JSON file names another SHA-256 of `path`, or is damaged.

    keys: under which it stands, from the outermost. A record that is not there, or has none yet,
    says nothing.
    """
    try:
        found: Any = read_json(record)
        for key in keys:
            found = found[key]
    except (FileNotFoundError, LookupError, TypeError):
        return
    except ValueError as error:
        raise UserError(
            f"cannot read {record} ({error}), which tells {path.name} from a damaged one: run the "
            f"command that wrote it again, or give {path.name} alone in another folder"
        ) from error
    if found != sha256_file(path):
        raise UserError(
            f"{path} is not the file that {record.name} was written for (its SHA-256 differs): put "
            "a copy of it back, or run the command that wrote it again"
        )


def versions() -> dict[str, str]:
    """Return the versions that an artefact's numbers depend on."""
    return dict(_versions())


@cache  # reading a package's metadata takes milliseconds, and every shard asks
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
