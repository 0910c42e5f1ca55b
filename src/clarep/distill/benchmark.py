"""What CaDistill costs over plain training of the same student, epoch beside epoch in one run."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.labelled import LabelledImages, class_balanced_choice, to_unit_range
from clarep.distill.distill_config import DistillConfig
from clarep.distill.student_run import StudentRun

METHODS_TIMED = ("vanilla", "cadistill")
_FEATURES = (160, 4, 4)  # of the bundled teacher at its middle


@dataclass(frozen=True)
class Timing:
    """One epoch of one method."""

    method: str
    """vanilla or cadistill."""
    epoch: int
    """From 1; the first warms up."""
    seconds: float
    """Of training alone; nothing is validated."""
    images_per_s: float
    """Training images a second."""
    loader_share: float
    """Share of the seconds spent on reading, views and canonical batches."""


def synthetic_set(data: LabelledImages, fraction: float, seed: int) -> CanonicalSet:
    """Return a set of the shapes of a real one: images of the data, features of noise.

    What a step costs does not depend on what the numbers say.
    """
    chosen = class_balanced_choice(data.labels, fraction, seed)
    generator = torch.Generator().manual_seed(seed)
    config = {
        "teacher_sha256": "none: synthetic",
        "class_names": list(data.class_names),
        "clarid": {"kind": "top", "guidance": 3.0},
        "chosen": chosen.tolist(),
        "data_sha256": data.sha256(chosen),
    }
    tensors = {
        "index": torch.from_numpy(chosen),
        "label": torch.from_numpy(data.labels[chosen]),
        "sample": to_unit_range(data.images(chosen)),
        "features": torch.randn(len(chosen), *_FEATURES, generator=generator),
    }
    return CanonicalSet(Path("synthetic"), {"config": config, "shards": []}, tensors)


def time_epochs(
    data: LabelledImages,
    canonical: CanonicalSet,
    student: str,
    config: DistillConfig,
    folder: Path,
) -> Iterator[Timing]:
    """Train by both methods in turn, an epoch each, yielding each epoch's timing.

    config: its epochs are those timed; one more goes before, to warm up. folder: an empty one.
    """
    config = replace(config, epochs=config.epochs + 1, validation_share=0.0, pick="last")
    runs = {
        method: StudentRun(
            data,
            folder / method,
            method=method,
            student=student,
            config=config,
            canonical=canonical,
        ).records()
        for method in METHODS_TIMED
    }
    for _ in range(config.epochs):
        for method, records in runs.items():
            record = next(records)
            names = ("epoch", "seconds", "images_per_s", "loader_share")
            yield Timing(method, *(record[name] for name in names))
    for records in runs.values():
        records.close()


def summarise(timings: list[Timing]) -> dict[str, Any]:
    """Return medians of each method over the epochs after the first, and the overhead's range.

    The overhead of an epoch is cadistill's seconds over those of the vanilla epoch before it.
    """
    timed = [timing for timing in timings if timing.epoch > 1]
    summary: dict[str, Any] = {}
    seconds = {}
    for method in METHODS_TIMED:
        mine = [timing for timing in timed if timing.method == method]
        seconds[method] = np.array([timing.seconds for timing in mine])
        summary[method] = {
            name: statistics.median(getattr(timing, name) for timing in mine)
            for name in ("seconds", "images_per_s", "loader_share")
        }
    ratios = seconds["cadistill"] / seconds["vanilla"]
    summary["overhead"] = {
        "median": float(np.median(ratios)),
        "lowest": float(ratios.min()),
        "highest": float(ratios.max()),
    }
    return summary
