"""Distillation from a stronger classifier's answers.

"Distilling the Knowledge in a Neural Network", Hinton et al. 2015, arXiv 1503.02531.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from clarep.distill.losses.kd import kd
from clarep.distill.methods.base import Batch, Method
from clarep.engine.bounds import Within


@dataclass(frozen=True)
class KdConfig:
    """Options of kd."""

    kd_weight: Annotated[float, Within(0, 1)] = 0.9
    """kd: share of the loss that is the distance to the classifier's softened answers."""
    kd_temperature: Annotated[float, Within(0, ends="(]")] = 4.0
    """kd: temperature of both answers."""


class Kd(Method):
    """(1 - weight) CE + weight T^2 KL to the classifier's softened answer on the same view."""

    name, Config, needs_classifier = "kd", KdConfig, True
    options: KdConfig

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        classifier, weight = self.ingredients.classifier, self.options.kd_weight
        assert classifier is not None  # checked by the run
        with torch.no_grad():
            answers = classifier(batch.images)
        _, logits = self.both(batch.images)
        return {
            "ce": (1 - weight) * self.cross_entropy(logits, batch.labels),
            "kd": weight * kd(logits, answers, self.options.kd_temperature),
        }


METHODS = (Kd,)
