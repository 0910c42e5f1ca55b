"""Just train twice: what a first, short training errs on is drawn more often in the second.

"Just Train Twice: Improving Group Robustness without Training Group Information", Liu et al. 2021,
arXiv 2107.09044. There the errors are repeated so many times; here they take a share of the draws.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from clarep.distill.methods.base import Ingredients
from clarep.distill.methods.first_student import follows_from, spent_of, train_first
from clarep.distill.methods.vanilla import Vanilla
from clarep.distill.trainer.train_images import TrainImages, drawn_with_share
from clarep.distill.trainer.views import to_student_range
from clarep.engine.bounds import Within
from clarep.engine.tensors import computed_once
from clarep.students.student import Student

_CHUNK = 500


@dataclass(frozen=True)
class JttConfig:
    """Options of jtt."""

    jtt_epochs: Annotated[int, Within(1)] = 2
    """jtt: epochs of the first student, whose errors are drawn more often."""
    jtt_share: Annotated[float, Within(0, 1, "()")] = 0.5
    """jtt: share of the draws that its errors take."""


class Jtt(Vanilla):
    """Cross-entropy, the errors of a first student of few epochs drawn a given share of the time.

    Without group labels. The first student begins with the same weights and sees the same images;
    it keeps no moving average, which would still be near its beginning.
    """

    name, Config = "jtt", JttConfig
    options: JttConfig

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)

        def compute() -> dict[str, Tensor]:
            everything = np.arange(len(self.images))
            epochs = self.options.jtt_epochs
            first, spent = train_first(student, ingredients, everything, epochs=epochs, ema=0.0)
            return {"errors": errors_of(first, self.images), **spent}

        described = {"epochs": self.options.jtt_epochs, **follows_from(student, ingredients)}
        made = computed_once(ingredients.folder / "jtt.safetensors", described, compute)
        self.weights = drawn_with_share(made["errors"], self.options.jtt_share)
        self.trained_before = [spent_of(made)]


@torch.no_grad()
def errors_of(student: Student, images: TrainImages) -> Bool[Tensor, " n"]:
    """Return which of the images, as they are, a student in evaluation mode names wrongly."""
    device = next(student.parameters()).device
    parts = np.array_split(np.arange(len(images)), -(-len(images) // _CHUNK))
    named = [student(to_student_range(some.to(device))).argmax(1) for some in images.batches(parts)]
    return torch.cat(named).cpu() != images.labels


METHODS = (Jtt,)
