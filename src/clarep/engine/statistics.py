"""What every interval and test rests on: one bootstrap, exact shares, Student's t, Holm.

All intervals are of 95 %. The same values and seed give the same numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Picks = NDArray[np.int64]
_Found = TypeVar("_Found", bound=NDArray[Any])
RESAMPLES = 1_000
"""Resampled sets behind every interval over images."""
TEST_RESAMPLES = 10_000
"""Resampled sets behind every test of a difference."""
_PICKS_AT_ONCE = 1 << 22  # resampled indices in memory: 32 MiB


def bootstrap(
    count: int,
    statistic: Callable[[Picks], _Found],
    resamples: int = RESAMPLES,
    seed: int | np.random.Generator = 0,
) -> _Found:
    """Return a statistic of each of R resamples of `count` things.

    statistic: from picked indices (r, count), a row a resample, to r values or rows of values.
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _PICKS_AT_ONCE // count)
    sizes = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    found = [statistic(rng.integers(count, size=(size, count))) for size in sizes]
    return cast(_Found, np.concatenate(found))


def bootstrap_means(values: Floats, seed: int | np.random.Generator = 0) -> Floats:
    """Return the mean of each of RESAMPLES resamples of values (N,)."""
    return bootstrap(len(values), lambda picks: values[picks].mean(axis=1), seed=seed)


def percentile_interval(values: Floats) -> tuple[float, float]:
    """Return the interval that holds 95 % of resampled values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_interval(values: Float[Tensor, " batch"], seed: int = 0) -> tuple[float, float]:
    """Return the percentile interval of the mean, over resampled images.

    Of a share take `binomial_interval`: however resampled, eight right answers of eight stay 1.
    """
    return percentile_interval(bootstrap_means(values.double().numpy(), seed))


def binomial_interval(right: int, images: int, miss: float = 0.05) -> tuple[float, float]:
    """Return the exact interval (Clopper & Pearson) of the share right / images.

    A share below its lower end gives as many or more with a chance below miss / 2, however few
    images.
    """
    from scipy.special import betaincinv

    low = 0.0 if right == 0 else float(betaincinv(right, images - right + 1, miss / 2))
    high = 1.0 if right == images else float(betaincinv(right + 1, images - right, 1 - miss / 2))
    return low, high


def least_share_interval(
    right: Sequence[int], images: Sequence[int]
) -> tuple[float, tuple[float, float]]:
    """Return the least of several shares right / images, and its interval.

    The interval holds the least of the true shares, whichever of them it is: each share's own is
    exact, with a chance to miss that is divided by their number (Bonferroni).
    """
    pairs = list(zip(right, images, strict=True))
    ends = [binomial_interval(some, of, 0.05 / len(pairs)) for some, of in pairs]
    least = min(some / of for some, of in pairs)
    return least, (min(low for low, _ in ends), min(high for _, high in ends))


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the mean of at least two values, by Student's t."""
    half = t_quantile(0.975, len(values) - 1) * standard_error(values)
    mean = float(np.mean(values))
    return mean - half, mean + half


def t_quantile(share: float, freedom: int) -> float:
    """Return below what a share of Student's t lies, at some degrees of freedom."""
    from scipy.special import stdtrit  # not scipy.stats, which takes half a second

    return float(stdtrit(freedom, share))


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of at least two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def paired_bootstrap(
    differences: Floats, resamples: int = TEST_RESAMPLES, seed: int = 0
) -> tuple[Floats, Floats]:
    """Test, column by column, whether the mean of paired differences (N, M) is zero.

    Returns the percentile intervals (M, 2), and the two-sided p-values (M,): how often a
    resample of the differences, shifted to mean zero, has a mean at least as far from zero as
    theirs; never below 1 / (resamples + 1), nor below what flipping the signs of the N'
    differences that are not zero can give, 2 ** (1 - N'). All columns see the same resamples.
    """
    rows, observed = len(differences), differences.mean(axis=0)

    def means_of(picks: Picks) -> Floats:
        offsets = np.arange(len(picks))[:, None] * rows
        times = np.bincount((picks + offsets).ravel(), minlength=picks.size).reshape(picks.shape)
        means: Floats = times @ differences / rows
        return means

    means = bootstrap(rows, means_of, resamples, seed)
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
