"""The parts of the robustness suite: what each measures, and on which images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.labelled import LabelledImages
from clarep.robustness.backgrounds import (
    background_measures,
    example_arrays,
    first_of_each_class,
)
from clarep.robustness.calibration import calibration
from clarep.robustness.corruptions import corrupt
from clarep.robustness.evaluation import Measured, mean_of
from clarep.robustness.focus import IG_STEPS, focus_measures, saliency_maps
from clarep.robustness.images_read import chosen_for_focus
from clarep.robustness.ood import auroc, max_softmax
from clarep.robustness.suite.attack_parts import attack_parts
from clarep.robustness.suite.context import BACKWARD, Bench, Part
from clarep.robustness.suite.natural_sets import BeyondSet
from clarep.robustness.tested_student import batches, choose_images, found_at, named


def clean_parts(bench: Bench) -> list[Part]:
    """Return the part that measures accuracy as it is."""

    def measure() -> Measured:
        clean = bench.clean
        right = (clean["probabilities"].argmax(dim=1) == clean["label"]).float()
        return [mean_of("clean/accuracy", right)], clean | {"clean/accuracy": right}

    return [Part("clean", len(bench.indices), {"images": bench.config.images}, measure)]


def calibration_parts(bench: Bench) -> list[Part]:
    """Return the part that measures whether confidence is what it says."""

    def measure() -> Measured:
        return calibration(bench.clean["probabilities"], bench.clean["label"])

    return [Part("calibration", len(bench.indices), {"images": bench.config.images}, measure)]


def background_parts(bench: Bench) -> list[Part]:
    """Return the part that swaps backgrounds; none where no foreground is known."""
    parts, config = bench.separated, bench.config
    if parts is None:
        return []

    def measure() -> Measured:
        measurements, arrays = background_measures(
            bench.subject, parts, config.images, config.flip_backdrops, config.seed
        )
        if parts.paired:
            shown = first_of_each_class(parts.variants["original"], parts.usable)
            arrays |= example_arrays(bench.subject, parts, shown)
            if bench.has_gradient:
                original = arrays["examples/original"]
                arrays["examples/saliency"] = saliency_maps(bench.subject, original)
        return measurements, arrays

    passes = len(bench.indices) * (len(parts.variants) + config.flip_backdrops)
    settings = {"images": config.images, "flip_backdrops": config.flip_backdrops}
    return [Part("backgrounds", passes, settings, measure)]


def focus_parts(bench: Bench) -> list[Part]:
    """Return the part that asks where the student looks; none where no foreground is known."""
    parts, config = bench.separated, bench.config
    if parts is None or parts.masks is None:
        return []
    indices = chosen_for_focus(parts, config)

    def measure() -> Measured:
        return focus_measures(bench.subject, parts, indices)

    passes = len(indices) * (1 + BACKWARD * (1 + IG_STEPS))
    return [Part("focus", passes, {"focus_images": config.focus_images}, measure)]


def corruption_parts(bench: Bench) -> list[Part]:
    """Return a part for each corruption."""
    config = bench.config
    indices = bench.choose(config.corruption_images)
    settings: dict[str, Any] = {
        "corruption_images": config.corruption_images,
        "severities": list(config.severities),
    }

    def part(name: str) -> Part:
        def measure() -> Measured:
            return corruption_measures(bench, name, indices)

        passes = 2 * len(indices) * len(config.severities)  # half of it for the corruption
        sets = {} if bench.official is None else bench.official[name]
        read = {"official": {str(at): found_at(sets[at], indices) for at in sets}} if sets else {}
        return Part(f"corruptions/{name}", passes, settings | read, measure)

    return [part(name) for name in config.corruptions]


def corruption_measures(bench: Bench, name: str, indices: NDArray[np.int64]) -> Measured:
    """Return accuracy under a corruption at each severity, and their mean."""
    labels = torch.from_numpy(bench.data.labels[indices])
    arrays: dict[str, Tensor] = {}
    for severity in bench.config.severities:
        right, first = [], 0
        for part in batches(indices):
            if bench.official is None:
                clean = bench.data.images(part)
                images = corrupt(clean, name, severity, bench.config.seed, first)
            else:
                images = bench.official[name][severity].images(part)
            predicted = bench.subject.predict(images, named(bench.data, part))
            right.append(predicted == labels[first : first + len(part)])
            first += len(part)
        arrays[f"corruption/{name}/severity={severity}"] = torch.cat(right).float()
    arrays[f"corruption/{name}/mean"] = torch.stack(list(arrays.values())).mean(dim=0)
    return [mean_of(key, values) for key, values in arrays.items()], arrays


def ood_parts(bench: Bench) -> list[Part]:
    """Return a part for each set of images that are of none of the student's classes."""
    config = bench.config

    def part(name: str, data: LabelledImages) -> Part:
        indices = choose_images(data.labels, config.images, config.seed)

        def measure() -> Measured:
            outside = max_softmax(bench.subject.both_at(data, indices)[1]).float()
            inside = bench.clean["probabilities"].amax(dim=1)
            found = auroc(name, inside, outside)
            return [found], {f"ood/{name}/confidence": outside}

        settings = {"images": config.images, "ood": found_at(data, indices)}
        return Part(f"ood/{name}", len(indices), settings, measure)

    return [part(name, data) for name, data in bench.ood.items()]


def beyond_parts(bench: Bench) -> list[Part]:
    """Return a part for each natural test set beyond the student's own."""
    return [_beyond_part(bench, one) for one in bench.beyond]


def _beyond_part(bench: Bench, one: BeyondSet) -> Part:
    key, config = f"beyond/{one.name}/accuracy", bench.config
    chosen = choose_images(one.images.labels, config.images, config.seed)

    def measure() -> Measured:
        correct, kept = one.correct(bench.subject.both_at(one.images, chosen)[1], chosen)
        arrays = {key: correct.float(), f"beyond/{one.name}/index": torch.from_numpy(kept)}
        return [mean_of(key, arrays[key])], arrays

    settings = {"images": config.images, "beyond": one.fingerprint(chosen)}
    return Part(f"beyond/{one.name}", len(chosen), settings, measure)


_PARTS: dict[str, Callable[[Bench], list[Part]]] = {
    "clean": clean_parts,
    "calibration": calibration_parts,
    "backgrounds": background_parts,
    "focus": focus_parts,
    "attacks": attack_parts,
    "corruptions": corruption_parts,
    "ood": ood_parts,
}


def parts_of_groups(bench: Bench) -> dict[str, list[Part]]:
    """Return the parts of each group asked for, in the order of measuring.

    A group is empty where the data, or the settings, have nothing to measure for it.
    """
    return {name: make(bench) for name, make in _PARTS.items() if name in bench.config.groups}


def sets_of(parts: Sequence[Part]) -> dict[str, dict[str, Any]]:
    """Return what was measured beside the data, of ood and beyond: name of a set -> its content."""
    return {
        group: {
            part.name.partition("/")[2]: part.settings[group]
            for part in parts
            if group in part.settings
        }
        for group in ("ood", "beyond")
    }
