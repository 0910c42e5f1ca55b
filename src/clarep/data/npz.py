"""NumPy archives of pixels, or of JPEG bytes, and boxes. Nothing is unpickled."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarep.data.decode_image import decode_image, require_one_size, square_resize
from clarep.data.files import SPLIT_FOLDERS, NoSplitError, require_undivided
from clarep.data.foregrounds import MaskedImages
from clarep.data.labelled import LabelledImages
from clarep.data.npy_files import Archive, open_archive
from clarep.errors import UserError, unknown_name

_SHOWN = 300  # characters of the names of wrong arrays
_MAX_CLASSES = 100_000  # a label beyond it, without a list of names, is a mistake


def load_npz(path: Path, split: str = "train", image_size: int | None = None) -> LabelledImages:
    """Load an .npz of images.

    It holds one of
    - `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`: uint8 pixels (N, H, W),
      (N, H, W, 1) or (N, H, W, 3), and whole-number labels (N,);
    - `jpeg` (all files after one another, uint8), `offset` (N + 1) and `label` (N,): decoded
      when read, and lossy, which the set's name says;
    and maybe `classes`, the names of the classes, and `box` (N, 4), whole numbers x0, y0, x1, y1
    in pixels, both ends inside. With boxes, and without `image_size`, it becomes `MaskedImages`.
    A box is no mask: it holds background too (in tiny9 the median box takes 58 % of the image),
    so that `only_fg` and `mixed_*` show some of it, and a gap is understated.

    An undivided archive is the split that its name ends in, NAME_test.npz or test.npz, and
    NAME_train.npz beside it is the other split of the same set: the path of either stands for
    both.

    Args:
        path: the archive.
        split: which of x_train, x_test (or x_val); an archive without, and without one in its
            name, counts as train.
        image_size: side that `square_resize` brings images to; None keeps their size.

    Raises:
        UserError: for a damaged archive, another layout, labels outside the classes, boxes that
            do not fit, an unknown split, or JPEGs of several sizes without `image_size`.
    """
    with open_archive(path) as archive:
        splits, is_boxed = _splits(archive), "box" in archive
    if not splits:
        path = _file_of(path, split)
    with open_archive(path) as archive:
        boxes = None
        if is_boxed and image_size is None:
            boxes = _boxes(path, archive)
        if {"jpeg", "offset", "label"} <= set(archive):
            data = _jpeg_images(path, archive, image_size)
        else:
            data = _pixel_images(path, archive, split, image_size)
    return data if boxes is None else _masked(path, data, boxes)


def has_boxes(path: Path) -> bool:
    """Say whether a path is an .npz that holds boxes."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    with open_archive(path) as archive:
        return "box" in archive


def _splits(keys: Archive) -> list[str]:
    """The splits of which there are both x_... and y_..."""
    return [split for split in SPLIT_FOLDERS if f"x_{split}" in keys and f"y_{split}" in keys]


def _file_of(path: Path, split: str) -> Path:
    """Return the file that holds a split: an undivided archive, or the one beside it named so.

    Raises NoSplitError if there is none.
    """
    own = next((name for name in SPLIT_FOLDERS if re.search(rf"(^|[_.-]){name}$", path.stem)), "")
    if not own:
        require_undivided(str(path), split)
    if own in ("", split):
        return path
    beside = path.with_name(path.stem.removesuffix(own) + split + path.suffix)
    if not beside.exists():
        raise NoSplitError(
            f"{path} counts as '{own}' by its name, and there is no {beside.name} beside it, so "
            f"there is no split '{split}': give `split={own}`, or put that file there"
        )
    return beside


def array_images(
    *,
    name: str,
    source: str,
    x: NDArray[Any],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    image_size: int | None,
) -> LabelledImages:
    """Wrap pixels uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3) that are in memory.

    Raises UserError for another type or shape, or another number of images than labels.
    """
    is_grey = x.ndim == 3 or (x.ndim == 4 and x.shape[3] == 1)
    if not is_grey and not (x.ndim == 4 and x.shape[3] == 3):
        raise UserError(
            f"the images of {name} have shape {x.shape}: "
            "give (N, H, W), (N, H, W, 1) or (N, H, W, 3), channels last"
        )
    if x.dtype != np.uint8:
        raise UserError(f"the images of {name} are {x.dtype}: give uint8 in [0, 255]")
    if len(x) != len(labels):
        raise UserError(f"{name} holds {len(x)} images but {len(labels)} labels: give one an image")
    if x.size == 0:
        raise UserError(f"{name} holds no images: its array has shape {x.shape}")

    def read(i: int) -> NDArray[np.uint8]:
        pixels = x[i].reshape(x.shape[1], x.shape[2], -1)  # (H, W, 1 or 3)
        rgb = np.repeat(pixels, 3, axis=2) if is_grey else pixels
        if image_size is None:
            return rgb
        return np.array(square_resize(Image.fromarray(rgb), image_size))

    return LabelledImages(
        name=name,
        labels=labels,
        class_names=classes,
        sources=[f"{source}/{i}" for i in range(len(labels))],
        read=read,
    )


