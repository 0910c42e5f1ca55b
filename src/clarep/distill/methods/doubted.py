"""The images that the teacher doubts, drawn more often than the others.

As "Just Train Twice: Improving Group Robustness without Training Group Information", Liu et al.
2021, arXiv 2107.09044, whose images are those that a first student gets wrong; here they are those
that a teacher finds more likely under another class, most of them against their class's cue.
"""

from dataclasses import dataclass
from typing import Annotated

from clarep.distill.methods.base import Ingredients
from clarep.distill.methods.vanilla import Vanilla
from clarep.distill.trainer.train_images import drawn_with_share
from clarep.engine.bounds import Within
from clarep.students.student import Student


@dataclass(frozen=True)
class DoubtedConfig:
    """Options of doubted."""

    doubted_draws: Annotated[float, Within(0, 1, "()")] = 0.3
    """doubted: share of all draws that falls to the most doubted of the training images."""


class Doubted(Vanilla):
    """Cross-entropy, where the most doubted of each class take a share of all draws."""

    name, Config, needs_audit = "doubted", DoubtedConfig, True
    audit_reads = ("errors",)
    options: DoubtedConfig

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        audit = ingredients.audit
        assert audit is not None  # checked by the run
        doubted = audit.doubted_of(self.images.index)
        self.weights = drawn_with_share(doubted, self.options.doubted_draws)


METHODS = (Doubted,)
