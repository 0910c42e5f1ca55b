"""What is made of all parts together: means over corruptions, worst cases, doubts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from clarep.robustness.attacks.curves import WORST
from clarep.robustness.corruptions.mce import mean_accuracy, mean_corruption_error
from clarep.robustness.evaluation import Evaluation, Measured, Measurement, mean_of
from clarep.robustness.suite.attack_parts import AUTOATTACK, key_of, radii
from clarep.robustness.suite.suite_inputs import SuiteInputs


def joined(inputs: SuiteInputs, parts: Iterable[Evaluation]) -> Measured:
    """Return the evaluation's figures and arrays from those of all its parts."""
    figures: dict[str, Measurement] = {}  # an attack's may have been measured anew
    arrays: dict[str, Tensor] = {}
    answers = inputs.answers
    doubts = [] if answers is None else [(f"{at}*", why) for at, why in answers.doubts.items()]
    for part in parts:
        figures |= {one.key: one for one in part.measurements}
        for key, values in part.arrays.items():
            name, _, _ = key.rpartition("/")
            if not name.startswith(AUTOATTACK):
                arrays[key] = values
                continue
            before = arrays.get(name, values[:0])  # the batches come one after another
            arrays[name] = torch.cat([before, values])
            figures[name] = mean_of(name, arrays[name])
        doubts += part.config.get("doubts", {}).items()
    if "corruptions" in inputs.config.groups:
        more = corruption_means(inputs, arrays)
        figures |= {one.key: one for one in more.measurements}
        arrays |= more.arrays
    for key, right in worst_cases(inputs, arrays).items():
        arrays[key] = right
        figures[key] = replace(mean_of(key, right), note=figures[key].note)
    return Measured(doubted(figures.values(), doubts), arrays)


def is_joined(key: str) -> bool:
    """Tell whether a figure is of several parts, none of which holds it alone."""
    return key == "corruption/mean" or key.startswith(AUTOATTACK)


def corruption_means(inputs: SuiteInputs, arrays: Mapping[str, Tensor]) -> Measured:
    """Return mean accuracy over all corruptions, and mCE if there is a baseline."""
    config, baseline = inputs.config, inputs.baseline
    correct = {
        name: torch.stack(
            [arrays[f"corruption/{name}/severity={at}"].bool() for at in config.severities]
        )
        for name in config.corruptions
    }
    joint = {"corruption/mean": mean_accuracy(correct).float()}
    measurements = [mean_of(key, values) for key, values in joint.items()]
    if baseline is not None:
        values = joint["corruption/mce"] = mean_corruption_error(correct, baseline).float()
        errors = fmean(baseline.errors[name] for name in config.corruptions)
        note = f"relative to the errors of {baseline.name}, {errors:.4f} in the mean"
        measurements.append(replace(mean_of("corruption/mce", values), note=note))
    return Measured(measurements, joint)


def worst_cases(inputs: SuiteInputs, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the worst case of each image with AutoAttack and all smaller radii counted."""
    worst: dict[str, Tensor] = {}
    for norm in ("linf", "l2"):
        right: Tensor | None = None
        for threat in radii(inputs, norm):
            for name in (WORST, "autoattack"):
                now = arrays.get(key_of(name, threat))
                if now is not None:
                    right = now if right is None else torch.minimum(right, now)
            if right is not None and key_of(WORST, threat) in arrays:
                worst[key_of(WORST, threat)] = right
    return worst


def doubted(
    measurements: Iterable[Measurement], doubts: Iterable[tuple[str, str]]
) -> list[Measurement]:
    """Put doubts (pattern of keys, and why no such figure can be trusted) to the figures' own."""
    result = []
    for one in measurements:
        matching = [why for keys, why in doubts if fnmatchcase(one.key, keys)]
        reasons = dict.fromkeys(filter(None, [one.untrustworthy, *matching]))
        result.append(replace(one, untrustworthy="; ".join(reasons)))
    return result


def cost_of(parts: Sequence[Evaluation]) -> dict[str, Any]:
    """Add up the costs of the parts of each group."""
    seconds: dict[str, float] = {}
    passes: dict[str, int] = {}
    for part in parts:
        group, cost = part.config["part"].split("/")[0], part.config["cost"]
        seconds[group] = round(seconds.get(group, 0.0) + cost["seconds"], 3)
        passes[group] = passes.get(group, 0) + cost["forward_passes"]
    peak = max(part.config["cost"]["peak_memory_mb"] for part in parts)
    return {"seconds": seconds, "forward_passes": passes, "peak_memory_mb": peak}
