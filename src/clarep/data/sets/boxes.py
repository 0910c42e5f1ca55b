"""Images with one bounding box each, such as tiny9: the background measures on real photographs.

A box is no mask: it holds background too (in tiny9 the median box takes 58 % of the image), so
that `only_fg` and `mixed_*` show some of the image's own background, and a gap is understated.
"""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clarep.data.foregrounds import MaskedImages
from clarep.data.labelled import LabelledImages
from clarep.data.npy_files import open_archive
from clarep.data.npz import archive_of, is_divided, load_npz
from clarep.errors import UserError


def has_boxes(path: Path) -> bool:
    """Say whether an .npz holds boxes."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    with open_archive(path) as archive:
        return "box" in archive


def load_boxed(path: Path, split: str = "train") -> MaskedImages:
    """Load an .npz as `load_npz` does, with its `box` (N, 4): x0, y0, x1, y1 in pixels.

    Both ends are inside. The images are not resized: a box would have to be cropped with them.
    Raises UserError as `load_npz`, for boxes of one for several splits, and for those that do not
    fit.
    """
    path = archive_of(path, split)
    if is_divided(path):
        raise UserError(
            f"'box' of {path} does not tell of which split it is: give NAME_train.npz and "
            "NAME_test.npz, each with the boxes of its own x"
        )
    data = load_npz(path, split)
    with open_archive(path) as archive:
        if "box" not in archive:
            raise UserError(f"{path} has no 'box', as the archive beside it has: add them there")
        boxes = archive["box"]
    if boxes.shape != (len(data), 4) or boxes.dtype.kind not in "iu":
        raise UserError(
            f"'box' of {path} is {boxes.dtype} {boxes.shape}: give whole numbers ({len(data)}, 4)"
        )
    height, width = data.read(0).shape[:2]
    ends = f"give x0, y0, x1, y1 in pixels of {width}x{height}, the last pixel inside"
    x0, y0, x1, y1 = boxes.T
    for is_wrong, reason in (
        ((x1 < x0) | (y1 < y0), "ends before it starts (is it x, y, width, height?)"),
        ((x0 < 0) | (y0 < 0) | (x1 >= width) | (y1 >= height), "lies outside its image"),
    ):
        if is_wrong.any():
            i = int(is_wrong.argmax())
            raise UserError(f"the box {boxes[i].tolist()} of image {i} in {path} {reason}: {ends}")

    def mask(i: int) -> NDArray[np.bool_]:
        inside = np.zeros((height, width), np.bool_)
        inside[y0[i] : y1[i] + 1, x0[i] : x1[i] + 1] = True
        return inside

    shared = {f.name: getattr(data, f.name) for f in dataclasses.fields(LabelledImages)}
    return MaskedImages(**shared, mask=mask)
