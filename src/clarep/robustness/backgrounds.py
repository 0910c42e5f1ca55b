"""What a background does to a student's answer, after Xiao et al. 2020 (arXiv 2006.09994)."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.foregrounds import Separated
from clarep.data.labelled import LabelledImages
from clarep.engine.statistics import bootstrap_means, percentile_interval
from clarep.robustness.attacks.shapes import Marks, Values
from clarep.robustness.evaluation import Measured, Measurement, mean_of
from clarep.robustness.tested_student import Subject, choose_images, named, right_at


def background_measures(
    subject: Subject, parts: Separated, count: int, num_backdrops: int, seed: int
) -> Measured:
    """Return the accuracy on every variant, the gap, and the share of flipped predictions.

    Args:
        subject: the student.
        parts: the test set.
        count: images of each variant, evenly from the classes.
        num_backdrops: adversarial backgrounds that every foreground is pasted on.
        seed: of the choice of images and of backgrounds.
    """
    indices = chosen_of(parts, "original", count, seed)
    measurements: list[Measurement] = []
    arrays: dict[str, Tensor] = {"background/index": torch.from_numpy(indices)}
    for name, data in parts.variants.items():
        at = indices if parts.paired else chosen_of(parts, name, count, seed)
        key = f"background/{name}"
        arrays[key] = right_at(subject, data, at)
        measurements.append(mean_of(key, arrays[key]))
    if {"mixed_same", "mixed_rand"} <= set(parts.variants):
        same, rand = arrays["background/mixed_same"], arrays["background/mixed_rand"]
        measurements.append(gap(same, rand, parts.paired))
        if parts.paired:
            arrays["background/gap"] = same - rand
    if parts.masks is not None and parts.backdrops is not None:
        right = arrays["background/original"].bool().numpy()
        tried = indices[right]  # what is wrong already cannot be flipped
        tried = tried[np.isin(tried, parts.usable)]
        if len(tried):
            backdrops = parts.backdrops(adversarial_choice(parts, num_backdrops, seed))
            values = flipped(subject, parts, tried, backdrops).float()
            measurements.append(mean_of("background/flipped", values))
            # Not under the measurement's own key: another student is right on other images.
            arrays["background/flipped/values"] = values
            arrays["background/flipped/index"] = torch.from_numpy(tried)
    return Measured(measurements, arrays)


def chosen_of(parts: Separated, name: str, count: int, seed: int) -> NDArray[np.int64]:
    """Choose images of a variant; of sets that correspond, those that are usable in all."""
    labels = parts.variants[name].labels
    if not parts.paired:
        return choose_images(labels, count, seed)
    return parts.usable[choose_images(labels[parts.usable], count, seed)]


def gap(same: Values, rand: Float[Tensor, " other"], paired: bool) -> Measurement:
    """Return the BG-gap, accuracy on mixed_same minus accuracy on mixed_rand.

    same, rand: 1 where right, else 0. Paired values (the same foreground at the same place) are
    resampled together, which gives a narrower interval; others each on their own.
    """
    if paired:
        return mean_of("background/gap", same - rand)
    value = float(same.double().mean() - rand.double().mean())
    rng = np.random.default_rng(0)
    first, second = (bootstrap_means(some.double().numpy(), rng) for some in (same, rand))
    interval = percentile_interval(first - second)
    return Measurement("background/gap", value, interval, min(len(same), len(rand)))


def adversarial_choice(parts: Separated, count: int, seed: int) -> NDArray[np.int64]:
    """Choose images whose backgrounds all foregrounds are pasted on, evenly from the scenes."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(parts.donors)
    scenes = np.array([parts.scene(int(i)) for i in order])
    rank = np.zeros(len(order), np.int64)  # how many of the same scene come before
    for scene in np.unique(scenes):
        members = np.flatnonzero(scenes == scene)
        rank[members] = np.arange(len(members))
    return np.asarray(order[np.lexsort((scenes, rank))][:count], np.int64)


def paste(
    images: UInt8[Tensor, "batch 3 h w"],
    masks: Bool[Tensor, "batch h w"],
    backdrops: UInt8[Tensor, "batch 3 h w"],
) -> UInt8[Tensor, "batch 3 h w"]:
    """Return the foregrounds of `images` on other backdrops."""
    return torch.where(masks[:, None], images, backdrops)


def flipped(
    subject: Subject,
    parts: Separated,
    indices: NDArray[np.int64],
    backdrops: UInt8[Tensor, "backdrops 3 h w"],
) -> Marks:
    """Say of each image whether its foreground is misclassified on any of the backdrops."""
    original = parts.variants["original"]
    assert parts.masks is not None
    images, masks = original.images(indices), parts.masks(indices)
    labels, sources = torch.from_numpy(original.labels[indices]), named(original, indices)
    wrong = torch.zeros(len(indices), dtype=torch.bool)
    for backdrop in backdrops:
        predicted = subject.predict(paste(images, masks, backdrop.expand_as(images)), sources)
        wrong |= predicted != labels
    return wrong


def example_arrays(
    subject: Subject, parts: Separated, indices: NDArray[np.int64]
) -> dict[str, Tensor]:
    """Return images of every variant with what the student says of them, for the report."""
    original = parts.variants["original"]
    arrays = {"examples/label": torch.from_numpy(original.labels[indices])}
    if parts.masks is not None:
        arrays["examples/mask"] = parts.masks(indices)
    for name, data in parts.variants.items():
        images = data.images(indices)
        arrays[f"examples/{name}"] = images
        arrays[f"examples/{name}/predicted"] = subject.predict(images)
    return arrays


def first_of_each_class(
    data: LabelledImages, usable: NDArray[np.int64], count: int = 10
) -> NDArray[np.int64]:
    """Return the first usable image of each class, of the first `count` classes: none is picked."""
    _, first = np.unique(data.labels[usable], return_index=True)
    return np.asarray(usable[first[:count]], dtype=np.int64)
