"""Corruptions that mix neighbouring pixels."""

import numpy as np

from clarep.robustness.corruptions.constants import Setting
from clarep.robustness.corruptions.filters import (
    Images,
    Rngs,
    clipped_zoom,
    correlate,
    disc,
    gaussian,
    streak,
    to_bytes,
    to_float,
)


def defocus_blur(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """A lens out of focus."""
    radius, rim_sigma = setting
    return to_bytes(correlate(to_float(images), disc(radius, rim_sigma)))


def glass_blur(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Frosted glass: blurred, pixels taken from near by, blurred again.

    The official code means to swap two pixels, but its two NumPy views make a copy of it:
    each pixel in turn becomes one that is at most `reach` above and left or `reach` - 1 below
    and right. We do the same, since the official images are made so.
    """
    sigma, reach, rounds = setting[0], int(setting[1]), int(setting[2])
    x = to_bytes(gaussian(to_float(images), sigma))
    count, height, width = x.shape[:3]
    size = (rounds, height - 2 * reach, width - 2 * reach, 2)
    moves = np.stack([rng.integers(-reach, reach, size) for rng in rngs], axis=-1)
    image = np.arange(count)
    for of_round in moves:  # (H', W', 2, N)
        for row, of_row in zip(range(height - reach, reach, -1), of_round, strict=True):
            for column, (right, down) in zip(range(width - reach, reach, -1), of_row, strict=True):
                x[:, row, column] = x[image, row + down, column + right]
    return to_bytes(gaussian(to_float(x), sigma))


def motion_blur(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """A camera that moved, in a direction within 45 degrees of the horizontal."""
    radius, sigma = setting
    degrees = np.array([rng.uniform(-45, 45) for rng in rngs])
    blurred = streak(images.astype(np.float32), radius, sigma, degrees)
    return np.rint(blurred).astype(np.uint8)  # ImageMagick rounds


def zoom_blur(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """A camera that moved towards the object: the mean of several zooms and the image."""
    x = to_float(images).astype(np.float32)
    total = x.copy()
    for factor in setting:
        total += clipped_zoom(x, factor)
    return to_bytes(total / (len(setting) + 1))


def gaussian_blur(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """A Gaussian blur."""
    (sigma,) = setting
    return to_bytes(gaussian(to_float(images), sigma))