def checked_labels(name: str, y: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Return labels as int64 (N,).

    Raises UserError unless they are whole numbers in [0, num_classes).
    """
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise UserError(f"the labels of {name} are {y.dtype} {y.shape}: give whole numbers (N,)")
    wrong = np.flatnonzero((y < 0) | (y >= num_classes))
    if len(wrong):
        raise UserError(
            f"label {y[wrong[0]]} of image {wrong[0]} in {name} is outside its "
            f"{num_classes} classes: give labels in [0, {num_classes - 1}]"
        )
    return y.astype(np.int64)


def _pixel_images(
    path: Path, archive: Archive, split: str, image_size: int | None
) -> LabelledImages:
    splits = _splits(archive)
    if splits and split not in splits:
        raise NoSplitError(str(unknown_name(f"split of {path}", split, splits)))
    ending = f"_{split}" if splits else ""
    if not splits and not {"x", "y"} <= set(archive):
        held = ascii(", ".join(sorted(archive)) or "(none)")[1:-1]
        raise UserError(
            f"{path} holds the arrays {held[:_SHOWN]}: give x and y, or "
            "x_train, y_train, x_test and y_test, or jpeg, offset and label"
        )
    classes = _class_names(path, archive, [f"y_{name}" for name in splits] or ["y"])
    return array_images(
        name=f"{path}/{split}",
        source=path.name,
        x=archive["x" + ending],
        labels=checked_labels(str(path), archive["y" + ending], len(classes)),
        classes=classes,
        image_size=image_size,
    )


def _jpeg_images(path: Path, archive: Archive, image_size: int | None) -> LabelledImages:
    jpeg, offset = archive["jpeg"], archive["offset"]
    classes = _class_names(path, archive, ["label"])
    labels = checked_labels(str(path), archive["label"], len(classes))
    is_sound = (
        jpeg.ndim == 1
        and jpeg.dtype == np.uint8
        and offset.dtype.kind in "iu"
        and offset.shape == (len(labels) + 1,)
        and offset[0] == 0
        and offset[-1] == len(jpeg)
        and bool((offset[:-1] <= offset[1:]).all())
    )
    if not is_sound:
        raise UserError(
            f"'offset' of {path} does not cut 'jpeg' into {len(labels)} files: "
            "give N + 1 rising whole numbers from 0 to len(jpeg), and jpeg as uint8"
        )
    if not len(labels):
        raise UserError(f"{path} holds no images")
    sources = [f"{path.name}/{i}" for i in range(len(labels))]

    def encoded(i: int) -> bytes:
        return jpeg[offset[i] : offset[i + 1]].tobytes()

    if image_size is None:
        require_one_size(str(path), ((encoded(i), source) for i, source in enumerate(sources)))
    return LabelledImages(
        name=f"{path}/lossy JPEG",
        labels=labels,
        class_names=classes,
        sources=sources,
        read=lambda i: decode_image(encoded(i), sources[i], image_size),
    )


def _class_names(path: Path, archive: Archive, all_labels: list[str]) -> tuple[str, ...]:
    """Return the archive's names, or the numbers up to the largest label of all splits."""
    if "classes" not in archive:
        every = [y for y in map(archive.__getitem__, all_labels) if y.size and y.dtype.kind in "iu"]
        largest = max((int(y.max()) for y in every), default=0)
        if largest >= _MAX_CLASSES:
            raise UserError(f"label {largest} in {path} needs a list of names: add 'classes'")
        return tuple(str(i) for i in range(largest + 1))
    names = archive["classes"]
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
        raise UserError(f"'classes' of {path} is no list of different names: give strings (K,)")
    return tuple(str(name) for name in names)


def _boxes(path: Path, archive: Archive) -> NDArray[Any]:
    if _splits(archive):
        raise UserError(
            f"'box' of {path} does not tell of which split it is: give NAME_train.npz and "
            "NAME_test.npz, each with the boxes of its own x"
        )
    if "box" not in archive:
        raise UserError(f"{path} has no 'box', as the archive beside it has: add them there")
    return archive["box"]


def _masked(path: Path, data: LabelledImages, boxes: NDArray[Any]) -> MaskedImages:
    """Return images with the boxes as masks; raises UserError for boxes that do not fit."""
    if boxes.shape != (len(data), 4) or boxes.dtype.kind not in "iu":
        raise UserError(
            f"'box' of {path} is {boxes.dtype} {boxes.shape}: give whole numbers ({len(data)}, 4)"
        )
    height, width = data.read(0).shape[:2]
    x0, y0, x1, y1 = boxes.T
    for is_wrong, reason in (
        ((x1 < x0) | (y1 < y0), "ends before it starts (is it x, y, width, height?)"),
        ((x0 < 0) | (y0 < 0) | (x1 >= width) | (y1 >= height), "lies outside its image"),
    ):
        if is_wrong.any():
            i = int(is_wrong.argmax())
            raise UserError(
                f"the box {boxes[i].tolist()} of image {i} in {path} {reason}: give x0, y0, x1, y1 "
                f"in pixels of {width}x{height}, the last pixel inside"
            )

    def mask(i: int) -> NDArray[np.bool_]:
        inside = np.zeros((height, width), np.bool_)
        inside[y0[i] : y1[i] + 1, x0[i] : x1[i] + 1] = True
        return inside

    return MaskedImages(**vars(data), mask=mask)
