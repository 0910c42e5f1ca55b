"""Adversarial training: the expensive upper mark for robustness to small perturbations.

"Towards Deep Learning Models Resistant to Adversarial Attacks", Madry et al. 2018, arXiv
1706.06083. With one step it is "Fast is better than free: Revisiting adversarial training", Wong,
Rice & Kolter 2020, arXiv 2001.03994.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from clarep.distill.methods.base import Batch, Method
from clarep.engine.bounds import Within

_PATH = 2.5  # of eps, over all steps: enough to cross the ball from any start
_LONGEST = 1.25  # of eps, a step: of a longer one training with a single step breaks down


@dataclass(frozen=True)
class AdvConfig:
    """Options of adv."""

    adv_eps_255: Annotated[float, Within(0, 255, "(]")] = 2.0
    """adv: L-infinity radius of the attack trained on, in steps of 1/255."""
    adv_steps: Annotated[int, Within(1)] = 5
    """adv: steps of the attack, each of 2.5 / steps of the radius, at most 1.25, and one more pass
    forward and back. With 1 step it is fast adversarial training."""


class Adv(Method):
    """Cross-entropy on the images as an L-infinity attack with random start leaves them."""

    name, Config = "adv", AdvConfig
    options: AdvConfig

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        _, logits = self.both(self.attack(batch))
        return {"ce": self.cross_entropy(logits, batch.labels)}

    def attack(self, batch: Batch) -> Tensor:
        """Return images within eps and [0, 1] of a high loss, by projected gradient ascent.

        The student is asked in evaluation mode, so that its batch statistics are those of the
        images that it is trained on.
        """
        eps, steps = self.options.adv_eps_255 / 255, self.options.adv_steps
        start = 2 * torch.rand(batch.images.shape, generator=batch.generator) - 1
        step = min(_PATH * eps / steps, _LONGEST * eps)
        low, high = (batch.images - eps).clamp(min=0), (batch.images + eps).clamp(max=1)
        x = (batch.images + eps * start.to(batch.images.device)).clamp(low, high)
        self.student.eval()
        for _ in range(steps):
            x.requires_grad_()
            loss = F.cross_entropy(self.both(x)[1], batch.labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            x = (x.detach() + step * gradient.sign()).clamp(low, high)
        self.student.train()
        return x


METHODS = (Adv,)
