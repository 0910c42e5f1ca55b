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


def least_share_difference(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    groups: Picks,
    resamples: int = TEST_RESAMPLES,
    seed: int = 0,
) -> tuple[float, tuple[float, float], float]:
    """Test whether the least share over groups is the same, of images that both have in common.

    Images are resampled within their groups, the same ones for both; the interval is the basic
    one, that of the observed difference less the resamples' error. The p-value, two-sided, is how
    often that error is as large as the difference, with the floors of `paired_bootstrap`. A least
    share of noisy ones lies too low, the more so the more groups are about equally bad: where one
    has a single bad group and the other many, the test is too sure.

    Args:
        first, second: what is right, (runs, N); the runs' least shares are averaged.
        groups: of each image, (N,), from 0; -1 for images that are in none.

    Returns:
        The difference first minus second, its interval, and the p-value.
    """
    both, rng = np.concatenate([first, second]).astype(float), np.random.default_rng(seed)
    observed = np.ones(len(both))
    drawn = np.ones((resamples, len(both)))
    for group in range(int(groups.max()) + 1):
        right = both[:, groups == group]  # (runs, members)
        size = right.shape[1]
        times = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
        observed = np.minimum(observed, right.mean(axis=1))
        drawn = np.minimum(drawn, times @ right.T / size)
    runs = len(first)
    value = float(observed[:runs].mean() - observed[runs:].mean())
    found = drawn[:, :runs].mean(axis=1) - drawn[:, runs:].mean(axis=1)
    low, high = percentile_interval(found)
    # A rounding error must not tell a resample of equal values from what was observed.
    as_far = np.abs(found - value) >= abs(value) - 1e-12
    differing = np.count_nonzero((first.mean(axis=0) != second.mean(axis=0)) & (groups >= 0))
    p_value = max((1 + as_far.sum()) / (1 + resamples), min(1.0, 0.5 ** (differing - 1)))
    return value, (2 * value - high, 2 * value - low), float(p_value)


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
