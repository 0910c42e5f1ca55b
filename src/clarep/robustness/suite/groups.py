"""The groups of the robustness suite: the parts of each, what they measure, on which images."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.cues import GroupedImages, cues_of
from clarep.data.labelled import LabelledImages
from clarep.data.sets.natural import NaturalSet
from clarep.robustness.backgrounds import background_measures, example_arrays, first_of_each_class
from clarep.robustness.calibration import auroc, calibration, max_softmax
from clarep.robustness.corruptions.by_name import corrupt
from clarep.robustness.cue_groups import cue_measures, group_measures
from clarep.robustness.evaluation import Measured, mean_of
from clarep.robustness.focus import IG_STEPS, focus_measures, saliency_maps
from clarep.robustness.measures import fixed_keys
from clarep.robustness.suite.attack_parts import attack_parts
from clarep.robustness.suite.suite_inputs import BACKWARD, Part, SuiteInputs, chosen_for_focus
from clarep.robustness.tested_student import batches, choose_images, found_at, named


def _clean_parts(inputs: SuiteInputs) -> list[Part]:
    def measure() -> Measured:
        clean = inputs.clean
        right = (clean["probabilities"].argmax(dim=1) == clean["label"]).float()
        return Measured([mean_of("clean/accuracy", right)], clean | {"clean/accuracy": right})

    settings = {"images": inputs.config.images}
    first = Part("clean", len(inputs.indices), settings, measure, ("clean/accuracy",))
    return [first, *_cue_parts(inputs)]


def _cue_parts(inputs: SuiteInputs) -> list[Part]:
    data, indices, parts = inputs.data, inputs.indices, list[Part]()
    settings = {"images": inputs.config.images}
    if (cues := cues_of(data)) is not None:
        chosen = cues[indices]

        def by_groups() -> Measured:
            clean = inputs.clean
            right = clean["probabilities"].argmax(dim=1) == clean["label"]
            return group_measures(right, clean["label"].numpy(), chosen)

        content = {"cues": hashlib.sha256(chosen.tobytes()).hexdigest()}
        none_right = torch.zeros(len(chosen), dtype=torch.bool)
        known = group_measures(none_right, data.labels[indices], chosen).measurements
        keys = tuple(one.key for one in known)
        parts.append(Part("clean/groups", 0, settings | content, by_groups, keys))
    if isinstance(data, GroupedImages) and data.other_cues:
        sets = data.other_cues
        content = {name: other.sha256(indices) for name, other in sets.items()}
        cost = len(sets) * len(indices)

        def by_cues() -> Measured:
            return cue_measures(inputs.subject, sets, indices)

        keys = tuple(f"clean/cue_{name}" for name in sets)
        parts.append(Part("clean/cues", cost, settings | content, by_cues, keys))
    return parts


def _calibration_parts(inputs: SuiteInputs) -> list[Part]:
    def measure() -> Measured:
        return calibration(inputs.clean["probabilities"], inputs.clean["label"])

    settings, keys = {"images": inputs.config.images}, fixed_keys("calibration")
    return [Part("calibration", len(inputs.indices), settings, measure, keys)]


def _background_parts(inputs: SuiteInputs) -> list[Part]:
    parts, config = inputs.separated, inputs.config
    if parts is None:
        return []

    def measure() -> Measured:
        found = background_measures(
            inputs.subject, parts, config.images, config.flip_backdrops, config.seed
        )
        if parts.paired:
            shown = first_of_each_class(parts.variants["original"], parts.usable)
            found.arrays.update(example_arrays(inputs.subject, parts, shown))
            if inputs.answers is None or "focus" not in inputs.answers.lacking:
                maps = saliency_maps(inputs.subject, found.arrays["examples/original"])
                found.arrays["examples/saliency"] = maps
        return found

    cost = len(inputs.indices) * (len(parts.variants) + config.flip_backdrops)
    settings = {"images": config.images, "flip_backdrops": config.flip_backdrops}
    keys = tuple(f"background/{name}" for name in parts.variants)
    return [Part("backgrounds", cost, settings, measure, keys)]


def _focus_parts(inputs: SuiteInputs) -> list[Part]:
    parts, config = inputs.separated, inputs.config
    if parts is None or parts.masks is None:
        return []
    indices = chosen_for_focus(parts, config)
    cost = len(indices) * (1 + BACKWARD * (1 + IG_STEPS))
    settings = {"focus_images": config.focus_images}

    def measure() -> Measured:
        return focus_measures(inputs.subject, parts, indices)

    return [Part("focus", cost, settings, measure, fixed_keys("focus"))]


def _corruption_parts(inputs: SuiteInputs) -> list[Part]:
    config = inputs.config
    indices = inputs.choose(config.corruption_images)
    settings: dict[str, Any] = {
        "corruption_images": config.corruption_images,
        "severities": list(config.severities),
    }

    def part(name: str) -> Part:
        cost = 2 * len(indices) * len(config.severities)  # half of it for the corruption
        sets = {} if inputs.official is None else inputs.official[name]
        read = {"official": {str(at): found_at(sets[at], indices) for at in sets}} if sets else {}

        def measure() -> Measured:
            return _corrupted(inputs, name, indices)

        of_severities = (f"corruption/{name}/severity={at}" for at in config.severities)
        keys = (*of_severities, f"corruption/{name}/mean", "corruption/mean")
        return Part(f"corruptions/{name}", cost, settings | read, measure, keys)

    return [part(name) for name in config.corruptions]


def _corrupted(inputs: SuiteInputs, name: str, indices: NDArray[np.int64]) -> Measured:
    """Return accuracy under a corruption at each severity, and their mean."""
    labels = torch.from_numpy(inputs.data.labels[indices])
    arrays: dict[str, Tensor] = {}
    for severity in inputs.config.severities:
        predicted: list[Tensor] = []
        for part in batches(indices):
            if inputs.official is None:
                clean, first = inputs.data.images(part), sum(map(len, predicted))
                images = corrupt(clean, name, severity, inputs.config.seed, first)
            else:
                images = inputs.official[name][severity].images(part)
            predicted.append(inputs.subject.predict(images, named(inputs.data, part)))
        arrays[f"corruption/{name}/severity={severity}"] = (torch.cat(predicted) == labels).float()
    arrays[f"corruption/{name}/mean"] = torch.stack(list(arrays.values())).mean(dim=0)
    return Measured([mean_of(key, values) for key, values in arrays.items()], arrays)


def _ood_parts(inputs: SuiteInputs) -> list[Part]:
    config = inputs.config

    def part(name: str, data: LabelledImages) -> Part:
        indices = choose_images(data.labels, config.images, config.seed)

        def measure() -> Measured:
            outside = max_softmax(inputs.subject.both_at(data, indices)[1]).float()
            found = auroc(name, inputs.clean["probabilities"].amax(dim=1), outside)
            return Measured([found], {f"ood/{name}/confidence": outside})

        settings = {"images": config.images, "ood": found_at(data, indices)}
        return Part(f"ood/{name}", len(indices), settings, measure, (f"ood/{name}/auroc",))

    return [part(name, data) for name, data in inputs.ood.items()]


def beyond_parts(inputs: SuiteInputs) -> list[Part]:
    """Return a part for each natural test set beyond the student's own."""
    config = inputs.config

    def part(one: NaturalSet) -> Part:
        key = f"beyond/{one.name}/accuracy"
        chosen = choose_images(one.images.labels, config.images, config.seed)

        def measure() -> Measured:
            correct, kept = one.correct(inputs.subject.both_at(one.images, chosen)[1], chosen)
            arrays = {key: correct.float(), f"beyond/{one.name}/index": torch.from_numpy(kept)}
            return Measured([mean_of(key, arrays[key])], arrays)

        settings = {"images": config.images, "beyond": one.fingerprint(chosen)}
        return Part(f"beyond/{one.name}", len(chosen), settings, measure, (key,))

    return [part(one) for one in inputs.beyond]


_PARTS: dict[str, Callable[[SuiteInputs], list[Part]]] = {
    "clean": _clean_parts,
    "calibration": _calibration_parts,
    "backgrounds": _background_parts,
    "focus": _focus_parts,
    "attacks": attack_parts,
    "corruptions": _corruption_parts,
    "ood": _ood_parts,
}


def parts_of_groups(inputs: SuiteInputs) -> dict[str, list[Part]]:
    """Return the parts of each group asked for, in the order of measuring.

    A group is empty where the data, or the settings, have nothing to measure for it.
    """
    return {name: make(inputs) for name, make in _PARTS.items() if name in inputs.config.groups}


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
