"""How fast shards are made by one process and by workers, and what that means for many GPUs."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from clarep.clarid.clarid import Clarid
from clarep.clarid.identify import identify_steps
from clarep.data.labelled import LabelledImages
from clarep.engine.bounds import Within
from clarep.engine.fan_out import EngineConfig


def time_shards(
    clarid: Clarid,
    data: LabelledImages,
    folder: Path,
    chosen: NDArray[np.int64],
    *,
    shard_size: int,
    engine: EngineConfig,
) -> dict[str, float]:
    """Make a set and return what it took.

    first_seconds: until the first shard is there, with all that is loaded and started before.
    images_per_s: from when each worker has made one shard to the end, so that it tells what a long
    run does; as many shards a worker make it exact.
    """
    workers, ends = engine.workers or 1, list[float]()
    steps = identify_steps(clarid, data, folder, chosen, shard_size=shard_size, engine=engine)
    next(steps)
    started = time.perf_counter()
    for step in steps:
        ends.append(time.perf_counter() - started)
        if step.done == step.total:  # what comes then is the same for all engines
            break
    images = shard_size * (len(ends) - workers)
    return {
        "first_seconds": round(ends[0], 3),
        "images_per_s": images / (ends[-1] - ends[workers - 1]),
    }


def compared_rates(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return medians over rounds, in each of which every engine was timed once.

    Ratios are taken within a round, as a machine's other work changes from one to the next.
    overhead: time of an image on one worker over that here, less 1. speed_up: rate of two workers
    over that of one.
    """

    def middle(values: Sequence[float]) -> dict[str, float]:
        three = {"median": median(values), "lowest": min(values), "highest": max(values)}
        return {name: round(value, 4) for name, value in three.items()}

    rates = {name: [one[name]["images_per_s"] for one in rounds] for name in rounds[0]}
    found: dict[str, Any] = {"images_per_s": {name: middle(rate) for name, rate in rates.items()}}
    of_one, of_two, here = rates["ray 1"], rates["ray 2"], rates["local"]
    found["overhead"] = middle([a / b - 1 for a, b in zip(here, of_one, strict=True)])
    found["speed_up"] = middle([b / a for a, b in zip(of_one, of_two, strict=True)])
    found["two_workers_over_local"] = middle([b / a for a, b in zip(here, of_two, strict=True)])
    waits = [one["ray 1"]["first_seconds"] - one["local"]["first_seconds"] for one in rounds]
    found["start_seconds"] = middle(waits)
    return found


@dataclass(frozen=True)
class Projection:
    """Assumptions of the calculation for many GPUs; the defaults are DiT-XL/2's on H100s."""

    total_images: Annotated[int, Within(1)] = 128_000
    """Images of the set: a tenth of ImageNet."""
    image_seconds: Annotated[float, Within(0, ends="(]")] = 6.3
    """GPU seconds an image, all in: measured with DiT-XL/2 at 256 pixels on one H100."""
    shard_images: Annotated[int, Within(1)] = 50
    """Images a shard: what a worker takes at a time."""
    load_seconds: Annotated[float, Within(0)] = 120.0
    """Until a worker has its weights and its first shard begins; all load at once."""
    shard_mb: Annotated[float, Within(0)] = 100.0
    """Megabytes of a shard."""
    write_mb_per_s: Annotated[float, Within(0, ends="(]")] = 1000.0
    """Megabytes a second that the shared store takes, from all workers together."""
    straggling: Annotated[float, Within(0)] = 0.05
    """Share by which the slowest worker is behind the mean one, in the last round."""
    driver_seconds: Annotated[float, Within(0)] = 600.0
    """Of what the driver does alone: findings, pictures, the table of controls."""


def projected(assumed: Projection, gpus: Sequence[int]) -> list[dict[str, Any]]:
    """Return hours and the share of ideal speed for each number of GPUs.

    hours: (what the driver does alone) + (loading) + (rounds of shards) * (seconds of a shard) +
    (the last round's straggler), or what writing takes where that is longer. Rounds are whole:
    shards over GPUs, rounded up.
    """
    shards = math.ceil(assumed.total_images / assumed.shard_images)
    shard_seconds = assumed.shard_images * assumed.image_seconds
    written = shards * assumed.shard_mb / assumed.write_mb_per_s
    rows = []
    for count in gpus:
        made = math.ceil(shards / count) * shard_seconds + assumed.straggling * shard_seconds
        seconds = assumed.driver_seconds + assumed.load_seconds + max(made, written)
        ideal = assumed.total_images * assumed.image_seconds / count
        rows.append(
            {"gpus": count, "hours": round(seconds / 3600, 2), "share": round(ideal / seconds, 3)}
        )
    return rows
