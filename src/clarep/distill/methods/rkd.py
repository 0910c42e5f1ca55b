"""Distillation of the relations between a stronger classifier's features.

"Relational Knowledge Distillation", Park et al. 2019, arXiv 1904.05068.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from clarep.distill.losses.rkd import rkd_angle, rkd_distance
from clarep.distill.methods.base import Batch, Method
from clarep.engine.bounds import Within


@dataclass(frozen=True)
class RkdConfig:
    """Options of rkd."""

    rkd_distance_weight: Annotated[float, Within(0)] = 25.0
    """rkd: weight of the term over pairwise distances."""
    rkd_angle_weight: Annotated[float, Within(0)] = 50.0
    """rkd: weight of the term over angles of triplets."""


class Rkd(Method):
    """CE + weighted differences of pairwise distances and of angles within the batch."""

    name, Config, needs_classifier = "rkd", RkdConfig, True
    options: RkdConfig

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        classifier = self.ingredients.classifier
        assert classifier is not None  # checked by the run
        with torch.no_grad():
            theirs = classifier.features(batch.images)
        ours, logits = self.both(batch.images)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "distance": self.options.rkd_distance_weight * rkd_distance(ours, theirs),
            "angle": self.options.rkd_angle_weight * rkd_angle(ours, theirs),
        }


METHODS = (Rkd,)
