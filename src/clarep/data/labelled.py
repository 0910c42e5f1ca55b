"""`LabelledImages`: what every data set is to the rest of clarep."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.image_hashes import joint_sha256, pixels_sha256
from clarep.engine.arrays import Images, as_images
from clarep.engine.printable import counted
from clarep.errors import UserError

_MEMORY = 1e9  # bytes of pixels that `in_memory` keeps
_MARK = 8  # bytes: two of a million images share one with a probability of 1e-7


class UnreadableImage(UserError):
    """An image that cannot be decoded: `source` names it, `reason` says why."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"cannot read {source}: {reason}; delete or replace it")
        self.source = source
        self.reason = reason


@dataclass(frozen=True)
class LabelledImages:
    """Labelled RGB images that are decoded or composed when they are asked for.

    All images of a set have the same size; `read` applies the resize rule if one is needed.
    """

    name: str
    """Name of the data set, with what tells it from its siblings (split, correlation ...)."""
    labels: NDArray[np.int64]
    """Class of each image, (N,), in [0, len(class_names))."""
    class_names: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    sources: Sequence[str]
    """Where each image comes from (a file name, or set/index), N of them."""
    read: Callable[[int], NDArray[np.uint8]]
    """Image i as uint8 RGB, (H, W, 3). Raises UnreadableImage if it cannot be decoded."""
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    """What one should know before trusting the set (files passed over), a sentence each."""

    def __post_init__(self) -> None:
        """Raise UserError for labels that are none, and a name that no record could hold."""
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(self.sources):
            raise UserError(
                f"{self.name} has labels {labels.dtype} {labels.shape} for {len(self.sources)} "
                "sources: give the number of a class for each image, and its source"
            )
        object.__setattr__(self, "labels", labels.astype(np.int64))
        for name in chain([self.name], self.class_names, self.sources):
            try:
                name.encode()
            except UnicodeEncodeError:
                shown = name.encode("utf-8", "backslashreplace").decode()
                raise UserError(
                    f"the name '{shown}' is no UTF-8: rename the file, folder or class, such as "
                    "with convmv -f latin1 -t utf-8"
                ) from None

    def __repr__(self) -> str:
        classes = counted(len(self.class_names), "class")
        return f"{type(self).__name__}({self.name!r}, {counted(len(self), 'image')} of {classes})"

    def __len__(self) -> int:
        return len(self.labels)

    def noted(self) -> dict[str, list[str]]:
        """Return the notes as a record holds them; nothing without any."""
        return {"data_notes": list(self.notes)} if self.notes else {}

    def images(self, indices: Sequence[int] | NDArray[Any] | Tensor) -> Tensor:
        """Return the images at `indices` as uint8, (B, 3, H, W).

        Raises UserError for no index, one outside the set, and what are no indices (a mask).
        """
        chosen = self.positions(indices)
        if not len(chosen):
            raise UserError(f"no images were asked of {self.name}: give at least one index")
        stack = np.stack([self._pixels(int(i)) for i in chosen])
        return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()

    def positions(self, indices: object) -> NDArray[np.int64]:
        """Return indices as int64, (B,); a mask, read as 0s and 1s, would be two images."""
        given = np.asarray(indices)
        right = given.ndim == 1 and (given.dtype.kind in "iu" or not given.size)
        outside = given[(given < 0) | (given >= len(self))] if right else given
        if not right or outside.size:
            shown = outside[0] if right else f"{given.dtype} {given.shape}"
            raise UserError(
                f"{self.name} cannot take indices {shown}: give a list of whole numbers from 0 to "
                f"{len(self) - 1}, such as [0, 1]; of a mask np.flatnonzero(mask)"
            )
        return given.astype(np.int64)

    def each_once(self, chosen: object) -> NDArray[np.int64]:
        """Return chosen indices, all for None; raise UserError for an image that is there twice."""
        given = np.arange(len(self)) if chosen is None else self.positions(chosen)
        images, times = np.unique(given, return_counts=True)
        if (times > 1).any():
            raise UserError(f"image {images[times > 1][0]} was chosen twice: give each index once")
        return given

    def _pixels(self, i: int) -> NDArray[np.uint8]:
        """Return image i; floats in [0, 1], which a `read` of a user's own may give, are black."""
        pixels = self.read(i)
        shape = tuple(getattr(pixels, "shape", ()))
        if getattr(pixels, "dtype", None) != np.uint8 or len(shape) != 3 or shape[-1] != 3:
            kind = f"{getattr(pixels, 'dtype', type(pixels).__name__)} {shape}"
            raise UserError(f"{self.name} reads {kind} as image {i}: give uint8 RGB, (H, W, 3)")
        return pixels

    @cached_property
    def _digests(self) -> NDArray[np.uint8]:
        """Digest of each image, (N, 32); zeros before it is hashed. Every part of a run asks."""
        return np.zeros((len(self), 32), np.uint8)  # memory is taken as it is written

    def sha256(self, indices: Sequence[int] | NDArray[Any] | None = None) -> str:
        """Return what the images at `indices` (all without any) are told from others by.

        That is the SHA-256 of their decoded pixels, labels, indices and class names, wherever
        they were read from: whatever is stored of them is gone on with only where it agrees.
        Each image is read once in the life of this object.

        Raises UnreadableImage as `read` does, UserError as `images` does.
        """
        chosen = np.arange(len(self)) if indices is None else self.positions(indices)
        each = (self._digest(int(i)) for i in chosen)
        return joint_sha256(self.class_names, chosen, self.labels[chosen], each)

    def digests(self, indices: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return the SHA-256 of each image's pixels. Raises UnreadableImage as `read` does."""
        return [self._digest(int(i)).hex() for i in indices]

    def marks(self, indices: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return what tells each image by its pixels alone: 16 digits of their SHA-256."""
        return [digest[: 2 * _MARK] for digest in self.digests(indices)]

    def _digest(self, i: int) -> bytes:
        if not self._digests[i].any():
            self._digests[i] = np.frombuffer(pixels_sha256(self._pixels(i)), np.uint8)
        return bytes(self._digests[i])

    def draw(
        self, indices: NDArray[np.int64], rng: np.random.Generator, rows: slice = slice(None)
    ) -> Tensor:
        """Return a training view of the images at `indices`, uint8 (B, 3, H, W).

        Here: each image is mirrored with probability one half.

        rows: those that are read and returned; what is drawn is drawn for all.
        """
        mirrored = torch.from_numpy(rng.random(len(indices)) < 0.5)[rows]
        images = self.images(indices[rows])
        return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def to_unit_range(images: Images) -> Tensor:
    """Map images to floats in [-1, 1], the range that teachers take.

    images: a tensor or an array of uint8 in 0 to 255, or of floats in [0, 1]; or a list of PIL
        images of one size, which become upright RGB.

    Raises UserError for anything else, floats outside [0, 1] included.
    """
    if not isinstance(images, np.ndarray | Tensor) and hasattr(images, "getbands"):
        raise UserError("images are one PIL image: give a list, [image]")
    if isinstance(images, Sequence):
        images = _stacked(images)
    if getattr(images, "dtype", None) == np.dtype("uint8"):
        images = torch.from_numpy(np.array(images, order="C"))
    if isinstance(images, Tensor) and images.dtype == torch.uint8:
        return images.float() / 127.5 - 1
    mend = "uint8 in 0 to 255 and lists of PIL images are taken too; of [-1, 1] (images + 1) / 2"
    return (as_images(images, 0, mend) * 2 - 1).clamp(-1, 1)  # an interpolation's rounding goes


def _stacked(images: Sequence[Any]) -> NDArray[np.uint8]:
    """Return PIL images as uint8 RGB, (B, 3, H, W)."""
    from PIL import Image, ImageOps

    from clarep.data.decode_image import to_rgb  # which imports this module

    other = next(
        (type(image).__name__ for image in images if not isinstance(image, Image.Image)), ""
    )
    if other or not images:
        raise UserError(
            f"images are a list {f'with a {other}' if other else 'of none'}: give PIL images, or "
            "one tensor or array (B, C, H, W), as torch.stack or numpy.stack makes it"
        )
    arrays: list[NDArray[np.uint8]] = []
    for i, image in enumerate(images):
        try:
            arrays.append(np.asarray(to_rgb(ImageOps.exif_transpose(image)), np.uint8))
        except ValueError as error:
            raise UserError(f"image {i} cannot be read: {error}") from error
    if len(sizes := {array.shape[1::-1] for array in arrays}) > 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
        raise UserError(f"the PIL images have several sizes ({shown}): resize them to one")
    stack: NDArray[np.uint8] = np.stack(arrays).transpose(0, 3, 1, 2)
    return stack


def to_uint8(images: Tensor) -> Tensor:
    """Map float in [-1, 1] to uint8 in [0, 255], rounded; what lies outside saturates."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def readable_indices(
    data: LabelledImages, indices: NDArray[np.int64], skip_bad: bool
) -> tuple[NDArray[np.int64], list[str]]:
    """Decode each chosen image once, so that a bad one is found before anything expensive.

    Returns the indices that can be read, in their order, and for each other image
    "source: reason". Raises UserError for an unreadable image unless `skip_bad`, or if no image
    is left.
    """
    readable: list[int] = []
    bad: list[str] = []
    for i in indices:
        try:
            data._digest(int(i))  # which `sha256` asks for later
        except UnreadableImage as error:
            if not skip_bad:
                raise UserError(
                    f"cannot read {error.source}: {error.reason}; `skip_bad` goes on without it"
                ) from error
            bad.append(f"{error.source}: {error.reason}")
        else:
            readable.append(int(i))
    if not readable:
        reason = "none was chosen: give one index at least, or leave out the choice to take all"
        if bad:
            reason = f"all {len(bad)} are unreadable, first {bad[0]}: replace them"
        raise UserError(f"no image of {data.name} is left: {reason}")
    return np.array(readable, np.int64), bad


def in_memory(
    data: LabelledImages, skip_bad: bool, chosen: NDArray[np.int64] | None = None
) -> tuple[LabelledImages, NDArray[np.int64], list[str]]:
    """Decode each chosen image (all without any) once, and keep them unless they need over 1 GB.

    Returns the set, and what `readable_indices` does, and raises as it does. Where they need more
    and none is to be skipped, they are left to be read when they are asked for.
    """
    pixels: dict[int, NDArray[np.uint8]] = {}
    indices = np.arange(len(data)) if chosen is None else chosen

    def read(i: int) -> NDArray[np.uint8]:
        image = pixels.get(i)
        if image is None:
            image = data.read(i)
            if len(indices) * image.nbytes <= _MEMORY:
                pixels[i] = image
        return image

    held = copy(data)  # a set that composes its images takes no other `read`
    object.__setattr__(held, "read", read)
    if not skip_bad and len(indices):
        readable_indices(held, indices[:1], skip_bad)
        if not fits_in_memory(held, indices):
            return held, indices, []
    kept, bad = readable_indices(held, indices, skip_bad)
    return held, kept, bad


def fits_in_memory(data: LabelledImages, indices: NDArray[np.int64]) -> bool:
    """Tell whether `in_memory` keeps these images, all of the first one's size."""
    return len(indices) * data.images(indices[:1]).nbytes <= _MEMORY
