"""`LabelledImages`: what every data set is to the rest of clarep."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.engine.arrays import Images
from clarep.engine.seeds import check_seed
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
        """Raise UserError for a name that is no UTF-8: no report or record could hold it."""
        for given in ([self.name], self.class_names, self.sources):
            try:
                "".join(given).encode()
            except UnicodeEncodeError:
                wrong = next(one for one in given if one.encode("utf-8", "replace").decode() != one)
                shown = wrong.encode("utf-8", "backslashreplace").decode()
                raise UserError(
                    f"the name '{shown}' is no UTF-8: rename the file, folder or class, such as "
                    "with convmv -f latin1 -t utf-8"
                ) from None

    def __len__(self) -> int:
        return len(self.labels)

    def noted(self) -> dict[str, list[str]]:
        """Return the notes as a record holds them; nothing without any."""
        return {"data_notes": list(self.notes)} if self.notes else {}

    def images(self, indices: Sequence[int] | NDArray[Any] | Tensor) -> Tensor:
        """Return the images at `indices` as uint8, (B, 3, H, W).

        Raises UserError for no index, one outside the set, and what are no indices (a mask).
        """
        chosen = self._positions(indices)
        if not len(chosen):
            raise UserError(f"no images were asked of {self.name}: give at least one index")
        stack = np.stack([self.read(int(i)) for i in chosen])
        return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()

    def _positions(self, indices: object) -> NDArray[np.int64]:
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

    @cached_property
    def _digests(self) -> dict[int, bytes]:
        """Digest of each image that was hashed so far: every part of a run asks for some."""
        return {}

    def sha256(self, indices: Sequence[int] | NDArray[Any] | None = None) -> str:
        """Return what the images at `indices` (all without any) are told from others by.

        That is the SHA-256 of their decoded pixels, labels, indices and class names, wherever
        they were read from: whatever is stored of them is gone on with only where it agrees.
        Each image is read once in the life of this object.

        Raises UnreadableImage as `read` does, UserError as `images` does.
        """
        chosen = np.arange(len(self)) if indices is None else self._positions(indices)
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        digest.update(chosen.tobytes() + self.labels[chosen].astype(np.int64).tobytes())
        for i in chosen:
            digest.update(self._digest(int(i)))
        return digest.hexdigest()

    def marks(self, indices: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return what tells each image by its pixels alone: 16 digits of their SHA-256.

        Raises UnreadableImage as `read` does.
        """
        return [self._digest(int(i))[:_MARK].hex() for i in indices]

    def _digest(self, i: int) -> bytes:
        if i not in self._digests:
            pixels = self.read(i)
            found = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes())
            self._digests[i] = found.digest()
        return self._digests[i]

    def draw(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Return a training view of the images at `indices`, uint8 (B, 3, H, W).

        Here: each image is mirrored with probability one half.
        """
        images = self.images(indices)
        mirrored = torch.from_numpy(rng.random(len(indices)) < 0.5)
        return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def to_unit_range(images: Images) -> Tensor:
    """Map uint8 in [0, 255] to float32 in [-1, 1], the range that teachers take.

    Raises UserError for anything but a tensor or an array of uint8: floats may be of any range.
    """
    kind = getattr(images, "dtype", type(images).__name__)
    if kind not in (torch.uint8, np.dtype("uint8")):
        raise UserError(
            f"to_unit_range was given {kind}: give a tensor or an array of uint8; of floats in "
            "[0, 1] take images * 2 - 1, of PIL images np.stack([np.asarray(i) for i in images])"
        )
    return torch.as_tensor(images).float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Map float in [-1, 1] to uint8 in [0, 255], rounded; what lies outside saturates."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def check_fraction(fraction: float) -> None:
    """Raise UserError unless it is a share in (0, 1]."""
    if not 0 < fraction <= 1:
        raise UserError(f"fraction {fraction} is outside (0, 1]: give a share such as 0.1")


def class_balanced_choice(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.int64]:
    """Choose at random the same share of every class; at least one image a class.

    Returns sorted indices into `labels`. The same seed gives the same choice.
    Raises UserError if `fraction` is not in (0, 1], or the seed is no seed.
    """
    check_seed(seed)
    check_fraction(fraction)
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        chosen.append(rng.choice(members, size=count, replace=False))
    return np.sort(np.concatenate(chosen))


def readable_indices(
    data: LabelledImages, indices: NDArray[np.int64], skip_bad: bool
) -> tuple[NDArray[np.int64], list[str]]:
    """Decode each chosen image once, so that a bad one is found before anything expensive.

    Args:
        data: the set that is read.
        indices: the chosen images.
        skip_bad: go on without unreadable images instead of raising.

    Returns:
        The indices that can be read, in their order, and for each other image
        "source: reason".

    Raises:
        UserError: for an unreadable image unless `skip_bad`, or if no image is left.
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
        reason = f"all {len(bad)} are unreadable, first {bad[0]}" if bad else "none was chosen"
        raise UserError(f"no image of {data.name} is left: {reason}")
    return np.array(readable, np.int64), bad


def in_memory(
    data: LabelledImages, skip_bad: bool
) -> tuple[LabelledImages, NDArray[np.int64], list[str]]:
    """Decode every image once, for training, and keep them unless all need over 1 GB.

    Args:
        data: the set that is read.
        skip_bad: go on without unreadable images.

    Returns:
        The set, the indices that can be read, and for each other image "source: reason".

    Raises:
        UserError: for an unreadable image unless `skip_bad`, or if no image is left.
    """
    pixels: dict[int, NDArray[np.uint8]] = {}

    def read(i: int) -> NDArray[np.uint8]:
        image = data.read(i)
        if len(data) * image.nbytes <= _MEMORY:
            pixels[i] = image
        return image

    kept, bad = readable_indices(replace(data, read=read), np.arange(len(data)), skip_bad)
    return replace(data, read=pixels.__getitem__) if pixels else data, kept, bad


def subset(data: LabelledImages, kept: NDArray[np.int64], which: str) -> LabelledImages:
    """Return the images at indices `kept` alone; `which` says which they are, in the name."""
    return LabelledImages(  # and nothing of a set that knows more of its images
        name=f"{data.name} {which}",
        labels=data.labels[kept],
        class_names=data.class_names,
        sources=[data.sources[i] for i in kept],
        read=lambda i: data.read(int(kept[i])),
        notes=data.notes,
    )
