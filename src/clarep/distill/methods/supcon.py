"""Supervised contrast beside the classification loss.

"Supervised Contrastive Learning", Khosla et al. 2020, arXiv 2004.11362; in one stage, on the
student's own features, without a projection head.
"""

from torch import Tensor

from clarep.distill.losses.supcon import supcon
from clarep.distill.methods.base import Batch, Method


class SupCon(Method):
    """CE + weight * supervised contrast of the batch's features; no canonical sample is seen."""

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        rivals = self.config.rivals
        features, logits = self.both(batch.images)
        contrast = supcon(features, batch.labels, rivals.supcon_temperature)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "supcon": rivals.supcon_weight * contrast,
        }
