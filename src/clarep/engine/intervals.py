"""95 % intervals over images: the bootstrap's, and the exact one of a share."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

RESAMPLES = 1_000
"""Resampled sets behind every interval."""


def bootstrap_interval(values: Float[Tensor, " batch"], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean, over resampled images.

    Of a share take `binomial_interval`: however resampled, eight right answers of eight stay 1.
    """
    rng = np.random.default_rng(seed)
    array = values.double().numpy()
    picks = rng.integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.quantile(array[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def binomial_interval(right: int, images: int) -> tuple[float, float]:
    """Return the exact 95 % interval (Clopper & Pearson) of the share right / images.

    A share below its lower end gives as many or more with a chance below 2.5 %, however few images.
    """
    from scipy.special import betaincinv

    low = 0.0 if right == 0 else float(betaincinv(right, images - right + 1, 0.025))
    high = 1.0 if right == images else float(betaincinv(right + 1, images - right, 0.975))
    return low, high
