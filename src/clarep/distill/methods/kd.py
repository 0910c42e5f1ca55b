"""Distillation from a stronger classifier's answers.

"Distilling the Knowledge in a Neural Network", Hinton et al. 2015, arXiv 1503.02531.
"""

import torch
from torch import Tensor

from clarep.distill.losses.kd import kd
from clarep.distill.methods.base import Batch, Method


class Kd(Method):
    """(1 - weight) CE + weight T^2 KL to the classifier's softened answer on the same view."""

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        classifier, rivals = self.ingredients.classifier, self.config.rivals
        assert classifier is not None  # checked by the run
        with torch.no_grad():
            answers = classifier(batch.images)
        _, logits = self.both(batch.images)
        return {
            "ce": (1 - rivals.kd_weight) * self.cross_entropy(logits, batch.labels),
            "kd": rivals.kd_weight * kd(logits, answers, rivals.kd_temperature),
        }
