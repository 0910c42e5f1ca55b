"""The Backgrounds Challenge's folders (ImageNet-9 and its variations, Xiao et al. 2020).

    ROOT/original/val/00_dog/...   mixed_same/  mixed_rand/  mixed_next/  only_fg/  no_fg/
    ROOT/only_bg_b/ (box in black)   only_bg_t/ (box tiled)   fg_mask/val/00_dog/NAME.npy

The data are the authors' release; nothing of it is here. Only `original` and one more variant
are required. The mixed sets do not show the foregrounds of `original` in its order, so that
their gap is not paired.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clarep.data.decode_image import square_resize
from clarep.data.files import load_class_folders
from clarep.data.foregrounds import Separated
from clarep.data.labelled import LabelledImages
from clarep.data.npy_files import read_npy
from clarep.errors import UserError

CHALLENGE_VARIANTS = (
    "original",
    "mixed_same",
    "mixed_rand",
    "mixed_next",
    "only_fg",
    "no_fg",
    "only_bg_b",
    "only_bg_t",
)
_SPLIT = "val"


@dataclass(frozen=True)
class ChallengeImages(LabelledImages):
    """The challenge's `original` images, with their other variants beside them."""

    root: Path = field(kw_only=True)
    """Folder that holds one folder a variant."""
    image_size: int | None = field(default=None, kw_only=True)
    """Side that all images are brought to."""
    variants: Mapping[str, LabelledImages] = field(repr=False, compare=False, kw_only=True)
    """Name -> set, those that are there."""

    def _mask_path(self, i: int) -> Path:
        image = Path(self.sources[i])
        return self.root / "fg_mask" / _SPLIT / image.parent.name / f"{image.stem}.npy"

    def mask(self, i: int) -> NDArray[np.bool_]:
        """Return the foreground mask of image i, (H, W)."""
        path = self._mask_path(i)
        mask = read_npy(path)
        if mask.ndim != 2:
            raise UserError(f"the mask {path} has shape {mask.shape}: give (H, W)")
        picture = Image.fromarray((mask > 0).astype(np.uint8) * 255)
        if self.image_size is not None:
            picture = square_resize(picture, self.image_size)
        scaled = np.asarray(picture) >= 128
        shape = self.read(i).shape[:2]
        if scaled.shape != shape:
            raise UserError(f"the mask {path} is {scaled.shape}, its image {shape}: give one size")
        return scaled

    def masks(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the foreground masks at `indices`, bool (B, H, W)."""
        return torch.from_numpy(np.stack([self.mask(int(i)) for i in indices]))

    def separated(self) -> Separated:
        """Return foregrounds and backgrounds: what the background measures take.

        The adversarial backgrounds are those of only_bg_t, as in the challenge.
        """
        masked = [i for i in range(len(self)) if self._mask_path(i).exists()]
        tiled = self.variants.get("only_bg_t")
        by_class = self.labels if tiled is None else tiled.labels
        return Separated(
            variants=self.variants,
            paired=False,
            usable=np.array(masked, np.int64),
            masks=self.masks if masked else None,
            backdrops=None if tiled is None else tiled.images,
            donors=np.arange(len(by_class)),
            scene=lambda i: int(by_class[i]),
        )


def is_challenge(path: Path) -> bool:
    """Say whether a folder has the challenge's layout: `original` and a mixed set."""
    return all((path / name / _SPLIT).is_dir() for name in ("original", "mixed_rand"))


def load_challenge(root: Path, image_size: int | None = None) -> ChallengeImages:
    """Load the challenge's folders.

    Args:
        root: holds one folder a variant.
        image_size: side that all images are brought to; None keeps theirs.

    Raises:
        UserError: if `root` has another layout, the variants are not of the same classes, or
            as `load_class_folders`.
    """
    if not is_challenge(root):
        raise UserError(
            f"{root} is no Backgrounds Challenge folder: give one that holds "
            "original/val and mixed_rand/val"
        )
    variants = {
        name: load_class_folders(root / name, _SPLIT, image_size)
        for name in CHALLENGE_VARIANTS
        if (root / name / _SPLIT).is_dir()
    }
    original = variants["original"]
    for name, data in variants.items():
        if data.class_names != original.class_names:
            raise UserError(
                f"{root / name} has other classes than {root / 'original'}: "
                "give the folders of one release"
            )
    notes = tuple(note for data in variants.values() for note in data.notes)
    original = dataclasses.replace(original, notes=notes)
    shared = {f.name: getattr(original, f.name) for f in dataclasses.fields(LabelledImages)}
    return ChallengeImages(**shared, root=root, image_size=image_size, variants=variants)
