"""The bootstrap, Holm and t against naive loops, scipy, and simulations of what they promise."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from clarep.engine import statistics
from clarep.engine.statistics import (
    bootstrap,
    bootstrap_interval,
    holm,
    least_share_difference,
    paired_bootstrap,
    t_interval,
)


def naive_holm(p_values):
    """Holm's rule, word by word: the i-th smallest of m times m - i + 1, never falling."""
    m = len(p_values)
    adjusted = [0.0] * m
    largest = 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_naive_loop(seed):
    rng = np.random.default_rng(seed)
    p_values = list(rng.random(rng.integers(1, 12)) ** 3)
    p_values += p_values[: seed % 3]  # ties
    assert holm(p_values) == pytest.approx(naive_holm(p_values), abs=1e-15)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_holds_the_family_wise_rate():
    rng = np.random.default_rng(0)
    families = rng.random((4000, 10))
    wrong = np.mean([min(holm(list(family))) < 0.05 for family in families])
    assert 0.038 < wrong < 0.062  # 0.0489 for independent tests


def test_resampled_means_are_the_naive_loop(monkeypatch):
    monkeypatch.setattr(statistics, "_PICKS_AT_ONCE", 70)  # ten resamples at once, then the rest
    values = np.random.default_rng(1).normal(size=(7, 3))
    means = bootstrap(7, lambda picks: values[picks].mean(axis=1), resamples=25, seed=5)
    rng = np.random.default_rng(5)
    expected = []
    for count in (10, 10, 5):
        for picks in rng.integers(7, size=(count, 7)):
            expected.append([sum(values[i, j] for i in picks) / 7 for j in range(3)])
    assert means == pytest.approx(np.array(expected), abs=1e-14)


def test_a_paired_interval_is_scipys():
    rng = np.random.default_rng(2)
    differences = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(300, 1))
    intervals, _ = paired_bootstrap(differences, resamples=20_000)
    theirs = stats.bootstrap(
        (differences[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=rng
    ).confidence_interval
    assert intervals[0] == pytest.approx([theirs.low, theirs.high], abs=0.008)


def test_a_paired_p_value_is_near_students_for_many_images():
    rng = np.random.default_rng(3)
    differences = rng.normal(size=(800, 8)) + np.linspace(0, 0.1, 8)
    _, p_values = paired_bootstrap(differences, resamples=20_000)
    expected = stats.ttest_1samp(differences, 0).pvalue
    assert p_values == pytest.approx(expected, abs=0.015)


def test_the_paired_test_errs_at_five_percent_where_nothing_differs():
    """Two students that are right on the same images but for some, by chance alone."""
    rng = np.random.default_rng(4)
    hard = rng.random((200, 1000))  # 200 images in each of 1,000 studies
    first, second = ((hard + 0.3 * rng.normal(size=hard.shape)) < 0.7 for _ in range(2))
    _, p_values = paired_bootstrap(first.astype(float) - second, resamples=1000)
    assert 0.035 < np.mean(p_values < 0.05) < 0.065  # 3 standard errors are 0.021


def test_intervals_cover_and_differences_are_found():
    rng = np.random.default_rng(5)
    probabilities = [0.05, 0.8, 0.15]  # worse, equal, better
    differences = rng.choice([-1.0, 0.0, 1.0], p=probabilities, size=(300, 1000))
    intervals, p_values = paired_bootstrap(differences, resamples=1000)
    low, high = intervals.T
    covered = (low <= 0.1) & (high >= 0.1)
    assert 0.925 < covered.mean() < 0.97
    assert np.mean(p_values < 0.05) > 0.95


def test_equal_columns_are_never_different():
    _, p_values = paired_bootstrap(np.zeros((50, 2)), resamples=200)
    assert p_values.tolist() == [1.0, 1.0]


def test_the_smallest_p_value_says_how_many_resamples_there_were():
    _, p_values = paired_bootstrap(np.ones((50, 1)), resamples=199)
    assert p_values[0] == 1 / 200


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    values = torch.from_numpy(np.random.default_rng(6).normal(size=40))
    first, again, other = (bootstrap_interval(values, seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_t_interval_is_scipys(count):
    values = list(np.random.default_rng(count).normal(size=count))
    expected = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_no_p_value_is_below_what_so_few_differences_can_tell(count):
    differences = np.zeros((40, 1))
    differences[:count] = 0.25
    _, (p,) = paired_bootstrap(differences)
    exact = stats.binomtest(count, count, 0.5).pvalue  # all of them on one side
    assert p >= exact
    _, (alone,) = paired_bootstrap(differences[:count])
    assert alone == pytest.approx(exact)


def test_the_bootstrap_interval_is_about_the_normal_one():
    values = 3 + 2 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap_interval(values)
    half = 1.96 * float(values.std(correction=0)) / math.sqrt(400)
    centre = float(values.mean())
    assert low == pytest.approx(centre - half, abs=0.15 * half)
    assert high == pytest.approx(centre + half, abs=0.15 * half)
    assert bootstrap_interval(values) == (low, high)


def test_the_least_share_against_a_loop_over_resamples():
    rng = np.random.default_rng(6)
    groups = rng.permutation(np.repeat([0, 1, 2, -1], [20, 30, 50, 10]))
    first = rng.random((2, 110)) < np.where(groups == 1, 0.3, 0.8)
    second = rng.random((3, 110)) < 0.8
    first[:, groups == -1] = False

    def least(right, members):
        return np.mean([min(run[at].mean() for at in members) for run in right])

    members = [np.flatnonzero(groups == group) for group in range(3)]
    wanted = least(first, members) - least(second, members)
    found = []
    for _ in range(2000):
        drawn = [rng.choice(at, len(at)) for at in members]
        found.append(least(first, drawn) - least(second, drawn))
    value, (low, high), p_value = least_share_difference(first, second, groups)
    assert value == pytest.approx(wanted) and p_value < 0.01
    ends = np.quantile(found, [0.975, 0.025])
    assert (low, high) == pytest.approx(tuple(2 * wanted - ends), abs=0.02)
    back = least_share_difference(second, first, groups)
    assert back[0] == pytest.approx(-value) and back[2] == pytest.approx(p_value, abs=0.003)
    same = least_share_difference(first, first, groups)
    assert same == (0.0, (0.0, 0.0), 1.0)


def test_the_test_of_the_least_share_errs_at_most_at_five_percent():
    """One bad group, not the same one; and groups that are all alike."""
    rng, sizes = np.random.default_rng(7), [50] * 6
    groups = np.repeat(np.arange(6), sizes)
    for shares in ([0.4] + [0.8] * 5, [0.75] * 6):
        found = []
        for _ in range(200):
            pair = [rng.random((1, 300)) < np.array(s)[groups] for s in (shares, shares[::-1])]
            found.append(least_share_difference(*pair, groups, resamples=300)[2])
        assert np.mean(np.array(found) < 0.05) < 0.1  # 3 standard errors above 0.05


def test_few_images_cannot_be_significant_however_they_are_resampled():
    right, groups = np.ones((1, 40), np.bool_), np.repeat([0, 1], [35, 5])
    wrong = right.copy()
    wrong[0, 35:] = False
    value, _, p_value = least_share_difference(wrong, right, groups)
    assert value == -1 and p_value == 0.5**4
