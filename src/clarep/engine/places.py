"""Places that files lie in: a folder, or an address that fsspec knows (`s3://BUCKET/SET`).

No other file knows fsspec, and a local path never imports it. An address may stand in a `Path`,
as options of the command line hold it: `s3:/bucket/set` is `s3://bucket/set` again.
"""

import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clarep.engine.artefacts import atomic_path, open_regular
from clarep.engine.extras import require_extra
from clarep.errors import UserError, check_type, refusing, said_by

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)  # two letters: C:/ is no scheme


class Folder:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path | None = folder
        self._path = folder

    def __str__(self) -> str:
        return str(self._path)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self._path / name)

    def open(self, name: str) -> io.BufferedIOBase:
        """Open a file; raises OSError for a pipe too."""
        return open_regular(self._path / name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically, synced; raises OSError that names it."""
        with atomic_path(self._path / name) as temporary:
            temporary.write_bytes(content)

    def names(self) -> list[str]:
        """Return the names of all that lies there, folders too."""
        try:
            return sorted(os.listdir(self._path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        (self._path / name).unlink(missing_ok=True)


class Remote:
    """What lies under an address. Object stores put an object whole or not at all."""

    def __init__(self, address: str) -> None:
        """Raise UserError if fsspec, or what it needs for such an address, is not installed."""
        fsspec = require_extra("fsspec", "s3")
        self.folder: Path | None = None
        self._address = address.rstrip("/")
        mend = "give a folder, or an address that fsspec knows, such as s3://BUCKET/SET"
        with refusing(f"{address} cannot be opened", mend, (Exception,)):
            self._files, root = fsspec.core.url_to_fs(self._address)
        self._root = str(root).rstrip("/")

    def __str__(self) -> str:
        return self._address

    def __truediv__(self, name: str) -> "Remote":
        return Remote(f"{self._address}/{name}")

    def open(self, name: str) -> io.BufferedIOBase:
        """Read a file whole."""
        with self._reached():
            return io.BytesIO(self._files.cat_file(f"{self._root}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Put a file."""
        with self._reached():
            self._files.pipe_file(f"{self._root}/{name}", content)

    def create(self, name: str, content: bytes) -> bool:
        """Put a file unless there is one; tell whether it was put."""
        with self._reached():
            try:
                self._files.pipe_file(f"{self._root}/{name}", content, mode="create")
            except FileExistsError:
                return False
        return True

    def names(self) -> list[str]:
        """Return the names of all that lies there, asked anew."""
        with self._reached():
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._root, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(name for path in found if (name := str(path).rstrip("/").split("/")[-1]))

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        with self._reached(), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # whatever the library of that store raises
            raise UserError(
                f"{self._address} cannot be reached ({said_by(error)}): check the address, the "
                "network and your credentials, and run the same command again"
            ) from error


Place = Folder | Remote


def address_of(where: Path | str) -> str | None:
    """Return the address that a path or text holds; None for a path of this machine."""
    found = _ADDRESS.fullmatch(str(where))
    if found is None or found[1] == "file":
        return None
    return f"{found[1]}://{found[2]}"


def place_of(where: Path | str | Place) -> Place:
    """Return the folder, or what lies under the address.

    Raises UserError for an address that cannot be opened.
    """
    if isinstance(where, Folder | Remote):
        return where
    check_type("folder", where, (Path, str), "a folder, or an address such as s3://BUCKET/SET")
    if (address := address_of(where)) is not None:
        return Remote(address)
    return Folder(local_path(where))


@contextmanager
def local_file(place: Place, name: str) -> Iterator[Path]:
    """Yield a file's path on this machine, of what lies under an address a copy for the time.

    Raises OSError, FileNotFoundError if there is none, as `open` does.
    """
    if place.folder is not None:
        yield place.folder / name
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / name
        with place.open(name) as stream, open(copy, "wb") as written:
            shutil.copyfileobj(stream, written)
        yield copy


def local_path(where: Path | str) -> Path:
    """Return the path of this machine, of a `file:` address too; raises UserError for others."""
    found = _ADDRESS.fullmatch(str(where))
    if found is None:
        return Path(where)
    if found[1] != "file":
        raise UserError(f"{address_of(where)} is no folder of this machine: give one")
    return Path("/" + found[2])


def part_of(text: str | None) -> tuple[int, int] | None:
    """Return I and N of `I/N`, one part of several; raises UserError for what is none."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"`part` {text} is no part: give I/N with I from 1 to N, such as 1/8")
    return int(found[1]), int(found[2])


def copy_folder(folder: Path, place: Place) -> None:
    """Put all files that lie in a folder, not those in folders within, into another place."""
    if place.folder is not None and place.folder.resolve() == folder.resolve():
        return
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_file() and not path.name.startswith("."):
            place.write(path.name, path.read_bytes())


def work_folder(out: Path | str) -> Path:
    """Return where all but a store lies: `out`, or a folder here that stands for an address."""
    address = address_of(out)
    if address is None:
        return local_path(out)
    told_apart = hashlib.sha256(address.encode()).hexdigest()[:8]  # s3://b/run.1 and s3://b/run-1
    return Path("runs") / (re.sub(r"\W+", "-", address) + f"-{told_apart}")
