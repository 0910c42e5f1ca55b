"""Garments on crops of real photographs or on noise, composed when read, with exact masks.

The photographs come with scikit-learn and scikit-image: ten scenes, one for each class. Noise
is never the same twice, so that no teacher can know the backdrops by heart. The test variants
follow the Backgrounds Challenge (Xiao et al. 2020, arXiv 2006.09994).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clarep.data.foregrounds import VARIANTS, Separated
from clarep.data.garments import CLASS_NAMES, SIZE, garment_arrays, garment_mask
from clarep.data.labelled import LabelledImages
from clarep.engine.bounds import check_seed
from clarep.errors import UserError, unknown_name

SCENES = (
    ("sklearn.datasets", "images/china.jpg"),
    ("sklearn.datasets", "images/flower.jpg"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/grass.png"),
    ("skimage", "data/gravel.png"),
    ("skimage", "data/brick.png"),
)
_SPLIT_CODES = {"train": 0, "test": 1}
_PHOTO_SIDE = 128  # shorter side that photographs are reduced to, so that crops are quick
_CROP_SHARE = (0.25, 0.75)  # side of a crop, as a share of the photograph's shorter side
_TINT = (0.5, 1.0)  # gain of each colour channel
_NOISE_COLOUR = (64, 192)  # mean of each colour channel of noise, of 255
_NOISE_CONTRAST = 40  # standard deviation about it
NO_SCENE = -1
"""Scene of a backdrop that is noise."""


@dataclass(frozen=True)
class Composition:
    """One composed image and what it was made of."""

    image: NDArray[np.uint8]
    """What a model sees, (32, 32, 3)."""
    mask: NDArray[np.bool_]
    """True where the garment covers the backdrop, (32, 32)."""
    backdrop: NDArray[np.uint8]
    """The whole backdrop, also behind the garment, (32, 32, 3)."""
    scene: int
    """Which photograph the backdrop was cut from, an index into SCENES; NO_SCENE for noise."""


@cache
def _photograph(scene: int) -> Image.Image:
    package, name = SCENES[scene]
    photo = Image.open(Path(str(files(package) / name))).convert("RGB")
    scale = _PHOTO_SIDE / min(photo.size)
    size = (round(photo.width * scale), round(photo.height * scale))
    return photo.resize(size, Image.Resampling.BOX)


@cache
def _garments_and_masks(
    split: str, path: str | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]:
    garments, labels = garment_arrays(split, path)
    masks = np.stack([garment_mask(garment) for garment in garments])
    return garments, masks, labels


def _draw_noise(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw noise with amplitudes of 1/f, each channel on its own, about a colour drawn too."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE))
    frequency[0, 0] = np.inf
    waves = np.fft.rfft2(rng.standard_normal((3, SIZE, SIZE))) / frequency
    field = np.fft.irfft2(waves, s=(SIZE, SIZE)).transpose(1, 2, 0)
    noise = rng.uniform(*_NOISE_COLOUR, size=3) + field * (_NOISE_CONTRAST / field.std())
    pixels: NDArray[np.uint8] = np.clip(np.rint(noise), 0, 255).astype(np.uint8)
    return pixels


def _draw_backdrop(scene: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    if scene == NO_SCENE:
        return _draw_noise(rng)
    photo = _photograph(scene)
    side = rng.uniform(*_CROP_SHARE) * min(photo.size)
    left = rng.uniform(0, photo.width - side)
    top = rng.uniform(0, photo.height - side)
    box = (left, top, left + side, top + side)
    crop = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BOX, box=box))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.rint(crop * rng.uniform(*_TINT, size=3)).astype(np.uint8)


@dataclass(frozen=True, repr=False)
class Backdrops(LabelledImages):
    """Garments on backdrops, 32x32 RGB. The same split, seed, correlation and variant: same bytes.

    Everything else follows from the fields that can be given, so that
    `dataclasses.replace(data, variant="only_bg")` is a whole new set.

    Raises:
        UserError: for an unknown split or variant, a correlation outside [0, 1] or given with
            noise, no seed, or garments that cannot be read.
    """

    name: str = field(init=False)
    labels: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    class_names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    sources: Sequence[str] = field(init=False, repr=False, compare=False)
    read: Callable[[int], NDArray[np.uint8]] = field(init=False, repr=False, compare=False)

    split: str = "train"
    """Garments' split, train (5,000 garments) or test (1,000)."""
    seed: int = 0
    """Seed of placement, scene, crop and tint."""
    correlation: float = 0.0
    """Share rho of images, in [0, 1], that are given their class's own scene; the others draw any
    of the ten, so that rho + (1 - rho) / 10 show it."""
    variant: str = "original"
    """original; only_fg (garment on black); only_bg (backdrop alone); no_fg (the garment's
    silhouette in black); mixed_same, mixed_rand, mixed_next (the backdrop of another image of the
    same, a random, the next class)."""
    garments_path: str | None = None
    """An .npz in Fashion-MNIST's layout instead of the embedded subset."""
    noise: bool = False
    """Put the garments on noise with amplitudes of 1/f instead of photographs."""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown_name("variant", self.variant, VARIANTS)
        if not 0 <= self.correlation <= 1:
            raise UserError(
                f"correlation {self.correlation} is outside [0, 1]: give a share such as 0.9"
            )
        if self.noise and self.correlation > 0:
            raise UserError(
                f"correlation {self.correlation} ties classes to photographs, of which noise has "
                "none: leave it out"
            )
        check_seed(self.seed)
        _, labels = garment_arrays(self.split, self.garments_path)
        setting = f"seed={self.seed}/correlation={self.correlation:g}/{self.variant}"
        kind = "noise-backdrops" if self.noise else "backdrops"
        derived = {
            "name": f"{kind}/{self.split}/{setting}",
            "labels": labels,
            "class_names": CLASS_NAMES,
            "sources": [f"{kind}/{self.split}/{i}" for i in range(len(labels))],
            "read": self._read,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)  # the way to set a field of a frozen dataclass

    def _read(self, i: int) -> NDArray[np.uint8]:
        return self.composition(i).image

    def composition(self, i: int) -> Composition:
        """Return image i with its mask, backdrop and scene."""
        return self._compose(i, np.random.default_rng(self._key(i)))

    def masks(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the foreground masks at `indices`, bool (B, 32, 32)."""
        return torch.from_numpy(np.stack([self.composition(int(i)).mask for i in indices]))

    def backdrops(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the uncovered backdrops at `indices`, uint8 (B, 3, 32, 32)."""
        stack = np.stack([self.composition(int(i)).backdrop for i in indices])
        return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()

    def cues(self) -> NDArray[np.int64]:
        """Return the scene behind each garment, (N,), a number for its class; -1 where none is."""
        if self.variant == "only_fg" or self.noise:
            return np.full(len(self), NO_SCENE)
        if self.variant.startswith("mixed_"):
            return np.array([self.composition(i).scene for i in range(len(self))])
        drawn = (np.random.default_rng(self._key(i)) for i in range(len(self)))
        pairs = zip(self.labels.tolist(), drawn, strict=True)
        return np.array([self._scene(label, rng) for label, rng in pairs])

    def separated(self) -> Separated:
        """Return foregrounds and backgrounds: what the background measures take."""
        original = replace(self, variant="original")
        return Separated(
            variants={name: replace(self, variant=name) for name in VARIANTS},
            paired=True,
            usable=np.arange(len(self)),
            masks=original.masks,
            backdrops=original.backdrops,
            donors=np.arange(len(self)),
            scene=lambda i: original.composition(i).scene,
        )

    def draw(
        self, indices: NDArray[np.int64], rng: np.random.Generator, rows: slice = slice(None)
    ) -> Tensor:
        """Return the garments at `indices` freshly composed, uint8 (B, 3, 32, 32)."""
        stack = np.stack([self._compose(int(i), rng).image for i in indices])[rows]
        return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()

    def _key(self, i: int) -> list[int]:
        return [self.seed, _SPLIT_CODES[self.split], i]

    def _scene(self, label: int, rng: np.random.Generator) -> int:
        if self.noise:
            return NO_SCENE
        own = rng.random() < self.correlation
        anywhere = int(rng.integers(len(SCENES)))
        return label if own else anywhere

    def _compose(self, i: int, rng: np.random.Generator) -> Composition:
        garments, masks, labels = _garments_and_masks(self.split, self.garments_path)
        scene = self._scene(int(labels[i]), rng)
        backdrop = _draw_backdrop(scene, rng)
        top, left = rng.integers(0, SIZE - garments.shape[1] + 1, size=2)
        mirrored = rng.random() < 0.5
        if self.variant.startswith("mixed_"):
            scene, backdrop = self._other_backdrop(i, rng)
        garment = np.zeros((SIZE, SIZE), np.uint8)
        mask = np.zeros((SIZE, SIZE), np.bool_)
        rows = slice(top, top + garments.shape[1])
        columns = slice(left, left + garments.shape[2])
        garment[rows, columns] = garments[i][:, ::-1] if mirrored else garments[i]
        mask[rows, columns] = masks[i][:, ::-1] if mirrored else masks[i]
        image = self._assemble(garment[:, :, None], mask[:, :, None], backdrop)
        return Composition(image, mask, backdrop, scene)

    def _other_backdrop(self, i: int, rng: np.random.Generator) -> tuple[int, NDArray[np.uint8]]:
        """Take the backdrop that another image of this set has in its original."""
        wanted = {
            "mixed_same": int(self.labels[i]),
            "mixed_rand": int(rng.integers(len(CLASS_NAMES))),
            "mixed_next": (int(self.labels[i]) + 1) % len(CLASS_NAMES),
        }[self.variant]
        members = np.flatnonzero(self.labels == wanted)
        other = int(rng.choice(members[members != i]))
        original = np.random.default_rng(self._key(other))
        scene = self._scene(wanted, original)
        return scene, _draw_backdrop(scene, original)

    def _assemble(
        self, garment: NDArray[np.uint8], mask: NDArray[np.bool_], backdrop: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        if self.variant == "only_fg":
            return np.where(mask, garment, np.uint8(0)).repeat(3, axis=2)
        if self.variant == "only_bg":
            return backdrop
        if self.variant == "no_fg":
            return np.where(mask, np.uint8(0), backdrop)
        return np.where(mask, garment, backdrop)


load_backdrops = Backdrops
"""What loads them, as the other sets are loaded."""
