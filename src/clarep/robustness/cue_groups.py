"""What a spurious cue does to a student's answer, where data know the cue in each image."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.cues import NO_CUE, group_numbers
from clarep.data.labelled import LabelledImages
from clarep.engine.statistics import least_share_interval
from clarep.robustness.evaluation import Measured, Measurement, mean_of
from clarep.robustness.tested_student import Subject, right_at

FEWEST = 5
"""Images of a group that is measured by itself: the accuracy of fewer is hardly one."""


def group_measures(
    right: Bool[Tensor, " images"], labels: NDArray[np.int64], cues: NDArray[np.int64]
) -> Measured:
    """Return worst-group accuracy, and the accuracy where the cue goes with another class.

    right, labels, cues: of each test image. What no image, or no group, is there for is left out.
    """
    measurements, arrays = [], {"clean/cue": torch.from_numpy(cues)}
    groups = merged_groups(labels, cues)
    sizes = np.bincount(groups[groups >= 0])
    if len(sizes):
        hits = np.bincount(groups[groups >= 0], weights=right.numpy()[groups >= 0])
        worst, interval = least_share_interval(hits.astype(int).tolist(), sizes.tolist())
        note = f"{len(sizes)} groups, the smallest of {sizes.min()} images"
        measurements.append(
            Measurement("clean/worst_group", worst, interval, int(sizes.sum()), note=note)
        )
    conflicting = (cues != labels) & (cues != NO_CUE)
    if conflicting.any():
        arrays["clean/conflicting"] = right[torch.from_numpy(conflicting)].float()
        measurements.append(mean_of("clean/conflicting", arrays["clean/conflicting"]))
    return Measured(measurements, arrays)


def cue_measures(
    subject: Subject, sets: Mapping[str, LabelledImages], indices: NDArray[np.int64]
) -> Measured:
    """Return the accuracy with the class's own cue, a random one and none, and what is lost.

    sets: the same images as `own`, `random` and `none`, or some of these. indices: which of them.
    """
    arrays = {f"clean/cue_{name}": right_at(subject, data, indices) for name, data in sets.items()}
    if {"own", "random"} <= set(sets):
        arrays["clean/cue_gap"] = arrays["clean/cue_own"] - arrays["clean/cue_random"]
    return Measured([mean_of(key, values) for key, values in arrays.items()], arrays)


def merged_groups(
    labels: NDArray[np.int64], cues: NDArray[np.int64], fewest: int = FEWEST
) -> NDArray[np.int64]:
    """Return the group of each image, (N,), numbered from 0; -1 for those that are in none.

    A group is a class and a cue. A class's groups of fewer than `fewest` images are one together,
    which is none where it has fewer, too.
    """
    groups = group_numbers(labels, cues)
    small = np.bincount(groups)[groups] < fewest
    merged = np.where(small, groups.max() + 1 + labels, groups)
    _, numbers, sizes = np.unique(merged, return_inverse=True, return_counts=True)
    kept = sizes >= fewest
    renumbered = np.where(kept, np.cumsum(kept) - 1, -1)
    return np.asarray(renumbered[numbers.reshape(-1)], np.int64)
