"""CIFAR-10 in the official binary and Python layouts, which are torchvision's too."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarep.data.labelled import LabelledImages
from clarep.data.npz import array_images, checked_labels
from clarep.engine.artefacts import open_regular
from clarep.errors import UserError, unknown_name

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_BATCHES = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
_PIXELS = 3 * 32 * 32
_ENDINGS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}


def find_cifar10(path: Path) -> tuple[Path, str] | None:
    """Return the folder of CIFAR-10's batches, `path` or its child, and its files' ending.

    None if neither is one. The binary layout is preferred where both are there. Of a symbolic
    link its own name counts too, after that of the folder which it leads to.
    """
    for folder in filter(Path.is_dir, (path, *(path / name for name in _ENDINGS))):
        for name in (folder.resolve().name, folder.name):
            if name in _ENDINGS:
                return folder, _ENDINGS[name]
    return None


def load_cifar10(
    folder: Path, split: str = "train", image_size: int | None = None
) -> LabelledImages:
    """Load CIFAR-10 from `cifar-10-batches-bin` or `cifar-10-batches-py`, or their parent.

    The Python layout is made of pickles. They are read by an unpickler that builds bytes,
    numbers, lists and uint8 arrays, and nothing else.

    Raises UserError for an unknown split, another folder, a missing, damaged or suspicious
    batch.
    """
    if split not in _BATCHES:
        raise unknown_name("split of CIFAR-10", split, _BATCHES)
    found = find_cifar10(folder)
    if found is None:
        raise UserError(
            f"{folder} holds no CIFAR-10: give the folder {' or '.join(_ENDINGS)}, or its parent"
        )
    folder, ending = found
    read_batch = _read_binary if ending else _read_pickled
    batches = [read_batch(folder / f"{name}{ending}") for name in _BATCHES[split]]
    pixels = np.concatenate([batch[0] for batch in batches])  # (N, 3072), channels first
    labels = np.concatenate([batch[1] for batch in batches])
    x = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, 32, 32, 3)
    return array_images(
        name=f"cifar10/{split}",
        source=f"{folder}/{split}",
        x=np.ascontiguousarray(x),
        labels=checked_labels(str(folder), labels, len(CLASS_NAMES)),
        classes=CLASS_NAMES,
        image_size=image_size,
    )


def _read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read records of one label byte and 3072 pixel bytes."""
    raw = np.frombuffer(_read_bytes(path), np.uint8)
    if raw.size == 0 or raw.size % (1 + _PIXELS):
        raise UserError(
            f"{path} has {raw.size} bytes, which are no whole records of {1 + _PIXELS}: "
            "it is truncated or no CIFAR-10 batch"
        )
    records = raw.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _read_pickled(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = _unpickle(path)
    found = batch if isinstance(batch, dict) else {}
    pixels, labels = found.get(b"data"), found.get(b"labels")
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
        raise UserError(f"{path} is no CIFAR-10 batch: it holds no data and labels")
    is_sound = pixels.shape == (len(labels), _PIXELS) and all(type(y) is int for y in labels)
    if not is_sound or pixels.dtype != np.uint8 or not set(labels) <= set(range(len(CLASS_NAMES))):
        raise UserError(f"{path} is no CIFAR-10 batch: its data and labels are not as expected")
    return pixels, np.array(labels, np.int64)


def _read_bytes(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:
            return stream.read()
    except OSError as error:
        raise UserError(f"cannot read the CIFAR-10 batch {path}: {error.strerror}") from error


def _uint8_dtype(code: bytes | str, *_: object) -> np.dtype[Any]:
    if code not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"an array of {code!r}")
    return np.dtype("u1", copy=True)  # a copy, since a pickle sets its state


def _latin1_bytes(text: str, encoding: str | bytes) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"a codec {encoding!r}")
    return text.encode("latin1")


def _empty_array(*_: object) -> NDArray[np.uint8]:
    """Whatever size is asked for: a pickle sets the state, shape and bytes, which must agree."""
    return np.empty(0, np.uint8)


_ALLOWED: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): None,  # an argument of the above, not to be called
    ("numpy", "dtype"): _uint8_dtype,
    ("_codecs", "encode"): _latin1_bytes,
}


class _BatchUnpickler(pickle._Unpickler):
    """Finds only what a batch of CIFAR-10 needs, so that a pickle can run no code.

    It is Python's own, whose memo grows by entry: that of C takes 32 GB where one byte says so.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None


def _unpickle(path: Path) -> Any:
    """Read a pickle of bytes, numbers, containers and uint8 arrays. Raises UserError."""
    try:
        return _BatchUnpickler(io.BytesIO(_read_bytes(path)), encoding="bytes").load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(str(error).split())
        raise UserError(
            f"refused to unpickle {path} ({reason}): a CIFAR-10 batch holds only bytes, "
            "numbers and uint8 arrays"
        ) from error
