"""What every method is to a training run: a module that turns a batch into loss terms."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from clarep.distill.canonical_batches import CanonicalBatch, CanonicalImages
from clarep.distill.distill_config import DistillConfig
from clarep.distill.train_data import TrainImages
from clarep.students.student import Student
from clarep.teachers.teacher import Teacher

_HALF = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Ingredients:
    """What a method may be made of; a method that needs what is None has been refused before."""

    config: DistillConfig
    """How to train."""
    images: TrainImages
    """What to train on."""
    folder: Path
    """Of the run, for what is computed once."""
    device: torch.device
    """Where the student is."""
    canonical: CanonicalImages | None = None
    """The canonical set, without the images to validate on."""
    teacher: Teacher | None = None
    """The diffusion model."""
    classifier: Student | None = None
    """A stronger student, for distillation without a diffusion model."""
    features: Tensor | None = None
    """The teacher's features (M, D) of training images, where `prepare` computed them."""
    feature_rows: Tensor | None = None
    """Which of the training images these are, (M,)."""


@dataclass(frozen=True)
class Batch:
    """One step of one process."""

    images: Float[Tensor, "batch c h w"]
    """Views of training images, in [0, 1]."""
    labels: Int64[Tensor, " batch"]
    """Their classes."""
    positions: Int64[Tensor, " batch"]
    """Which of the training images they are."""
    epoch: float
    """Epochs trained so far, a fraction within one."""
    generator: torch.Generator
    """Of this step, on the CPU."""
    canonical: CanonicalBatch | None = None
    """Canonical samples beside it; their images are views too."""
    canonical_images: Float[Tensor, "m c h w"] | None = None
    """Those views, in [0, 1]."""


class Method(nn.Module, ABC):
    """A student and the terms of its loss. `forward` sums them up, under "loss".

    Parameters of a subclass are trained beside the student's and are not stored with it.
    """

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__()
        self.student = student
        self.config = ingredients.config
        self.ingredients = ingredients  # no module, so that a classifier in it is not trained

    @classmethod
    def prepare(cls, ingredients: Ingredients) -> Ingredients:
        """Compute, once and into the run's folder, what the method needs, and return all of it.

        One process at a time does this, the main one first.
        """
        return ingredients

    @abstractmethod
    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss, scalars, by name."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms and, as "loss", their sum."""
        with torch.autocast(batch.images.device.type, enabled=False):  # losses stay fp32
            terms = self.terms(batch)
        return terms | {"loss": torch.stack(list(terms.values())).sum()}

    def both(self, x: Float[Tensor, "batch c h w"]) -> tuple[Tensor, Tensor]:
        """Return the student's features (B, D) and logits (B, K) as fp32, in mixed precision."""
        dtype = _HALF[self.config.mixed_precision]
        mixed = dtype != torch.float32
        with torch.autocast(x.device.type, dtype=dtype if mixed else None, enabled=mixed):
            features, logits = self.student.both(x.contiguous(memory_format=torch.channels_last))
        return features.float(), logits.float()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the classification loss, smoothed as configured."""
        return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)


def ramp(weight: float, warmup_epochs: float, epoch: float) -> float:
    """Return a weight that rises linearly from 0 over its warm-up."""
    return weight * min(1.0, epoch / warmup_epochs) if warmup_epochs > 0 else weight
