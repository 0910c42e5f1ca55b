"""NumPy's files: a damaged or hostile one is refused in a sentence, before it takes memory.

Nothing is unpickled. What a header declares is held against the bytes that are there.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clarep.engine.artefacts import open_regular
from clarep.errors import UserError

_MOST_PER_BYTE = 1032  # bytes that a byte of deflate can hold
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as np.savez and np.savez_compressed do


class Archive:
    """The arrays of an .npz by name; each is read when it is asked for."""

    def __init__(self, path: Path, stream: BufferedReader) -> None:
        self._path = path
        with _told(path, "an .npz"):
            self._archive = zipfile.ZipFile(stream)
        self._infos = {
            info.filename.removesuffix(".npy"): info for info in self._archive.infolist()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def __getitem__(self, name: str) -> NDArray[Any]:
        info = self._infos[name]
        with _told(self._path, "an .npz"):
            packed = min(info.compress_size, self._path.stat().st_size)
            if info.compress_type not in _PACKED or info.file_size > _MOST_PER_BYTE * packed:
                raise ValueError(
                    f"'{name}' declares {info.file_size} bytes, packed in {info.compress_size}"
                )
            with self._archive.open(info) as stream:
                _check_declared(name, stream, info.file_size)
            with self._archive.open(info) as stream:  # anew: after a seek no checksum is checked
                array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
            if array.dtype.kind == "U":
                array.tolist()  # fails on what is no character
            return array


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an .npz: its arrays by name.

    Raises UserError, also when an array is read, for a file that is missing, damaged, no regular
    file or no .npz, for Python objects, and for headers that declare other sizes than there are.
    """
    with _told(path, "an .npz"):
        stream = open_regular(path)
    with stream:
        if stream.peek(6).startswith(npy.MAGIC_PREFIX):
            raise UserError(f"{path} is a single array: give an .npz with x and y")
        yield Archive(path, stream)


def read_npy(path: Path) -> NDArray[Any]:
    """Memory-map an array, of one dimension at least.

    Raises UserError as `open_archive`.
    """
    with _told(path, "an .npy"):
        with open_regular(path) as stream:
            if stream.peek(2).startswith(b"PK"):
                raise UserError(f"{path} is an archive: give a single array, as np.save writes it")
            _check_declared(path.name, stream, path.stat().st_size)
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim == 0:
        raise UserError(f"{path} holds a single value: give an array of one entry an image")
    return array


def _check_declared(name: str, stream: IO[bytes] | BufferedIOBase, size: int) -> None:
    """Raise ValueError unless an array's header declares just the bytes that follow it."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"'{name}' holds pickled Python objects, which are not read")
    declared, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if declared != there or min(shape, default=0) < 0:
        raise ValueError(
            f"'{name}' declares {dtype} {shape}, {declared} bytes, and {there} are there"
        )


@contextmanager
def _told(path: Path, kind: str) -> Iterator[None]:
    """Whatever NumPy and zipfile raise on bytes that are damaged becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give the file, or the folder that holds it") from None
    except Exception as error:  # a damaged header is parsed as Python: it raises anything
        is_empty = path.is_file() and path.stat().st_size == 0
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        found = "empty (zero bytes)" if is_empty else f"damaged or of another kind ({reason})"
        raise UserError(f"cannot read {path} as {kind}: it is {found}; replace it") from error
