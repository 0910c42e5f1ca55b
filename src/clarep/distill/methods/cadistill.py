"""CaDistill: the student learns the classes from canonical samples and features too.

"Canonical Latent Representations in Conditional Diffusion Models", Xu et al. 2025, arXiv
2506.09955, Eq. 6; what its abstract and reviews leave open is chosen in METHOD.md.
"""

from typing import Any

import torch
from torch import Tensor

from clarep.distill.losses.alignment import class_alignment, instance_alignment
from clarep.distill.losses.cka import FeatureQueue, linear_cka
from clarep.distill.losses.clustering import clustering
from clarep.distill.methods.base import Batch, Ingredients, Method, ramp
from clarep.students.student import Student


class CaDistill(Method):
    """CE + lambda_align L_align + lambda_cano L_cano + lambda_dist (1 - CKA).

    Training images and canonical samples go through the student in one pass, so that one and the
    same function, its batch statistics included, is asked to see both alike.
    """

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        self.queue = FeatureQueue(self.config.queue_size)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the queue, which a checkpoint must hold."""
        return self.queue.state_dict()

    def set_extra_state(self, state: Any) -> None:
        """Go on with a checkpoint's queue."""
        self.queue.load_state_dict(state)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        canonical, views = batch.canonical, batch.canonical_images
        assert canonical is not None and views is not None  # the run draws them for this method
        features, logits = self.both(torch.cat([batch.images, views]))
        count = len(batch.images)
        terms = {"ce": self.cross_entropy(logits[:count], batch.labels)}
        seen, canonical_seen = features[:count], features[count:]

        config = self.config
        if config.lambda_align:
            weight = ramp(config.lambda_align, config.warmup_align, batch.epoch)
            terms["align"] = weight * self._alignment(batch, seen, canonical_seen)
        if config.lambda_cano:
            weight = ramp(config.lambda_cano, config.warmup_cano, batch.epoch)
            terms["cano"] = weight * clustering(
                canonical_seen, canonical.labels, config.temperature_cano
            )
        if config.lambda_dist:
            weight = ramp(config.lambda_dist, config.warmup_dist, batch.epoch)
            x, y = canonical_seen, canonical.features
            if config.queue_size:
                x, y = self.queue.extend(x, y)
            terms["dist"] = weight * (1 - linear_cka(x, y, config.unbiased_cka))
        return terms

    def _alignment(self, batch: Batch, seen: Tensor, canonical_seen: Tensor) -> Tensor:
        """Return L_align by class, by instance, or their sum."""
        canonical, config = batch.canonical, self.config
        assert canonical is not None
        total = seen.new_zeros(())
        if config.align_form in ("class", "both"):
            total = total + class_alignment(
                seen, batch.labels, canonical_seen, canonical.labels, config.temperature_align
            )
        if config.align_form in ("instance", "both"):
            pairs = canonical.pairs
            total = total + instance_alignment(seen[pairs], canonical_seen[: len(pairs)])
        return total
