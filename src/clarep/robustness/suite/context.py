"""What the parts of the suite share: student, test set, the choice of images, the clean answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.backdrops import Backdrops
from clarep.data.labelled import LabelledImages
from clarep.data.sets.official_corruptions import OfficialSets
from clarep.errors import UserError
from clarep.robustness.backgrounds import Separated, separate
from clarep.robustness.corruptions import Baseline
from clarep.robustness.evaluation import Measured
from clarep.robustness.images_read import sha256_read
from clarep.robustness.probe import Answers, probe
from clarep.robustness.suite.natural_sets import BeyondSet
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
    passes: int
    """About what it costs at most, in forward passes of one image: for the progress."""
    settings: dict[str, Any]
    """All that its figures depend on beside the student, the data and the seed."""
    measure: Callable[[], Measured]
    """Measures it."""
    outlook: Callable[[], int] | None = None
    """Of attacks: what it will cost by what is measured by now, since broken images are left
    alone; None where nothing changes `passes`."""

    def expected(self) -> int:
        """Return what it will cost, in forward passes of one image: at most `passes`."""
        return self.passes if self.outlook is None else min(self.passes, self.outlook())


class Bench:
    """What the parts share: student, test set, the choice of images, the clean answers."""

    subject: Subject
    answers: Answers | None = None
    """What the probe found of the student's answers; None where it was not asked."""

    def __init__(
        self,
        data: LabelledImages,
        config: SuiteConfig,
        *,
        reference: Student | None,
        baseline: Baseline | None,
        ood: dict[str, LabelledImages],
        official: OfficialSets | None = None,
        beyond: Sequence[BeyondSet] = (),
        fingerprint: str,
        folder: Path | None,
    ) -> None:
        self.fingerprint, self.folder = fingerprint, folder
        self.data, self.config = data, config
        self.arrays: dict[str, Tensor] = {}
        """Of the parts that are measured: a part may go on from one before it."""
        self.reference, self.baseline = reference, baseline
        self.official, self.beyond = official, beyond
        self.separated: Separated | None = separate(data)
        self._read: dict[str, str] = {}
        self.ood: Mapping[str, LabelledImages] = ood
        if isinstance(data, Backdrops) and self.separated is not None:
            # A backdrop without a garment is of no class: the nearest set that is out of them.
            self.ood = {"only_bg": self.separated.variants["only_bg"]} | ood

    @property
    def data_notes(self) -> list[str]:
        """What should be known of the images before a figure on them is trusted."""
        sets = [self.data, *self.ood.values(), *(one.images for one in self.beyond)]
        return list(dict.fromkeys(note for one in sets for note in one.notes))

    @property
    def has_gradient(self) -> bool:
        """Whether a gradient of the logits reaches the image, as far as is known."""
        return self.answers is None or self.answers.gradient == "reaches the image"

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
        if group not in self._read:
            self._read[group] = sha256_read(self.data, self.separated, self.config, group)
        return self._read[group]

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
