"""What of the images that are kept apart a student names rightly: of all, and of the doubted."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from clarep.audit.audit import Audit
from clarep.data.held_out import Indices
from clarep.data.labelled import LabelledImages
from clarep.distill.trainer.train_images import TrainImages
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.distill.trainer.views import to_student_range
from clarep.errors import UserError
from clarep.students.student import Student

ACCURACIES = ("validation_accuracy", "doubted_accuracy")
"""Of all images that are kept apart, and of those that an audit's teacher doubts."""
_BATCH = 500


@dataclass(frozen=True)
class Validation:
    """The images that are kept apart."""

    images: TrainImages
    """All of them."""
    doubted: Bool[Tensor, " n"] | None
    """Those that an audit's teacher doubts most; None without an audit."""
    pick: str
    """Whose accuracy an epoch is picked by: best, of all; doubted; or last, of none."""

    @classmethod
    def of(
        cls, data: LabelledImages, apart: Indices, config: TrainingConfig, audit: Audit | None
    ) -> "Validation":
        """Take images of a data set; raises UserError if none is doubted, to be picked by."""
        images = TrainImages.of(data, apart, config.memory_mb, config.workers)
        doubted = None if audit is None else audit.doubted_of(apart)
        if config.pick == "doubted" and (doubted is None or not bool(doubted.any())):
            raise UserError(
                "`pick=doubted` picks the epoch on held-out images that a teacher doubts: give "
                "`audit`, a folder of clarep audit, of all images"
            )
        return cls(images, doubted, config.pick)

    def accuracies(self, student: Student, device: torch.device) -> dict[str, float | None]:
        """Return what a record holds: the share that is named rightly, None of no images.

        Of the doubted only where an audit was given.
        """
        student, count = student.eval(), len(self.images)
        parts = np.array_split(np.arange(count), math.ceil(count / _BATCH)) if count else []
        right = torch.zeros(count, dtype=torch.bool)
        with torch.no_grad():
            for positions, batch in zip(parts, self.images.batches(parts), strict=True):
                answers = student(to_student_range(batch.to(device))).argmax(1).cpu()
                at = torch.from_numpy(positions)
                right[at] = answers == self.images.labels[at]
        of_which = (slice(None), self.doubted)
        return {
            name: _share(right[which])
            for name, which in zip(ACCURACIES, of_which, strict=True)
            if which is not None
        }

    def deciding(self, accuracies: dict[str, float | None]) -> float | None:
        """Return the one that the epoch is picked by; None where the last is taken."""
        if self.pick == "last":
            return None
        return accuracies[ACCURACIES[self.pick == "doubted"]]


def _share(right: Tensor) -> float | None:
    return int(right.sum()) / len(right) if len(right) else None
