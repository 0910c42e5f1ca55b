"""Data whose objects are known by masks: what the measures of backgrounds ask for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.labelled import LabelledImages
from clarep.errors import UserError

VARIANTS = ("original", "only_fg", "only_bg", "no_fg", "mixed_same", "mixed_rand", "mixed_next")
"""Of the Backgrounds Challenge (Xiao et al. 2020, arXiv 2006.09994)."""
_MAX_SHARE = 0.9  # of the image: a larger object leaves too little background to be filled from


@dataclass(frozen=True)
class Separated:
    """A test set whose images are known as foreground and background."""

    variants: Mapping[str, LabelledImages]
    """Name -> set; at least `original`."""
    paired: bool
    """Whether image i has the same foreground, at the same place, in every variant."""
    usable: NDArray[np.int64]
    """Images of `original` whose foreground and background are both known."""
    masks: Callable[[NDArray[np.int64]], Tensor] | None
    """Indices into `original` -> bool (B, H, W), True on the foreground."""
    backdrops: Callable[[NDArray[np.int64]], Tensor] | None
    """Indices, of `donors`, -> backgrounds without foreground, uint8 (B, 3, H, W)."""
    donors: NDArray[np.int64]
    """What `backdrops` and `scene` may be asked for."""
    scene: Callable[[int], int]
    """Kind of a donor's background: adversarial ones are taken evenly from the kinds."""


@runtime_checkable
class Foregrounds(Protocol):
    """A data set that knows its foregrounds, such as backdrops, boxes, or `MaskedImages`."""

    def separated(self) -> Separated:
        """Return foregrounds and backgrounds."""


def separate(data: LabelledImages) -> Separated | None:
    """Return what is known of foregrounds and backgrounds; None if nothing is."""
    return data.separated() if isinstance(data, Foregrounds) else None


@dataclass(frozen=True, repr=False)
class MaskedImages(LabelledImages):
    """Labelled images with a mask each, of a user's own, say: every background measure takes them.

    A background is the image with the mask's bounding box filled from beside it, within the mask.
    """

    mask: Callable[[int], NDArray[np.bool_]] = field(repr=False, compare=False, kw_only=True)
    """Mask of image i, (H, W), True on the object."""

    def mask_of(self, i: int) -> NDArray[np.bool_]:
        """Return the mask of image i; raises UserError unless it is bool (H, W), as the image is.

        Of 0s and 1s the opposite is no mask, and of 0s and 255s no share.
        """
        mask, shape = np.asarray(self.mask(i)), self.read(i).shape[:2]
        if mask.dtype != np.bool_ or mask.shape != shape:
            raise UserError(
                f"the mask of image {i} in {self.name} is {mask.dtype} {mask.shape}: give bool "
                f"{shape}, True on the object, such as mask > 0"
            )
        return mask

    def masks(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the masks at `indices`, bool (B, H, W)."""
        return torch.from_numpy(np.stack([self.mask_of(int(i)) for i in indices]))

    def backdrop(self, i: int) -> NDArray[np.uint8]:
        """Return image i with its object filled from the background."""
        image, mask = self.read(i), self.mask_of(i)
        return np.where(mask[:, :, None], _filled(image, mask), image)

    @cached_property
    def usable(self) -> NDArray[np.int64]:
        """The images whose object takes something, and at most 90 % of the image."""
        return np.array(
            [i for i in range(len(self)) if 0 < self.mask_of(i).mean() <= _MAX_SHARE], np.int64
        )

    def variant(self, name: str) -> LabelledImages:
        """Return one of VARIANTS as a set of its own, every image made when it is read."""

        def read(i: int) -> NDArray[np.uint8]:
            image, mask = self.read(i), self.mask_of(i)[:, :, None]
            if name == "only_bg":
                return self.backdrop(i)
            if name in ("only_fg", "no_fg"):
                return image * (mask if name == "only_fg" else ~mask)
            return np.where(mask, image, self.backdrop(self._donor(i, name)))

        return LabelledImages(
            name=f"{self.name}/{name}",
            labels=self.labels,
            class_names=self.class_names,
            sources=self.sources,
            read=self.read if name == "original" else read,
        )

    def _donor(self, i: int, name: str) -> int:
        """Choose the image whose background image i gets; the same whenever it is asked."""
        rng = np.random.default_rng([VARIANTS.index(name), i])
        others = self.usable[self.usable != i]
        present = np.unique(self.labels[others])
        own = int(self.labels[i])
        wanted = {
            "mixed_same": own,
            "mixed_rand": int(rng.choice(present)),
            "mixed_next": int(present[np.searchsorted(present, own + 1) % len(present)]),
        }[name]
        members = others[self.labels[others] == wanted]
        if not len(members):
            raise UserError(
                f"{self.name} has one usable image of class '{self.class_names[wanted]}', and "
                f"{name} needs a second: give more images"
            )
        return int(rng.choice(members))

    def separated(self) -> Separated:
        """Return foregrounds and backgrounds: what the background measures take."""
        if not len(self.usable):
            raise UserError(
                f"no mask of {self.name} takes something and at most {_MAX_SHARE:.0%} of its "
                "image: give masks that are True on the object alone"
            )
        return Separated(
            variants={name: self.variant(name) for name in VARIANTS},
            paired=True,
            usable=self.usable,
            masks=self.masks,
            backdrops=replace(self, read=self.backdrop).images,
            donors=self.usable,
            scene=lambda i: int(self.labels[i]),
        )


def _filled(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the image with the mask's box filled by tiles of the largest strip beside it.

    As `only_bg_t` of the Backgrounds Challenge. A box that leaves no strip is filled with black.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    filled = np.array(image)
    if not len(rows):
        return filled
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    strips = [image[:y0], image[y1:], image[:, :x0], image[:, x1:]]
    strip = max(strips, key=lambda part: part.size)
    if strip.size == 0:
        filled[y0:y1, x0:x1] = 0
        return filled
    repeats = (-(-(y1 - y0) // strip.shape[0]), -(-(x1 - x0) // strip.shape[1]), 1)
    filled[y0:y1, x0:x1] = np.tile(strip, repeats)[: y1 - y0, : x1 - x0]
    return filled
