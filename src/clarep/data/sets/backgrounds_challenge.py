"""The Backgrounds Challenge's folders (ImageNet-9 and its variations, Xiao et al. 2020).

    ROOT/original/val/00_dog/...   mixed_same/  mixed_rand/  mixed_next/  only_fg/  no_fg/
    ROOT/only_bg_b/ (box in black)   only_bg_t/ (box tiled)   fg_mask/val/00_dog/NAME.npy

The data are the authors' release; nothing of it is here. Only `original` and one more variant
are required. The mixed sets do not show the foregrounds of `original` in its order, so that
their gap is not paired.
"""

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


@dataclass(frozen=True, repr=False)
class ChallengeImages(LabelledImages):
    """The challenge's `original` images, with their other variants beside them."""

    parts: Separated = field(repr=False, compare=False, kw_only=True)

    def separated(self) -> Separated:
        """Return foregrounds and backgrounds: what the background measures take."""
        return self.parts


def is_challenge(path: Path) -> bool:
    """Say whether a folder has the challenge's layout: `original` and a mixed set."""
    return all((path / name / _SPLIT).is_dir() for name in ("original", "mixed_rand"))


def load_challenge(root: Path, image_size: int | None = None) -> ChallengeImages:
    """Load the challenge's folders; its adversarial backgrounds are those of only_bg_t.

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
    original, tiled = variants["original"], variants.get("only_bg_t")
    for name, data in variants.items():
        if data.class_names != original.class_names:
            raise UserError(
                f"{root / name} has other classes than {root / 'original'}: "
                "give the folders of one release"
            )
    pictures = [Path(source) for source in original.sources]
    paths = [
        root / "fg_mask" / _SPLIT / picture.parent.name / f"{picture.stem}.npy"
        for picture in pictures
    ]
    masked = [i for i, path in enumerate(paths) if path.exists()]

    def masks(indices: NDArray[np.int64]) -> Tensor:
        found = [_mask(paths[i], original.read(int(i)).shape[:2], image_size) for i in indices]
        return torch.from_numpy(np.stack(found))

    by_class = (tiled or original).labels
    parts = Separated(
        variants=variants,
        paired=False,
        usable=np.array(masked, np.int64),
        masks=masks if masked else None,
        backdrops=None if tiled is None else tiled.images,
        donors=np.arange(len(by_class)),
        scene=lambda i: int(by_class[i]),
    )
    notes = tuple(note for data in variants.values() for note in data.notes)
    return ChallengeImages(**vars(original) | {"notes": notes}, parts=parts)


def _mask(path: Path, shape: tuple[int, ...], image_size: int | None) -> NDArray[np.bool_]:
    """Return the foreground mask (H, W) of an image of that shape."""
    mask = read_npy(path)
    if mask.ndim != 2:
        raise UserError(f"the mask {path} has shape {mask.shape}: give (H, W)")
    picture = Image.fromarray((mask > 0).astype(np.uint8) * 255)
    if image_size is not None:
        picture = square_resize(picture, image_size)
    scaled: NDArray[np.bool_] = np.asarray(picture) >= 128
    if scaled.shape != shape:
        raise UserError(f"the mask {path} is {scaled.shape}, its image {shape}: give one size")
    return scaled
