"""AugMix: mixtures of augmentation chains, and answers that must agree on them.

Hendrycks et al. 2020, arXiv 1912.02781.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clarep.distill.methods.augmix_views import augmix
from clarep.distill.methods.base import Batch, Method


class Augment(Method):
    """CE + weight * Jensen-Shannon divergence of the answers on an image and two views of it."""

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        rivals = self.config.rivals
        views = [augmix(batch.images, rivals.augmix_severity, batch.generator) for _ in range(2)]
        logits = self.both(torch.cat([batch.images, *views]))[1].chunk(3)
        return {
            "ce": self.cross_entropy(logits[0], batch.labels),
            "consistency": rivals.augmix_weight * jensen_shannon(torch.stack(logits)),
        }


def jensen_shannon(logits: Float[Tensor, "views batch classes"]) -> Float[Tensor, ""]:
    """Return the mean KL of each view's probabilities to their average over views, in nats."""
    log_p = F.log_softmax(logits, dim=2)
    log_mean = log_p.logsumexp(0) - math.log(len(logits))
    return (log_p.exp() * (log_p - log_mean)).sum(2).mean()
