"""What is made of several parts together: means over corruptions, worst cases, doubts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

from clarep.robustness.attacks.curves import WORST
from clarep.robustness.corruptions import mean_accuracy, mean_corruption_error
from clarep.robustness.evaluation import Measured, Measurement, mean_of
from clarep.robustness.suite.attack_parts import CHECK, key_of, radii
from clarep.robustness.suite.context import Bench


def joined(bench: Bench, measurements: list[Measurement], arrays: dict[str, Tensor]) -> Measured:
    """Return the evaluation's figures and arrays from those of all its parts."""
    groups = bench.config.groups
    if "corruptions" in groups:
        more, more_arrays = corruption_means(bench, arrays)
        measurements, arrays = measurements + more, arrays | more_arrays
    if "attacks" in groups:
        arrays = arrays | worst_cases(bench, arrays)
        measurements = [
            replace(mean_of(one.key, arrays[one.key], one.untrustworthy), note=one.note)
            if f"/{WORST}-" in one.key
            else one
            for one in measurements
        ]
    doubts = {} if bench.answers is None else bench.answers.doubts
    return doubted(measurements, doubts), arrays


def corruption_means(bench: Bench, arrays: Mapping[str, Tensor]) -> Measured:
    """Return mean accuracy over all corruptions, and mCE if there is a baseline."""
    config = bench.config
    correct = {
        name: torch.stack(
            [arrays[f"corruption/{name}/severity={severity}"] for severity in config.severities]
        ).bool()
        for name in config.corruptions
    }
    joint: dict[str, Tensor] = {"corruption/mean": mean_accuracy(correct).float()}
    measurements = [mean_of("corruption/mean", joint["corruption/mean"])]
    if bench.baseline is not None:
        values = mean_corruption_error(correct, bench.baseline).float()
        joint["corruption/mce"] = values
        errors = [bench.baseline.errors[name] for name in config.corruptions]
        note = f"relative to the errors of {bench.baseline.name}, {fmean(errors):.4f} in the mean"
        measurements.append(replace(mean_of("corruption/mce", values), note=note))
    return measurements, joint


def worst_cases(bench: Bench, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the worst case of each image with AutoAttack and all smaller radii counted."""
    worst: dict[str, Tensor] = {}
    for norm in ("linf", "l2"):
        right: Tensor | None = None
        for threat in radii(bench, norm):
            for name in (WORST, "autoattack"):
                now = arrays.get(key_of(name, threat))
                if now is not None:
                    right = now if right is None else torch.minimum(right, now)
            if right is not None and key_of(WORST, threat) in arrays:
                worst[key_of(WORST, threat)] = right
    return worst


def doubted(
    measurements: Sequence[Measurement], of_all: Mapping[str, str] | None = None
) -> list[Measurement]:
    """Put what the masking checks of a norm found to every attack's figure of that norm.

    of_all: beginning of a key -> why all such figures must not be trusted.
    """
    doubts = {
        one.key.removeprefix(CHECK): one.untrustworthy
        for one in measurements
        if one.key.startswith(CHECK)
    }
    result = []
    for one in measurements:
        if one.key.startswith(CHECK):
            continue
        norm = one.key.split("/")[1].rpartition("-")[2] if one.key.startswith("attack/") else ""
        general = [why for start, why in (of_all or {}).items() if one.key.startswith(start)]
        reasons = [*general, one.untrustworthy, doubts.get(norm, "")]
        result.append(replace(one, untrustworthy="; ".join(filter(None, reasons))))
    return result
