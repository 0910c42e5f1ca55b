"""What tells images from others: SHA-256 of their decoded pixels, labels, indices and classes."""

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Whole = Sequence[int] | NDArray[np.int64]


def pixels_sha256(pixels: NDArray[np.uint8]) -> bytes:
    """Return the SHA-256 of an image (H, W, 3), 32 bytes."""
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).digest()


def joint_sha256(
    class_names: Sequence[str], indices: Whole, labels: Whole, each: Iterable[bytes]
) -> str:
    """Return the SHA-256 of images of a set; each: `pixels_sha256` of every one."""
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    digest.update(np.asarray(indices, np.int64).tobytes() + np.asarray(labels, np.int64).tobytes())
    for one in each:
        digest.update(one)
    return digest.hexdigest()
