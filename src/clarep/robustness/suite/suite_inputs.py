"""What the suite's parts share: a part, the test sets and students, what is read and measured."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.backdrops import Backdrops
from clarep.data.foregrounds import Separated, separate
from clarep.data.labelled import LabelledImages
from clarep.data.sets.natural import NaturalSet
from clarep.data.sets.official_corruptions import OfficialSets
from clarep.errors import UserError
from clarep.robustness.backgrounds import adversarial_choice, chosen_of, first_of_each_class
from clarep.robustness.corruptions.mce import Baseline
from clarep.robustness.evaluation import Measured
from clarep.robustness.probe import Answers, probe
from clarep.robustness.suite.suite_config import SuiteConfig
from clarep.robustness.tested_student import NotFinite, Subject, as_float, choose_images, under_test
from clarep.students.student import Student

PARTS_NAME = "parts"
BACKWARD = 3  # what a pass there and back costs, in forward passes


@dataclass(frozen=True)
class Part:
    """What is measured, and stored, in one go."""

    name: str
    """Its folder under parts/."""
    cost: int | Callable[[Mapping[str, Tensor]], int]
    """About what it costs, in forward passes of one image; of attacks, which leave broken images
    alone, by the arrays that are measured so far."""
    settings: dict[str, Any]
    """All that its figures depend on beside the student, the data and the seed."""
    measure: Callable[[], Measured]
    """Measures it."""
    keys: tuple[str, ...] = ()
    """Of figures that an evaluation with it holds, whatever the student answers."""
    after: tuple[str, ...] = ()
    """Names of the parts whose arrays it goes on from."""


@dataclass
class SuiteInputs:
    """Student, test sets and settings, as the parts take them."""

    data: LabelledImages
    config: SuiteConfig
    fingerprint: str
    """Of the student."""
    reference: Student | None
    baseline: Baseline | None
    ood: Mapping[str, LabelledImages]
    official: OfficialSets | None
    beyond: Sequence[NaturalSet]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    """Of the parts that are measured: a part may go on from one before it."""
    answers: Answers | None = None
    """What the probe found of the student's answers; None where it was not asked."""
    subject: Subject = field(init=False)
    """The student, while it is measured."""

    def __post_init__(self) -> None:
        self._sha256_read: dict[str, str] = {}
        self.separated: Separated | None = separate(self.data)
        if isinstance(self.data, Backdrops) and self.separated is not None:
            # A backdrop without a garment is of no class: the nearest set that is out of them.
            self.ood = {"only_bg": self.separated.variants["only_bg"], **self.ood}

    @property
    def data_notes(self) -> list[str]:
        """What should be known of the images before a figure on them is trusted."""
        sets = [self.data, *self.ood.values(), *(one.images for one in self.beyond)]
        return list(dict.fromkeys(note for one in sets for note in one.notes))

    def ask(self, student: Student) -> None:
        """Put a few of the clean images to the student; raises UserError as `probe` does."""
        with under_test(student) as subject:
            try:
                self.answers = probe(subject, self.data, self.indices)
            except NotFinite as error:
                raise self.unmeasured("clean", error) from error

    def unmeasured(self, part: str, error: NotFinite) -> UserError:
        """Build the error for a part that met a logit which is not finite; it names the image."""
        source, attacked = error.source, self.arrays.get("attack/index")
        if not source and attacked is not None:  # an attack's images lie nearest to their own
            own = (as_float(self.data.images([i]))[0] for i in attacked.tolist())
            near = [float((image - error.image).norm()) for image in own]
            source = self.data.sources[int(attacked[near.index(min(near))])]
        return UserError(
            f"{part} cannot be measured: {error.student} answers with {error.value} to "
            f"{source or 'an image'}; give a model whose answers are finite, or data without it"
        )

    def choose(self, count: int) -> NDArray[np.int64]:
        """Choose about `count` images of the test set, evenly from the classes."""
        return choose_images(self.data.labels, count, self.config.seed)

    def sha256_read(self, group: str) -> str:
        """Return what tells the images that a group is measured on; hashed once for all parts."""
        if group not in self._sha256_read:
            found = sha256_read(self.data, self.separated, self.config, group)
            self._sha256_read[group] = found
        return self._sha256_read[group]

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """The images that the clean figures are taken on."""
        return self.choose(self.config.images)

    @cached_property
    def clean(self) -> dict[str, Tensor]:
        """The student's answers on the clean images."""
        features, logits = self.subject.both_at(self.data, self.indices)
        return {
            "label": torch.from_numpy(self.data.labels[self.indices]),
            "index": torch.from_numpy(self.indices),
            "probabilities": logits.double().softmax(dim=1).float(),
            "features": features,
        }


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
