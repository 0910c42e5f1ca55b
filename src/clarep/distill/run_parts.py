"""What a run is put together from: the launcher's processes, sets, and what identifies them."""

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.held_out import Indices
from clarep.distill.augment import to_student_range
from clarep.distill.canonical_batches import CanonicalImages
from clarep.distill.distill_config import DistillConfig
from clarep.distill.methods import MethodSpec
from clarep.distill.train_data import TrainImages
from clarep.engine.extras import require_extra
from clarep.errors import UserError
from clarep.students.student import Student
from clarep.students.student_files import weights_hash
from clarep.teachers.teacher import Teacher

_EVALUATION_BATCH = 500


def make_accelerator(config: DistillConfig) -> Any:
    """Return accelerate's view of the processes: one by default, as many as were launched.

    Mixed precision is ours (it leaves the losses alone), so accelerate is told none. Raises
    UserError if accelerate is not installed, if it does not see all launched processes (each would
    train alone, into the same folder), or for fp16 without a GPU.
    """
    accelerator = require_extra("accelerate", "train").Accelerator(mixed_precision="no")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise UserError(
            f"{launched} processes were launched and accelerate joins {accelerator.num_processes}: "
            "without GPUs, set ACCELERATE_USE_CPU=true"
        )
    if config.mixed_precision == "fp16" and accelerator.device.type != "cuda":
        raise UserError(
            f"`mixed_precision=fp16` needs a GPU and this runs on {accelerator.device.type}: "
            "give bf16 or no"
        )
    return accelerator


@dataclass(frozen=True)
class Sources:
    """What a student may learn from beside its images."""

    canonical: CanonicalSet | None = None
    """A canonical set."""
    teacher: Teacher | None = None
    """A diffusion model."""
    classifier: Student | None = None
    """A stronger student."""

    def used_by(self, spec: MethodSpec) -> "Sources":
        """Return those that a method looks at; a teacher beside a set is compared with it."""
        return Sources(
            self.canonical if spec.canonical_kind else None,
            self.teacher if spec.needs_teacher or spec.canonical_kind else None,
            self.classifier if spec.needs_classifier else None,
        )

    def described(self, spec: MethodSpec) -> dict[str, Any]:
        """Return what a run's configuration holds of them."""
        asked = self.teacher if spec.needs_teacher else None
        classifier = {} if self.classifier is None else weights_hash(self.classifier)
        return {
            "canon": None if self.canonical is None else _describe_canonical(self.canonical),
            "teacher_sha256": None if asked is None else asked.fingerprint,
            "classifier_sha256": None,
            **{f"classifier_{name}": value for name, value in classifier.items()},
        }

    def on(self, device: torch.device, apart: Indices, config: DistillConfig) -> dict[str, Any]:
        """Return them as fields of `Ingredients`, the set without the images validated on."""
        canonical = None
        if self.canonical is not None:
            pooled = config.teacher_features == "pooled"
            canonical = CanonicalImages.of(self.canonical, pooled).without(apart).to(device)
        classifier = None
        if self.classifier is not None:
            classifier = self.classifier.to(device).eval()
        return {"canonical": canonical, "teacher": self.teacher, "classifier": classifier}


def _describe_canonical(canonical: CanonicalSet) -> dict[str, Any]:
    config = canonical.manifest["config"]
    return {
        "sha256": canonical.sha256,
        "teacher_sha256": config["teacher_sha256"],
        "kind": config["clarid"]["kind"],
        "guidance": config["clarid"]["guidance"],
        "images": len(canonical),
    }


@torch.no_grad()
def accuracy(student: Student, images: TrainImages, device: torch.device) -> float:
    """Return the share of images that the student names rightly, in evaluation mode."""
    student.eval()
    parts = np.array_split(np.arange(len(images)), math.ceil(len(images) / _EVALUATION_BATCH))
    right = 0
    for positions, batch in zip(parts, images.batches(parts), strict=True):
        logits = student(to_student_range(batch.to(device)))
        labels = images.labels[torch.from_numpy(positions)]
        right += int((logits.argmax(1).cpu() == labels).sum())
    return right / len(images)
