"""CIFAR-10 in the official binary and Python layouts, which are torchvision's too."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clarep.data.labelled import LabelledImages
from clarep.data.npz import array_images, checked_labels
from clarep.engine.artefacts import open_regular
from clarep.engine.offline import last_line, run_offline
from clarep.errors import UserError, unknown_name

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_PIXELS = 3 * 32 * 32
_ENDINGS = {"cifar-10-batches-bin": ".bin", "cifar-10-batches-py": ""}
_READER = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"


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

    The Python layout is made of pickles. They are read in a process of its own, cut off from the
    network as far as the system allows (`cifar_batch`), by an unpickler that builds bytes, numbers,
    lists and uint8 arrays alone.

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
    return _records(path, _read_bytes(path))


def _read_pickled(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    done = run_offline(
        _READER, [str(Path(__file__).with_name("cifar_batch.py"))], _read_bytes(path)
    )
    if done.returncode:
        raise UserError(
            f"{path} is no CIFAR-10 batch ({last_line(done)}): it holds only bytes, numbers and "
            "uint8 arrays, of data and their labels 0 to 9; give a whole one"
        )
    return _records(path, done.stdout)


def _records(path: Path, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Take apart records of one label byte and 3072 pixel bytes."""
    raw = np.frombuffer(content, np.uint8)
    if raw.size == 0 or raw.size % (1 + _PIXELS):
        raise UserError(
            f"{path} has {raw.size} bytes, which are no whole records of {1 + _PIXELS}: "
            "it is truncated or no CIFAR-10 batch"
        )
    records = raw.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _read_bytes(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:
            return stream.read()
    except OSError as error:
        raise UserError(f"cannot read the CIFAR-10 batch {path}: {error.strerror}") from error
