"""95 % intervals by the bootstrap over images."""

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
