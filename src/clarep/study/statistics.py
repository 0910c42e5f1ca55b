"""What a comparison rests on: a paired bootstrap over images, Holm's correction, t-intervals."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_PICKS_AT_ONCE = 1 << 22  # resampled indices in memory: 32 MiB


def bootstrap_means(
    values: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Return the mean of every column of values (N, M) under each resample of the rows, (R, M).

    All columns see the same resamples.
    """
    rng = np.random.default_rng(seed)
    rows = len(values)
    at_once = max(1, _PICKS_AT_ONCE // rows)
    means = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        picks = rng.integers(rows, size=(count, rows))
        offsets = np.arange(count)[:, None] * rows
        times = np.bincount((picks + offsets).ravel(), minlength=count * rows)
        means.append(times.reshape(count, rows) @ values / rows)
    return np.concatenate(means)


def paired_bootstrap(
    differences: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Test, column by column, whether the mean of paired differences (N, M) is zero.

    Returns the 95 % percentile intervals (M, 2), and the two-sided p-values (M,): how often a
    resample of the differences, shifted to mean zero, has a mean at least as far from zero as
    theirs; never below 1 / (resamples + 1), nor below what flipping the signs of the N'
    differences that are not zero can give, 2 ** (1 - N').
    """
    observed = differences.mean(axis=0)
    means = bootstrap_means(differences, resamples, seed)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    # A rounding error must not tell a resample of equal values from what was observed.
    as_far = np.abs(means - observed) >= np.abs(observed) - 1e-12
    p_values = (1 + as_far.sum(axis=0)) / (1 + resamples)
    p_values = np.maximum(p_values, np.minimum(1, 0.5 ** (np.count_nonzero(differences, 0) - 1)))
    return np.stack([low, high], axis=1), p_values


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method, in the order given.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.maximum.accumulate(np.asarray(p_values, float)[order] * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in adjusted]


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of at least two values, by Student's t."""
    from scipy import stats  # half a second that only this needs

    array = np.asarray(values, float)
    error = float(array.std(ddof=1)) / len(array) ** 0.5
    half = float(stats.t.ppf(0.975, len(array) - 1)) * error
    return float(array.mean()) - half, float(array.mean()) + half
