"""The embedded Fashion-MNIST subset: 5,000 training and 1,000 test images."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from clarep.data.labelled import LabelledImages
from clarep.errors import UserError, unknown_name

CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SPLITS = ("train", "test")
SIZE = 32
_BORDER = 2  # 28 pixels in the source, 32 here
_MASK_THRESHOLD = 8  # JPEG-like fringe around the garment stays below it


@cache
def garment_arrays(
    split: str, path: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return grey garments (N, 28, 28) and labels (N,) of a split.

    path: an .npz with x_train, y_train, x_test, y_test in Fashion-MNIST's layout; None takes
    the embedded subset. Raises UserError for an unknown split or a file of another layout.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    asset = files("clarep.data") / "assets" / "fashion_mnist_5k.npz"
    source = Path(path) if path is not None else Path(str(asset))
    try:
        with open(source, "rb") as stream:  # NumPy leaves a damaged file open
            archive = np.load(stream, allow_pickle=False)
            return archive[f"x_{split}"], archive[f"y_{split}"].astype(np.int64)
    except (OSError, KeyError, ValueError, EOFError, IndexError, BadZipFile) as error:
        raise UserError(
            f"cannot read garments from {source} ({error}): "
            "give an .npz with x_train, y_train, x_test, y_test of 28x28 grey images"
        ) from error


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
