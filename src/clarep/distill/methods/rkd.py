"""Distillation of the relations between a stronger classifier's features.

"Relational Knowledge Distillation", Park et al. 2019, arXiv 1904.05068.
"""

import torch
from torch import Tensor

from clarep.distill.losses.rkd import rkd_angle, rkd_distance
from clarep.distill.methods.base import Batch, Method


class Rkd(Method):
    """CE + weighted differences of pairwise distances and of angles within the batch."""

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        classifier, rivals = self.ingredients.classifier, self.config.rivals
        assert classifier is not None  # checked by the run
        with torch.no_grad():
            theirs = classifier.features(batch.images)
        ours, logits = self.both(batch.images)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "distance": rivals.rkd_distance_weight * rkd_distance(ours, theirs),
            "angle": rivals.rkd_angle_weight * rkd_angle(ours, theirs),
        }
