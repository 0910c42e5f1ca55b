"""`corrupt`: images by the name of a corruption and its severity."""

import zlib
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from clarep.engine.bounds import check_seed
from clarep.errors import UserError
from clarep.robustness.corruptions import blur, noise_and_digital, weather
from clarep.robustness.corruptions.constants import Setting, setting_of
from clarep.robustness.corruptions.filters import Images, Rngs

MIN_SIDE = 16
_PIXELS_AT_ONCE = 2**20  # keeps the float copies of large images small

COMMON = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The 15 that mean accuracy and mCE are made of."""
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four that Hendrycks & Dietterich keep for validation."""
_MODULES = (noise_and_digital, blur, weather)
CORRUPTIONS: dict[str, Callable[[Images, Setting, Rngs], Images]] = {
    name: getattr(module, name)
    for name in COMMON + EXTRA
    for module in _MODULES
    if hasattr(module, name)
}


def corrupt(
    images: UInt8[Tensor, "batch 3 height width"],
    name: str,
    severity: int,
    seed: int,
    first_index: int = 0,
) -> UInt8[Tensor, "batch 3 height width"]:
    """Corrupt images as Hendrycks & Dietterich (arXiv 1903.12261) do.

    Image i of the batch draws from a random stream of its own, made of `seed`, the
    corruption, the severity and `first_index` + i: its bytes do not depend on how a data set
    is cut into batches.

    Args:
        images: RGB, uint8. Up to 64 pixels a side they get CIFAR-10-C's constants, larger
            ones ImageNet-C's.
        name: one of `CORRUPTIONS`.
        severity: 1 (mild) to 5.
        seed: of the random streams, in [0, 2^32).
        first_index: place of the batch's first image in its data set.

    Raises:
        UserError: for an unknown corruption, a severity, seed or index out of range, or
            images smaller than 16 pixels.
    """
    check_seed(seed)
    height, width = images.shape[2:]
    setting = setting_of(name, severity, height, width)
    if min(height, width) < MIN_SIDE:
        raise UserError(
            f"images of {width}x{height} are too small to corrupt: "
            f"give at least {MIN_SIDE} pixels a side"
        )
    if not 0 <= first_index < 2**32 - len(images):
        raise UserError(f"`first_index={first_index}` is no place in a data set: give 0 or more")
    corrupted, code = torch.empty_like(images), zlib.crc32(name.encode())
    at_once = max(1, _PIXELS_AT_ONCE // (height * width))
    for first in range(0, len(images), at_once):
        part = images[first : first + at_once].permute(0, 2, 3, 1).contiguous().cpu().numpy()
        places = range(first_index + first, first_index + first + len(part))
        rngs = [np.random.default_rng([seed, code, severity, place]) for place in places]
        result = torch.from_numpy(CORRUPTIONS[name](part, setting, rngs))
        corrupted[first : first + at_once] = result.permute(0, 3, 1, 2)
    return corrupted
