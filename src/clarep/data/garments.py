"""The embedded Fashion-MNIST subset: 5,000 training and 1,000 test images."""

from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clarep.data.labelled import LabelledImages
from clarep.data.npy_files import open_archive
from clarep.data.npz import checked_labels
from clarep.errors import UserError, unknown_name

CLASS_NAMES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
SPLITS = ("train", "test")
SIZE = 32
_SOURCE_SIZE = 28
_BORDER = (SIZE - _SOURCE_SIZE) // 2
_MASK_THRESHOLD = 8  # JPEG-like fringe around the garment stays below it


@cache
def garment_arrays(
    split: str, path: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return grey garments (N, 28, 28) and labels (N,) of a split.

    path: an .npz with x_train, y_train, x_test, y_test in Fashion-MNIST's layout; None takes
    the embedded subset. Raises UserError for an unknown split, or a file that is damaged or of
    another layout.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    asset = files("clarep.data") / "assets" / "fashion_mnist_5k.npz"
    source = Path(path) if path is not None else Path(str(asset))
    names = (f"x_{split}", f"y_{split}")
    with open_archive(source) as archive:
        arrays = [archive[name] for name in names if name in archive]
    mend = "give an .npz with x_train, y_train, x_test, y_test of 28x28 grey images"
    if len(arrays) < len(names):
        raise UserError(f"{source} lacks {' or '.join(names)}: {mend}")
    x, y = arrays
    if x.dtype != np.uint8 or x.shape[1:] != (_SOURCE_SIZE, _SOURCE_SIZE):
        raise UserError(f"the garments of {source} are {x.dtype} {x.shape}: {mend}, in uint8")
    if len(x) != len(y) or not len(x):
        raise UserError(f"{source} holds {len(x)} garments and {len(y)} labels: {mend}")
    return x, checked_labels(str(source), y, len(CLASS_NAMES))


def garment_mask(garment: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a grey garment (H, W) on black covers its background, as bool (H, W).

    Dark patches that the garment encloses belong to it (closing by one pixel, holes filled).
    """
    from scipy import ndimage

    bright = garment >= _MASK_THRESHOLD
    closed = ndimage.binary_closing(bright) | bright
    return np.asarray(ndimage.binary_fill_holes(closed), dtype=np.bool_)


def load_garments(split: str = "train") -> LabelledImages:
    """Load the embedded garments as 32x32 RGB on black (28x28 with a border of 2)."""
    garments, labels = garment_arrays(split)

    def read(i: int) -> NDArray[np.uint8]:
        padded = np.pad(garments[i], _BORDER)
        return np.repeat(padded[:, :, None], 3, axis=2)

    return LabelledImages(
        name=f"garments/{split}",
        labels=labels,
        class_names=CLASS_NAMES,
        sources=[f"garments/{split}/{i}" for i in range(len(labels))],
        read=read,
    )
