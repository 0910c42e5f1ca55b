"""Drawing from all groups of class and cue alike; it is told the groups.

"Simple data balancing achieves competitive worst-group-accuracy", Idrissi et al. 2022, arXiv
2110.14503.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.data.cues import cues_of, group_numbers
from clarep.distill.methods.base import Ingredients
from clarep.distill.methods.vanilla import Vanilla
from clarep.distill.trainer.train_images import TrainImages
from clarep.students.student import Student


def groups_of_images(images: TrainImages) -> Int64[Tensor, " n"]:
    """Return the group of each training image, from 0: a pair of class and cue that there is."""
    cues = cues_of(images.data)
    assert cues is not None  # checked by the run
    return torch.from_numpy(group_numbers(images.labels.numpy(), cues[images.index]))


def balanced_weights(groups: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return weights by which every group is drawn as often as any other."""
    return 1 / groups.bincount().double()[groups]


class GroupBalanced(Vanilla):
    """Cross-entropy, every group of class and cue drawn as often as any other.

    With group labels. An epoch has as many steps as without.
    """

    name, needs_groups = "group-balanced", True

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        self.weights = balanced_weights(groups_of_images(self.images))


METHODS = (GroupBalanced,)
