"""95 % intervals over images: the bootstrap's, and Wilson's of a share."""

import math

import numpy as np
from jaxtyping import Float
from torch import Tensor

RESAMPLES = 1_000
"""Resampled sets behind every interval."""


def bootstrap_interval(values: Float[Tensor, " batch"], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean, over resampled images."""
    rng = np.random.default_rng(seed)
    array = values.double().numpy()
    picks = rng.integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.quantile(array[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def wilson_interval(right: int, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of the share right / images, inside [0, 1]."""
    z, share = 1.959964, right / images
    middle = share + z**2 / (2 * images)
    half = z * math.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    scale = 1 + z**2 / images
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
