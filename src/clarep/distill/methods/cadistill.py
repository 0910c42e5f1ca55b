"""CaDistill: the student learns the classes from canonical samples and features too.

"Canonical Latent Representations in Conditional Diffusion Models", Xu et al. 2025, arXiv
2506.09955, Eq. 6; what its abstract and reviews leave open is chosen in docs/distill.md. With its
ablations, and with controls: the same losses with another set (what else than the projection
could help?) or with class means for features.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from clarep.distill.losses.cka import FeatureQueue, linear_cka
from clarep.distill.losses.contrast import class_alignment, instance_alignment, supcon
from clarep.distill.methods.base import Batch, Ingredients, Method
from clarep.engine.bounds import Within
from clarep.students.student import Student


@dataclass(frozen=True)
class CaDistillConfig:
    """Options of cadistill, its ablations and its controls."""

    lambda_align: Annotated[float, Within(0)] = 1.0
    """cadistill: weight of the alignment of training images with canonical samples; 0 is off."""
    lambda_cano: Annotated[float, Within(0)] = 0.5
    """cadistill: weight of the clustering of canonical samples; 0 is off."""
    lambda_dist: Annotated[float, Within(0)] = 1.0
    """cadistill: weight of 1 - CKA with the teacher's canonical features; 0 is off."""
    warmup_align: Annotated[float, Within(0)] = 0.0
    """Epochs over which lambda-align rises from 0."""
    warmup_cano: Annotated[float, Within(0)] = 0.0
    """Epochs over which lambda-cano rises from 0."""
    warmup_dist: Annotated[float, Within(0)] = 0.0
    """Epochs over which lambda-dist rises from 0."""
    temperature_align: Annotated[float, Within(0, ends="(]")] = 0.2
    """Temperature of the cosine similarities in the alignment by class."""
    temperature_cano: Annotated[float, Within(0, ends="(]")] = 0.2
    """Temperature of the cosine similarities in the clustering."""
    align_form: Literal["class", "instance", "both"] = "class"
    """Align an image with the canonical samples of its class, with its own one, or both."""
    queue_size: Annotated[int, Within(0)] = 0
    """Canonical samples of earlier steps that enter the CKA too; 0 for none."""


class CaDistill(Method):
    """CE + lambda_align L_align + lambda_cano L_cano + lambda_dist (1 - CKA).

    Training images and canonical samples go through the student in one pass, so that one and the
    same function, its batch statistics included, is asked to see both alike.
    """

    name, Config, canonical_kind = "cadistill", CaDistillConfig, "top"
    options: CaDistillConfig

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        self.queue = FeatureQueue(self.options.queue_size)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the queue, which a checkpoint must hold."""
        return self.queue.kept

    def set_extra_state(self, state: Any) -> None:
        """Go on with a checkpoint's queue."""
        self.queue.kept = dict(state)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        canonical, views, options = batch.canonical, batch.canonical_images, self.options
        assert canonical is not None and views is not None  # the run draws them for this method
        features, logits = self.both(torch.cat([batch.images, views]))
        count = len(batch.images)
        terms = {"ce": self.cross_entropy(logits[:count], batch.labels)}
        seen, canonical_seen = features[:count], features[count:]
        if options.lambda_align:
            weight = ramp(options.lambda_align, options.warmup_align, batch.epoch)
            terms["align"] = weight * self._alignment(batch, seen, canonical_seen)
        if options.lambda_cano:
            weight = ramp(options.lambda_cano, options.warmup_cano, batch.epoch)
            temperature = options.temperature_cano
            terms["cano"] = weight * supcon(canonical_seen, canonical.labels, temperature)
        if options.lambda_dist:
            weight = ramp(options.lambda_dist, options.warmup_dist, batch.epoch)
            x, y = canonical_seen, canonical.features
            if options.queue_size:
                x, y = self.queue.extend(x, y)
            terms["dist"] = weight * (1 - linear_cka(x, y, self.config.unbiased_cka))
        return terms

    def _alignment(self, batch: Batch, seen: Tensor, canonical_seen: Tensor) -> Tensor:
        """Return L_align by class, by instance, or their sum."""
        canonical, form = batch.canonical, self.options.align_form
        assert canonical is not None
        total = seen.new_zeros(())
        if form in ("class", "both"):
            temperature = self.options.temperature_align
            total = total + class_alignment(
                seen, batch.labels, canonical_seen, canonical.labels, temperature
            )
        if form in ("instance", "both"):
            pairs = canonical.pairs
            total = total + instance_alignment(seen[pairs], canonical_seen[: len(pairs)])
        return total


class ClassMean(CaDistill):
    """CaDistill whose teacher says the class's mean feature: does a sample's say more?"""

    name = "class-mean"

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        assert self.canonical is not None  # checked by the run
        features = self.canonical.features
        _, group = self.canonical.labels.unique(return_inverse=True)
        count = torch.bincount(group).to(features.dtype)
        sums = features.new_zeros(len(count), features.shape[1]).index_add(0, group, features)
        self.canonical = replace(self.canonical, features=(sums / count[:, None])[group])


METHODS = (
    CaDistill,
    CaDistill.variant("cadistill-no-align", off="lambda_align"),
    CaDistill.variant("cadistill-no-cano", off="lambda_cano"),
    CaDistill.variant("cadistill-no-dist", off="lambda_dist"),
    CaDistill.variant("reconstruction", canonical_kind="none", canonical_guidance=1.0),
    CaDistill.variant("guidance-only", canonical_kind="none", stronger_guidance=True),
    CaDistill.variant("random", canonical_kind="random"),
    CaDistill.variant("bottom", canonical_kind="bottom"),
    CaDistill.variant("middle", canonical_kind="middle"),
    ClassMean,
)


def ramp(weight: float, warmup_epochs: float, epoch: float) -> float:
    """Return a weight that rises linearly from 0 over its warm-up."""
    return weight * min(1.0, epoch / warmup_epochs) if warmup_epochs > 0 else weight
