"""A penalty on the size of the loss's gradient in the image: evidence's rival without a teacher.

"Improving the Adversarial Robustness and Interpretability of Deep Neural Networks by Regularizing
their Input Gradients", Ross & Doshi-Velez 2018, arXiv 1711.09404, who square the gradient. Here it
is its L1 norm, to first order the most that the loss rises under an L-infinity attack of radius 1.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from clarep.distill.losses.input_gradient import input_gradient
from clarep.distill.methods.base import Batch, Method
from clarep.distill.methods.cadistill import ramp
from clarep.engine.bounds import Within


@dataclass(frozen=True)
class GradientNormConfig:
    """Options of gradient-norm."""

    gradient_norm_weight: Annotated[float, Within(0)] = 0.02
    """gradient-norm: weight of the L1 norm of the loss's gradient in images in [0, 1]."""
    gradient_norm_batch_share: Annotated[float, Within(0, 1, "()")] = 1 / 3
    """gradient-norm: share of each batch whose gradients count."""
    gradient_norm_warmup: Annotated[float, Within(0, 1)] = 0.15
    """gradient-norm: share of the epochs over which the weight rises from 0."""


class GradientNorm(Method):
    """CE + weight * mean of |gradient of CE in the image|_1, over a share of each batch.

    That share goes through the student in a pass of its own, as in evidence.
    """

    name, Config = "gradient-norm", GradientNormConfig
    options: GradientNormConfig

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        options, count = self.options, len(batch.images)
        rest = count - max(1, round(options.gradient_norm_batch_share * count))
        x = batch.images[rest:].detach().requires_grad_()
        _, logits = self.both(x)
        _, others = self.both(batch.images[:rest])
        each = F.cross_entropy(logits, batch.labels[rest:], reduction="none")
        norm = input_gradient(each, x).abs().sum(1).mean()
        weight = ramp(
            options.gradient_norm_weight,
            options.gradient_norm_warmup * self.config.epochs,
            batch.epoch,
        )
        return {
            "ce": self.cross_entropy(torch.cat([others, logits]), batch.labels),
            "norm": weight * norm,
        }


METHODS = (GradientNorm,)
