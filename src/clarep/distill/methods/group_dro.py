"""GroupDRO: the worst groups of class and cue weigh the most; it is told the groups.

"Distributionally Robust Neural Networks for Group Shifts: On the Importance of Regularization for
Worst-Case Generalization", Sagawa et al. 2020, arXiv 1911.08731 (Algorithm 1; the adjustment is
its Section 3.3).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from clarep.distill.methods.base import Batch, Ingredients
from clarep.distill.methods.group_balanced import GroupBalanced, groups_of_images
from clarep.engine.bounds import Within
from clarep.students.student import Student


@dataclass(frozen=True)
class GroupDROConfig:
    """Options of group-dro."""

    group_dro_step: Annotated[float, Within(0)] = 0.01
    """group-dro: rate at which a group's weight grows with its loss."""
    group_dro_adjustment: Annotated[float, Within(0)] = 0.0
    """group-dro: C of C / sqrt(images of the group), which is added to its loss in the weights."""


class GroupDRO(GroupBalanced):
    """Sum over groups of q_g * mean cross-entropy of g, q_g growing with exp(step * loss of g).

    With group labels. Groups are drawn alike; one that is not in a step keeps its q but for the
    sum, which stays 1.
    """

    name, Config = "group-dro", GroupDROConfig
    options: GroupDROConfig
    q: Tensor
    groups: Tensor
    sizes: Tensor

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        groups = groups_of_images(self.images)
        sizes = groups.bincount()
        self.register_buffer("q", torch.full((len(sizes),), 1 / len(sizes)))
        self.register_buffer("groups", groups, persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        _, logits = self.both(batch.images)
        smoothing = self.config.label_smoothing
        losses = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=smoothing)
        means, present = group_means(losses, self.groups[batch.positions], len(self.q))
        adjusted = means.detach() + self.options.group_dro_adjustment / self.sizes.sqrt()
        grown = self.q * torch.exp(self.options.group_dro_step * adjusted * present)
        self.q = grown / grown.sum()
        return {"dro": self.q @ means}


def group_means(
    losses: Float[Tensor, " batch"], groups: Int64[Tensor, " batch"], count: int
) -> tuple[Float[Tensor, " groups"], Float[Tensor, " groups"]]:
    """Return the mean loss of each group, 0 for one without an image, and 1 where it has one."""
    images = groups.bincount(minlength=count)
    sums = losses.new_zeros(count).index_add(0, groups, losses)
    return sums / images.clamp(min=1), (images > 0).float()


METHODS = (GroupDRO,)
