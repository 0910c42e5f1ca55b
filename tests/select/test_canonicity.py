"""The rule that chooses t and k, on planted curves."""

import numpy as np
import pytest

from clarep.select.canonicity import SURELY, TOLD, Point, choose, kept, share_kept


def images(mean: float, count: int, seed: int = 0, spread: float = 0.1) -> np.ndarray:
    """Evidence of `count` images about a mean; those of a seed go up and down together."""
    return mean + spread * np.random.default_rng(seed).uniform(-1, 1, count)


def curve(t: float, before: float, after: dict[int, float], count: int = 150, tap: str = "mid"):
    """A point for k = 0 and each k, whose latents hold these means of evidence."""
    levels = {0: before} | after
    return [
        Point(t, tap, k, {"posterior": images(mean, count)}, extraneous=1 / (1 + k))
        for k, mean in levels.items()
    ]


def test_the_highest_t_then_the_largest_k_that_keeps_the_class():
    found = choose(
        [
            *curve(0.3, 0.8, {4: 0.8, 8: 0.8, 16: 0.8}),
            *curve(0.6, 0.79, {4: 0.79, 8: 0.78, 16: 0.5}),
            *curve(0.9, 0.4, {4: 0.4, 8: 0.4, 16: 0.4}),
        ]
    )
    assert found.stands
    assert found.where() == {"t": 0.6, "tap": "mid", "k": 8}
    assert "t = 0.9 keeps 0.50" in found.reason
    assert "k = 16 keeps 0.6" in found.reason
    assert (found.cleanest.t, found.cleanest.k) == (0.3, 16)  # at a lower t more can be taken out
    assert "t = 0.3, tap mid, k = 16 keeps the class too" in found.reason


def test_a_k_beyond_one_that_fails_is_not_taken():
    found = choose(curve(0.3, 0.8, {4: 0.8, 8: 0.4, 16: 0.8}))
    assert found.where()["k"] == 4


def test_a_t_beyond_one_that_fails_is_not_taken():
    held = {0.3: 0.8, 0.5: 0.4, 0.7: 0.8}
    found = choose([point for t, mean in held.items() for point in curve(t, mean, {4: mean})])
    assert found.where()["t"] == 0.3


def test_where_no_k_stands_at_the_highest_t_a_lower_one_is_taken():
    found = choose([*curve(0.3, 0.8, {4: 0.8}), *curve(0.6, 0.8, {4: 0.3})])
    assert found.stands
    assert found.where() == {"t": 0.3, "tap": "mid", "k": 4}
    assert "t = 0.6 holds it without" in found.reason


def test_where_none_stands_the_least_harmful_is_named():
    found = choose([*curve(0.3, 0.8, {4: 0.5, 8: 0.4}), *curve(0.6, 0.8, {4: 0.6, 8: 0.3})])
    assert not found.stands
    assert found.where() == {"t": 0.6, "tap": "mid", "k": 4}
    assert "least harmful" in found.reason


def test_a_teacher_that_does_not_read_the_class_is_refused():
    found = choose(curve(0.3, 0.0, {4: 0.0}))
    assert not found.stands
    assert found.chosen is None
    assert set(found.where().values()) == {None}
    assert "nothing is recommended" in found.reason


def test_of_two_taps_the_one_that_leaves_less():
    wide = curve(0.3, 0.8, {4: 0.8, 8: 0.8}, tap="wide")
    found = choose([*curve(0.3, 0.8, {4: 0.8, 8: 0.3}), *wide])
    assert found.where() == {"t": 0.3, "tap": "wide", "k": 8}


def test_every_reader_must_still_find_the_class():
    before = {"posterior": images(0.8, 150), "null_right": images(0.6, 150)}
    told = {TOLD: images(0.9, 150)}
    lost = before | {"null_right": images(0.3, 150)}
    points = [Point(0.3, "mid", 0, before | told), Point(0.3, "mid", 4, before | told)]
    assert choose([*points, Point(0.3, "mid", 8, lost | told)]).where()["k"] == 4
    drawn = before | {TOLD: images(0.2, 150)}
    assert choose([*points, Point(0.3, "mid", 8, drawn)]).where()["k"] == 4
    # Whether samples drawn with the label are of it says nothing of how high t may be.
    higher = [Point(0.6, "mid", k, before | {TOLD: images(0.2, 150)}) for k in (0, 4)]
    assert choose([*points, *higher]).where()["t"] == 0.6


def test_an_image_that_a_reader_says_nothing_of_does_not_count():
    before, after = images(0.8, 150), images(0.8, 150)
    after[3] = np.nan
    assert kept({"a": before}, {"a": after}).stands


@pytest.mark.parametrize("mean", [0.05, 0.5, 0.9])
def test_fewer_images_are_stricter(mean):
    """Of images that lose nothing, the fewer there are the less is surely kept."""
    lows = [share_kept(np.full(n, mean), np.full(n, mean))[1] for n in range(2, 80)]
    assert np.all(np.diff(lows) > 0)
    assert lows[10 - 2] < SURELY < lows[20 - 2]


def test_few_images_choose_nothing_and_say_so():
    found = choose(curve(0.3, 0.8, {4: 0.8}, count=10))
    assert not found.stands
    assert "take more" in found.reason


@pytest.mark.parametrize("true_share", [0.7, 0.8])
@pytest.mark.parametrize("count", [10, 40, 150])
def test_what_loses_more_than_allowed_hardly_ever_passes(true_share, count):
    """Of images of which some lose all, at the edge of the rule: at most one trial in twenty."""
    passed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        before = rng.uniform(0.5, 1, count)
        after = before * (rng.random(count) < true_share)
        passed += kept({"a": before}, {"a": after}).stands
    assert passed <= 300 * 0.06


@pytest.mark.parametrize("count", [40, 150])
def test_the_limit_covers(count):
    """The true ratio of the means lies above the limit in at least 95 of 100 trials."""
    below = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        before = rng.normal(0.6, 0.4, count)
        after = 0.7 * before + rng.normal(0, 0.3, count)
        below += share_kept(before, after)[1] <= 0.7
    assert below >= 400 * 0.93


def test_a_mean_that_loses_more_than_a_tenth_never_stands():
    """However many images make it sure that it loses less than a fifth."""
    before = images(0.6, 5000)
    assert share_kept(before, 0.88 * before)[1] > SURELY
    assert not kept({"a": before}, {"a": 0.88 * before}).stands
    assert kept({"a": before}, {"a": 0.92 * before}).stands


def test_a_large_sample_finds_the_ratio():
    before = images(0.6, 100_000)
    share, low = share_kept(before, 0.95 * before)
    assert share == pytest.approx(0.95)
    assert low == pytest.approx(0.95, abs=1e-3)
