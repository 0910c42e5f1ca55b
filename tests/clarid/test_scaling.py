"""The calculation for many GPUs beside a simulation, and what is made of timed rounds."""

import heapq
import math

import pytest

from clarep.clarid.scaling import Projection, compared_rates, projected

NOTHING_ELSE = {
    "load_seconds": 0.0,
    "straggling": 0.0,
    "driver_seconds": 0.0,
    "shard_mb": 0.0,
}


def simulated(assumed: Projection, gpus: int) -> float:
    """Seconds until the last shard is made, each taken by the first worker that is free."""
    free = [assumed.load_seconds] * gpus
    for _ in range(math.ceil(assumed.total_images / assumed.shard_images)):
        heapq.heappush(free, heapq.heappop(free) + assumed.shard_images * assumed.image_seconds)
    return max(free)


@pytest.mark.parametrize("load_seconds", [0.0, 500.0])
def test_rounds_of_shards_are_those_of_a_simulation(load_seconds):
    assumed = Projection(**NOTHING_ELSE | {"load_seconds": load_seconds}, total_images=10_000)
    for row in projected(assumed, [1, 7, 8, 150, 200, 512]):
        expected = simulated(assumed, int(row["gpus"])) / 3600
        assert row["hours"] == pytest.approx(expected, abs=0.006)


def test_without_anything_else_a_divisor_of_the_shards_is_ideal():
    rows = projected(Projection(**NOTHING_ELSE), [1, 8, 512])
    assert [row["share"] for row in rows] == [1, 1, 1]
    assert rows[0]["hours"] == 224


def test_a_slow_store_bounds_it():
    assumed = Projection(**NOTHING_ELSE | {"shard_mb": 100.0}, write_mb_per_s=10.0)
    assert projected(assumed, [512])[0]["hours"] == round(2560 * 10 / 3600, 2)


def test_ratios_are_taken_within_a_round():
    """A machine that is twice as slow in the second round changes none."""
    rates = {"local": 10.0, "ray 1": 8.0, "ray 2": 16.0}
    rounds = [
        {name: {"images_per_s": rate / slow, "first_seconds": 1.0} for name, rate in rates.items()}
        for slow in (1, 2)
    ]
    found = compared_rates(rounds)
    same = {"lowest": 0.25, "median": 0.25, "highest": 0.25}
    assert found["overhead"] == same and found["speed_up"]["median"] == 2
    assert found["two_workers_over_local"]["median"] == 1.6
    assert found["images_per_s"]["local"] == {"median": 7.5, "lowest": 5.0, "highest": 10.0}
