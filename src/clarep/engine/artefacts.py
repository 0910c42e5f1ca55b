"""Files that survive a kill: written whole under another name, synced, renamed."""

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from clarep.engine.limits import check_values
from clarep.engine.regular_file import open_regular
from clarep.errors import UserError

_SEAL = "content_sha256"
_MOST_BYTES = 1 << 28  # of a JSON file: the largest that clarep writes names 50,000 images


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


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that becomes `path` when the block succeeds.

    A reader sees the old file or the whole new one, never a part. If the block raises (a full
    disk, say) the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a full disk names no file at all
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, *, sealed: bool = False) -> None:
    """Write `value` as indented JSON, atomically. Keys keep their order.

    Numbers that are not finite, which JSON has none of, become texts that `float` reads: "inf".

    sealed: of an object, add the SHA-256 of its contents, by which `read_json` tells a change.
    """
    value = _without_infinities(value)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(seal(value) if sealed else value, indent=2) + "\n")


def seal(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object of finite JSON values with the SHA-256 of its contents, for `unseal`."""
    return value | {_SEAL: _sha256(value)}


def unseal(value: Any) -> dict[str, Any]:
    """Return an object that was sealed, or never; raises ValueError if it was changed since."""
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    inner = {key: value[key] for key in value if key != _SEAL}
    if _SEAL in value and value[_SEAL] != _sha256(inner):
        raise ValueError("it was changed after it was written: its SHA-256 differs")
    return inner


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_infinities(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _sha256(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises OSError where there is no such file, and ValueError, which says why, for whatever is no
    JSON object of finite numbers (`check_values`), and for a sealed one that was changed.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has over {_MOST_BYTES >> 20} MiB")
    if not path.is_file():
        raise ValueError("it is no regular file")
    return unseal(parse_json(path.read_text(encoding="utf-8")))


def parse_json(text: str) -> Any:
    """Return what a text of JSON holds. Raises ValueError as `read_json` does."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
    check_values(value)
    return value


def located(place: str) -> str:
    """Return a place as it is stored: what exists is found by its absolute path from any folder.

    place: a path, or FAMILY:PATH, and settings after a question mark; all else stays as it is.
    """
    family, colon, rest = ("", "", place) if os.path.exists(place) else place.rpartition(":")
    path, mark, settings = (rest, "", "") if os.path.exists(rest) else rest.partition("?")
    path = os.path.expanduser(path)  # Path's own fails at ~ of a user with no home
    if not os.path.exists(path):
        return place
    return f"{family}{colon}{os.path.realpath(path)}{mark}{settings}"


def as_read(value: dict[str, Any]) -> dict[str, Any]:
    """Return what comes back when `value` is written as JSON and read."""
    read: dict[str, Any] = json.loads(json.dumps(value))
    return read


_DECIDES = {
    "data": "data_sha256",
    "data_options": "data_sha256",
    "skipped": "data_sha256",
    "data_notes": "data_sha256",
    "teacher": "teacher_sha256",
    "teacher_options": "teacher_sha256",
    "place": "sha256",
}
"""What says where a content was found -> its hash: where that agrees, so does the content."""
_WORDS = {"data_sha256": "data_sha256 (the images or labels themselves)"}


def differences(
    stored: dict[str, Any], given: dict[str, Any], places: tuple[str, str] = ("there", "now")
) -> str:
    """Name all options that differ, as "option: stored there, given now; ..."; empty if none.

    Where images or a teacher were found, such as the spelling of a path, is no difference where
    both have the same hash of their content.

    places: the words behind the two values, such as "in x" and "in y" of two runs.
    """
    return "; ".join(dict.fromkeys(_differing(stored, given, places)))


def refuse_other(folder: Path, what: str, stored: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise UserError if a folder's content is of another configuration than the one given.

    what: it holds, such as "a run"; given: JSON values, or what becomes such.
    """
    if difference := differences(stored, as_read(given)):
        raise UserError(
            f"{folder} holds {what} of another configuration ({difference}): "
            "give another `out`, or the options it was started with"
        )


def _differing(
    stored: dict[str, Any], given: dict[str, Any], places: tuple[str, str]
) -> Iterator[str]:
    for key in dict.fromkeys([*given, *stored]):
        before, now = stored.get(key), given.get(key)
        decides = _DECIDES.get(key, "")
        content = given.get(decides)
        if before == now or (content and stored.get(decides) == content):
            continue
        if isinstance(before, dict) and isinstance(now, dict) and key not in _WORDS:
            yield from _differing(before, now, places)
        else:
            name = _WORDS.get(key, key)
            yield f"{name}: {_short(before)} {places[0]}, {_short(now)} {places[1]}"


def _short(value: object) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        value = value[:12]  # of a hash enough to tell it
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open_regular(path) as stream:
        return sha256_stream(stream)


def sha256_stream(stream: BinaryIO) -> str:
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
    packages = (
        "clarep",
        "torch",
        "numpy",
        "scipy",
        "pillow",
        "scikit-learn",
        "scikit-image",
        "safetensors",
    )
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
