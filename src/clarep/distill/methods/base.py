"""What every method is to a training run: a module that turns a batch into loss terms."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from clarep.audit.audit import Audit
from clarep.audit.audit_config import OPTIONAL, PARTS, AuditConfig, Part
from clarep.clarid.directions import Kind
from clarep.data.held_out import Indices
from clarep.distill.trainer.canonical_batches import CanonicalBatch, CanonicalImages
from clarep.distill.trainer.train_images import TrainImages, epoch_batches
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.distill.trainer.whole_batch import Shares
from clarep.errors import UserError
from clarep.students.student import Student
from clarep.teachers.teacher import Teacher

_HALF = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Ingredients:
    """What a method may be made of; a method that needs what is None has been refused before."""

    config: TrainingConfig
    """How to train."""
    options: Any
    """Of the method, an instance of its `Config`."""
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
    audit: Audit | None = None
    """What the diffusion model said of the data; its rows are not those of `images`."""


@dataclass(frozen=True)
class Batch:
    """One step, the same in every process."""

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
    """Canonical samples beside it, for methods that take a set."""
    canonical_images: Float[Tensor, "m c h w"] | None = None
    """Views of them, in [0, 1]."""


@dataclass(frozen=True)
class NoOptions:
    """Of a method that has none."""


class Method(nn.Module, ABC):
    """A student and the terms of its loss.

    A method of your own is a subclass with a `name` and `terms`, and a frozen dataclass `Config`
    if it has options; `train_student` takes it. Parameters of a subclass are trained beside the
    student's and are not stored with it.
    """

    name: ClassVar[str] = ""
    """In METHODS, or of your own."""
    Config: ClassVar[type[Any]] = NoOptions
    """Its options, a frozen dataclass whose fields all have defaults."""
    off: ClassVar[str] = ""
    """The option that it holds at 0, whatever is given."""
    canonical_kind: ClassVar[Kind | None] = None
    """Kind of the canonical set that it takes; None for a method without one."""
    canonical_guidance: ClassVar[float | None] = None
    """The guidance that the set must have been decoded with; None for any."""
    stronger_guidance: ClassVar[bool] = False
    """The set must have been decoded with a guidance above 1."""
    needs_teacher: ClassVar[bool] = False
    """It asks the diffusion model itself."""
    needs_classifier: ClassVar[bool] = False
    """It asks a stronger student."""
    needs_groups: ClassVar[bool] = False
    """It is told the group, class and spurious cue, of each training image."""
    needs_audit: ClassVar[bool] = False
    """It reads what the diffusion model said of the data."""
    audit_reads: ClassVar[tuple[Part, ...]] = ()
    """The parts of that which it reads, whatever there is without any. Another part may change,
    and the student is the same."""

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        """Build it; one process at a time does this, the main one first.

        A subclass may compute what it needs into the run's folder, and set `images` and
        `canonical` to others than those given. One that draws some images more often than others
        sets `weights`: float, (N,), one for each of `images`, on the CPU. An epoch then draws as
        many images as there are, with replacement and in proportion to these, by seed and epoch
        alone (`drawn_with_share` makes such weights); None, the default, draws each once.
        """
        super().__init__()
        self.student = student
        self.config, self.options = ingredients.config, ingredients.options
        self.images, self.canonical = ingredients.images, ingredients.canonical
        self.weights: Tensor | None = None
        # What students of its own took to train, which is counted as the run's: see TrainState.
        self.trained_before: list[Mapping[str, float]] = []
        self.shares: Shares | None = None  # of the student's pass, where several processes train
        self.ingredients = ingredients  # no module, so that a classifier in it is not trained

    @classmethod
    def variant(cls, name: str, **attributes: Any) -> "type[Method]":
        """Return the same method under another name, with other class attributes."""
        named = {"name": name, "__doc__": cls.__doc__, "__module__": cls.__module__}
        return type(cls.__name__, (cls,), named | attributes)

    @classmethod
    def audit_parts(cls, config: TrainingConfig) -> tuple[Part, ...]:
        """Return which parts of an audit a run reads: for the method, and to pick its epoch."""
        read = {*(cls.audit_reads or PARTS)} if cls.needs_audit else set[Part]()
        if config.pick == "doubted":
            read.add("errors")
        return tuple(part for part in PARTS if part in read)

    @classmethod
    def check_asked(cls, asked: AuditConfig) -> None:
        """Raise UserError if an audit of these settings leaves out what the method reads."""
        for part, (option, holds) in OPTIONAL.items():
            if part in cls.audit_reads and getattr(asked, option) == 0:
                raise UserError(
                    f"method {cls.name} reads {holds}, which an audit with `{option}=0` leaves "
                    "out: give a number above 0"
                )

    def prepare(
        self, images: UInt8[Tensor, "batch c h w"], positions: Indices, generator: torch.Generator
    ) -> UInt8[Tensor, "batch c h w"]:
        """Return a batch of training images as views are to be taken of them; here as they are.

        positions: which of `images` they are. The generator is that of the step; both it and the
        images are the CPU's.
        """
        return images

    @abstractmethod
    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss, scalars, by name."""

    def batches_of(self, epoch: int) -> list[Indices]:
        """Return an epoch's batches, as positions in `images`; drawn by `weights` if there are."""
        config = self.config
        size, seed = config.batch_size, config.seed
        return epoch_batches(len(self.images), size, seed, epoch, self.weights)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms and, as "loss", their sum."""
        with torch.autocast(batch.images.device.type, enabled=False):  # losses stay fp32
            terms = self.terms(batch)
        self._check_terms(terms)
        return terms | {"loss": torch.stack(list(terms.values())).sum()}

    def _check_terms(self, terms: object) -> None:
        """Raise UserError unless they are a dict of scalars by name, one of which is trained."""
        named = isinstance(terms, dict) and all(isinstance(name, str) for name in terms)
        values = list(terms.values()) if isinstance(terms, dict) else []
        scalar = [isinstance(one, Tensor) and one.ndim == 0 for one in values]
        if not (named and values and all(scalar)):
            raise UserError(
                f"`terms` of method {self.name} gives {_said(terms)}: give a dict of scalar "
                "tensors by name, such as {'ce': self.cross_entropy(logits, batch.labels)}"
            )
        if torch.is_grad_enabled() and not any(one.requires_grad for one in values):
            raise UserError(
                f"no term of method {self.name} follows from the student's weights, so that there "
                "is nothing to train: leave out `detach` and `no_grad` in `terms`"
            )

    def both(self, x: Float[Tensor, "batch c h w"]) -> tuple[Tensor, Tensor]:
        """Return the student's features (B, D) and logits (B, K) as fp32, in mixed precision.

        Of several processes each takes a share of the pass, and all of them have the whole.
        """
        dtype = _HALF[self.config.mixed_precision]
        mixed = dtype != torch.float32
        with torch.autocast(x.device.type, dtype=dtype if mixed else None, enabled=mixed):
            x = x.contiguous(memory_format=torch.channels_last)
            asked = self.student.both
            features, logits = self.shares.both(asked, x) if self.shares else asked(x)
        return features.float(), logits.float()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the classification loss, smoothed as configured."""
        return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)


def _said(terms: object) -> str:
    """Return what a method's terms are, in words."""
    if not isinstance(terms, dict):
        return f"a {type(terms).__name__}"
    kinds = {
        name: tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__
        for name, one in terms.items()
    }
    return f"a dict of {kinds}"
