"""Supervised contrast beside the classification loss.

"Supervised Contrastive Learning", Khosla et al. 2020, arXiv 2004.11362; in one stage, on the
student's own features, without a projection head.
"""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from clarep.distill.losses.contrast import supcon
from clarep.distill.methods.base import Batch, Method
from clarep.engine.bounds import Within


@dataclass(frozen=True)
class SupConConfig:
    """Options of supcon."""

    supcon_weight: Annotated[float, Within(0)] = 1.0
    """supcon: weight of the contrastive term beside the classification loss."""
    supcon_temperature: Annotated[float, Within(0, ends="(]")] = 0.1
    """supcon: temperature of the cosine similarities."""


class SupCon(Method):
    """CE + weight * supervised contrast of the batch's features; no canonical sample is seen."""

    name, Config = "supcon", SupConConfig
    options: SupConConfig

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        features, logits = self.both(batch.images)
        contrast = supcon(features, batch.labels, self.options.supcon_temperature)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "supcon": self.options.supcon_weight * contrast,
        }


METHODS = (SupCon,)
