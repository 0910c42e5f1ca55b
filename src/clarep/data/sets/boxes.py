"""Images with one bounding box each, such as tiny9: the background measures on real photographs.

A box is no mask: it holds background too (in tiny9 the median box takes 58 % of the image), so
that `only_fg` and `mixed_*` show some of the image's own background, and a gap is understated.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.backdrops import VARIANTS
from clarep.data.labelled import LabelledImages
from clarep.data.npy_files import open_archive
from clarep.data.npz import archive_of, is_divided, load_npz
from clarep.errors import UserError
from clarep.robustness.backgrounds import Separated

MAX_SHARE = 0.9  # of the image: a larger box leaves too little background to be filled from


def fill_box(image: NDArray[np.uint8], box: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) with its box filled by tiles of the largest strip beside it.

    The box is (x0, y0, x1, y1), both ends inside. As `only_bg_t` of the Backgrounds Challenge.
    A box that leaves no strip is filled with black.
    """
    x0, y0, x1, y1 = (int(edge) for edge in box)
    strips = [image[:y0], image[y1 + 1 :], image[:, :x0], image[:, x1 + 1 :]]
    strip = max(strips, key=lambda part: part.size)
    filled = np.array(image)
    rows, columns = y1 + 1 - y0, x1 + 1 - x0
    if strip.size == 0:
        filled[y0 : y1 + 1, x0 : x1 + 1] = 0
        return filled
    repeats = (-(-rows // strip.shape[0]), -(-columns // strip.shape[1]), 1)
    filled[y0 : y1 + 1, x0 : x1 + 1] = np.tile(strip, repeats)[:rows, :columns]
    return filled


def box_mask(shape: tuple[int, ...], box: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool (H, W), True inside the box (x0, y0, x1, y1), both ends inside."""
    x0, y0, x1, y1 = (int(edge) for edge in box)
    mask = np.zeros(shape[:2], np.bool_)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


@dataclass(frozen=True)
class BoxedImages(LabelledImages):
    """Labelled images, each with one box around its object."""

    boxes: NDArray[np.int64] = field(repr=False, compare=False, kw_only=True)
    """(N, 4): x0, y0, x1, y1 in pixels, both ends inside."""

    def mask(self, i: int) -> NDArray[np.bool_]:
        """Return the box of image i as a mask (H, W)."""
        return box_mask(self.read(i).shape, self.boxes[i])

    def masks(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the boxes at `indices` as masks, bool (B, H, W)."""
        return torch.from_numpy(np.stack([self.mask(int(i)) for i in indices]))

    def backdrop(self, i: int) -> NDArray[np.uint8]:
        """Return image i with its box filled from the background."""
        return fill_box(self.read(i), self.boxes[i])

    def backdrops(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the images at `indices` with their boxes filled, uint8 (B, 3, H, W)."""
        stack = np.stack([self.backdrop(int(i)) for i in indices])
        return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()

    def usable(self) -> NDArray[np.int64]:
        """Return the images whose box takes at most MAX_SHARE of the image."""
        height, width = self.read(0).shape[:2]
        x0, y0, x1, y1 = self.boxes.T
        share = (x1 + 1 - x0) * (y1 + 1 - y0) / (height * width)
        return np.flatnonzero(share <= MAX_SHARE)

    def variant(self, name: str) -> LabelledImages:
        """Return one of VARIANTS as a set of its own, every image made when it is read."""
        usable = self.usable()

        def only_fg(i: int) -> NDArray[np.uint8]:
            return self.read(i) * self.mask(i)[:, :, None]

        def no_fg(i: int) -> NDArray[np.uint8]:
            return self.read(i) * ~self.mask(i)[:, :, None]

        def mixed(i: int) -> NDArray[np.uint8]:
            other = self._donor(i, name, usable)
            return np.where(self.mask(i)[:, :, None], self.read(i), self.backdrop(other))

        readers: dict[str, Callable[[int], NDArray[np.uint8]]] = {
            "original": self.read,
            "only_fg": only_fg,
            "only_bg": self.backdrop,
            "no_fg": no_fg,
        }
        return LabelledImages(
            name=f"{self.name}/{name}",
            labels=self.labels,
            class_names=self.class_names,
            sources=self.sources,
            read=readers.get(name, mixed),
        )

    def _donor(self, i: int, name: str, usable: NDArray[np.int64]) -> int:
        """Choose the image whose background image i gets; the same whenever it is asked."""
        rng = np.random.default_rng([VARIANTS.index(name), i])
        others = usable[usable != i]
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
        variants: Mapping[str, LabelledImages] = {name: self.variant(name) for name in VARIANTS}
        return Separated(
            variants=variants,
            paired=True,
            usable=self.usable(),
            masks=self.masks,
            backdrops=self.backdrops,
            donors=self.usable(),
            scene=lambda i: int(self.labels[i]),
        )


def has_boxes(path: Path) -> bool:
    """Say whether an .npz holds boxes."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    with open_archive(path) as archive:
        return "box" in archive


def load_boxed(path: Path, split: str = "train") -> BoxedImages:
    """Load an .npz as `load_npz` does, with its `box` (N, 4): x0, y0, x1, y1 in pixels.

    The images are not resized: a box would have to be cropped with them. Raises UserError as
    `load_npz`, for boxes of one for several splits, and for those that do not fit.
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
        given = archive["box"]
    if given.shape != (len(data), 4) or given.dtype.kind not in "iu":
        raise UserError(
            f"'box' of {path} is {given.dtype} {given.shape}: give whole numbers ({len(data)}, 4)"
        )
    height, width = data.read(0).shape[:2]
    ends = f"give x0, y0, x1, y1 in pixels of {width}x{height}, the last pixel inside"
    x0, y0, x1, y1 = given.T
    for is_wrong, reason in (
        ((x1 < x0) | (y1 < y0), "ends before it starts (is it x, y, width, height?)"),
        ((x0 < 0) | (y0 < 0) | (x1 >= width) | (y1 >= height), "lies outside its image"),
    ):
        if is_wrong.any():
            i = int(is_wrong.argmax())
            raise UserError(f"the box {given[i].tolist()} of image {i} in {path} {reason}: {ends}")
    shared = {f.name: getattr(data, f.name) for f in dataclasses.fields(LabelledImages)}
    return BoxedImages(**shared, boxes=given.astype(np.int64))
