"""What a group's figures are told from others by: the content of all that it reads of the data."""

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from clarep.data.foregrounds import Separated
from clarep.data.labelled import LabelledImages
from clarep.robustness.backgrounds import adversarial_choice, chosen_of, first_of_each_class
from clarep.robustness.suite.suite_config import SuiteConfig
from clarep.robustness.tested_student import choose_images


def widest(data: LabelledImages, config: SuiteConfig) -> NDArray[np.int64]:
    """Return as many images as the widest of the groups takes, to be held against others."""
    most = max(config.images, config.attack_images, config.corruption_images)
    return choose_images(data.labels, most, config.seed)


def sha256_read(
    data: LabelledImages, parts: Separated | None, config: SuiteConfig, group: str
) -> str:
    """Return the SHA-256 of the images and labels that a group is measured on.

    Of backgrounds and focus of the masks, the variants and what is pasted too. Sets that are no
    part of the data (ood, beyond, official corruptions) have hashes of their own.
    """
    counts = {"attacks": config.attack_images, "corruptions": config.corruption_images}
    if parts is None or group not in ("backgrounds", "focus"):
        count = counts.get(group, config.images)
        return data.sha256(choose_images(data.labels, count, config.seed))
    if group == "focus":
        chosen = chosen_for_focus(parts, config)
        return _joint(parts.variants["original"].sha256(chosen), _of_masks(parts, chosen))
    shown = first_of_each_class(parts.variants["original"], parts.usable)
    found = []
    for name, variant in parts.variants.items():
        chosen = np.append(chosen_of(parts, name, config.images, config.seed), shown)
        found += [name, variant.sha256(chosen)]
    chosen = np.append(chosen_of(parts, "original", config.images, config.seed), shown)
    found.append(_of_masks(parts, np.intersect1d(chosen, parts.usable)))
    if parts.backdrops is not None:
        pasted = parts.backdrops(adversarial_choice(parts, config.flip_backdrops, config.seed))
        found.append(hashlib.sha256(pasted.numpy().tobytes()).hexdigest())
    return _joint(*found)


def chosen_for_focus(parts: Separated, config: SuiteConfig) -> NDArray[np.int64]:
    """Return the images whose saliency is taken."""
    labels = parts.variants["original"].labels[parts.usable]
    return parts.usable[choose_images(labels, config.focus_images, config.seed)]


def _of_masks(parts: Separated, chosen: NDArray[np.int64]) -> str:
    masks = None if parts.masks is None or not len(chosen) else parts.masks(chosen)
    return "" if masks is None else hashlib.sha256(masks.numpy().tobytes()).hexdigest()


def _joint(*found: str) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()
