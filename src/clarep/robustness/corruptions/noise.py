"""Corruptions that change each value on its own."""

import numpy as np

from clarep.robustness.corruptions.constants import Setting
from clarep.robustness.corruptions.filters import Floats, Images, Rngs, to_bytes, to_float


def gaussian_noise(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Low light: normal noise of one strength."""
    (deviation,) = setting
    return to_bytes(to_float(images) + deviation * _normal(images, rngs))


def shot_noise(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Few photons: each value is Poisson."""
    (photons,) = setting
    counts = [rng.poisson(x * photons) for x, rng in zip(to_float(images), rngs, strict=True)]
    return to_bytes(np.stack(counts) / photons)


def impulse_noise(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Salt and pepper: a share of the values turns 0 or 255, either as likely."""
    (share,) = setting
    draws = np.stack([rng.random(images.shape[1:]) for rng in rngs])
    salted = np.where(draws < share, np.uint8(255), images)
    return np.where(draws < share / 2, np.uint8(0), salted)


def speckle_noise(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Noise that grows with the value."""
    (deviation,) = setting
    x = to_float(images)
    return to_bytes(x + x * deviation * _normal(images, rngs))


def _normal(images: Images, rngs: Rngs) -> Floats:
    return np.stack([rng.standard_normal(images.shape[1:]) for rng in rngs])
