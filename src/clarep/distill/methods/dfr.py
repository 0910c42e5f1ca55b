"""Deep feature reweighting: only the last layer is made group-robust; it is told the groups.

"Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", Kirichenko et al.
2023, arXiv 2204.02937. There the last layer is a logistic regression with an L1 penalty, the mean
of ten, each on a balanced part of the held-out images; here it is trained as everything else is,
every group drawn alike.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import nn

from clarep.data.class_balance import class_balanced_choice
from clarep.distill.methods.base import Ingredients
from clarep.distill.methods.first_student import follows_from, spent_of, train_first
from clarep.distill.methods.group_balanced import balanced_weights, groups_of_images
from clarep.distill.methods.vanilla import Vanilla
from clarep.distill.trainer.train_images import seed_of
from clarep.engine.bounds import Within
from clarep.engine.tensors import computed_once
from clarep.errors import UserError
from clarep.students.module_student import last_linear
from clarep.students.student import Student


@dataclass(frozen=True)
class DfrConfig:
    """Options of dfr."""

    dfr_share: Annotated[float, Within(0, 1, "()")] = 0.2
    """dfr: share of every group of the training images that the features are not trained on, and
    the last layer is."""


class Dfr(Vanilla):
    """Plain training, then the last layer anew from zero on images kept apart, groups drawn alike.

    With group labels. Both trainings have the run's epochs, the second those of few images.
    """

    name, Config, needs_groups = "dfr", DfrConfig, True
    options: DfrConfig

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        head = last_linear(student, len(student.info.class_names))
        if head is None:
            raise UserError(
                f"dfr trains the last linear layer anew, and {student.info.name} has none of "
                "one output a class: give another student or method"
            )
        groups = groups_of_images(self.images)
        seed = seed_of("dfr", self.config.seed) % 2**32
        apart = class_balanced_choice(groups.numpy(), self.options.dfr_share, seed)
        rest = np.setdiff1d(np.arange(len(groups)), apart)

        def compute() -> dict[str, torch.Tensor]:
            first, spent = train_first(student, ingredients, rest)
            weights = {name: value.cpu().clone() for name, value in first.state_dict().items()}
            return {**spent, **weights}

        described = {"share": self.options.dfr_share, **follows_from(student, ingredients)}
        made = dict(computed_once(ingredients.folder / "dfr.safetensors", described, compute))
        self.trained_before = [spent_of(made)]
        student.load_state_dict(made)
        _free_the_head_alone(student, head)
        self.images = self.images.at(apart)
        self.weights = balanced_weights(groups[torch.from_numpy(apart)])

    def train(self, mode: bool = True) -> "Dfr":
        """Set the mode; the student stays in evaluation mode, its batch statistics as they are."""
        super().train(mode)
        self.student.eval()
        return self


def _free_the_head_alone(student: Student, head: str) -> None:
    """Set the head to zero, where logistic regression begins, and let it alone be trained."""
    student.requires_grad_(False)
    for parameter in student.get_submodule(head).parameters():
        parameter.requires_grad_(True)
        nn.init.zeros_(parameter)


METHODS = (Dfr,)
