"""`clarep distill`: train a student by CaDistill or one of its rivals."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from clarep.clarid.canonical_set import CanonicalSet
from clarep.cli.option_groups import DataGroup, Json, SkipBad, TeacherGroup
from clarep.cli.terminal import note, told
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data, stored_options
from clarep.distill.distill_config import STUDENT_DATA, DistillConfig, check_distill
from clarep.distill.methods import method_named
from clarep.distill.methods.base import Method
from clarep.distill.train_student import walk
from clarep.distill.trainer.student_run import StudentRun
from clarep.engine.tracker import Tracker, check_tracker
from clarep.errors import UserError
from clarep.students.student_files import STUDENT_NAME, load_student
from clarep.teachers.classes_by_name import of_classes
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher


@dataclass(frozen=True)
class Distill:
    """Train a student; killed at any moment, the same command goes on to the same weights.

    Under accelerate launch -m clarep.cli.main distill ... or torchrun, on many processes.
    """

    data: DataGroup = field(default_factory=lambda: STUDENT_DATA)
    train: DistillConfig = field(default_factory=DistillConfig)
    """How to train."""
    method: str = "cadistill"
    """Vanilla; cadistill and its ablations cadistill-no-align, -no-cano, -no-dist; its controls
    reconstruction, guidance-only, random, bottom, middle, class-mean; its rivals
    diffusion-features, generated, supcon, kd, rkd, adv, augment, diffaug, gradient-norm, noise,
    jtt, and, told the groups of class and cue, group-balanced, group-dro, dfr;
    evidence, its twin evidence-norm without a teacher, and its controls evidence-shuffled,
    evidence-class-mean; compose, its control compose-centre and its oracle compose-true; doubted;
    evidence-compose and its twin evidence-norm-compose, adv-compose."""
    student: str = "resnet8"
    """Architecture: resnet8, resnet8-half, resnet18, wrn16-2, vit-tiny, or timm:NAME."""
    layer: str | None = None
    """The student's layer that meets the teacher; without it, what its head reads."""
    activation: Literal["relu", "silu", "gelu"] | None = None
    """In place of the architecture's own (relu; of vit-tiny gelu); not of timm:NAME."""
    canon: Path | None = None
    """Folder of a canonical set, for CaDistill and its controls."""
    audit: Path | None = None
    """Folder that clarep audit wrote, for methods that read it."""
    teacher: str | None = None
    """A bundled teacher's name, a path or FAMILY:PLACE, for diffusion-features, diffaug
    and generated; elsewhere only checked to be the one that made the canonical set."""
    teacher_options: TeacherGroup = field(default_factory=TeacherOptions)
    classifier: Path | None = None
    """Folder or file of a stronger student, for kd and rkd."""
    skip_bad: SkipBad = False
    tracker: Tracker | None = None
    """What draws curves: TensorBoard in the run's tensorboard/ (without this where it is
    installed), Weights & Biases, or none."""
    out: Path = Path("runs/distill")
    """Folder of the run: student/ holds student.safetensors, config.json, history.jsonl,
    checkpoint.pt and tensorboard/."""
    json: Json = False

    def run(self) -> None:
        """Train to the end, then write the picked student."""
        data, method = self._data(), method_named(self.method)
        check_distill(self.train)
        check_tracker(self.tracker)
        canonical = None
        if self.canon is not None and method.canonical_kind:
            canonical = CanonicalSet.load(self.canon)
        images = load_data(data)
        run = StudentRun(
            images,
            self.out / "student",
            method=self.method,
            student=self.student,
            layer=self.layer,
            activation=self.activation,
            config=self.train,
            canonical=canonical,
            teacher=self._teacher(images),
            classifier=None if self.classifier is None else load_student(self.classifier),
            audit=self.audit if self.audit and method.audit_parts(self.train) else None,
            data_options=stored_options(data),
            skip_bad=self.skip_bad,
        )
        if run.is_main:
            told(images)
            for reason in run.skipped:
                note(f"skipped {reason}")
            note(self._unread(method))
        walk(run, self.tracker)
        done = run.finish()
        if run.is_main:
            self._print(done)

    def _data(self) -> DataConfig:
        """Return what to train on; the default correlation is of backdrops and of a cue alone."""
        is_tied = self.data.data == "backdrops" or self.data.cue is not None
        if not is_tied and self.data.correlation == STUDENT_DATA.correlation:
            return replace(self.data, correlation=DataConfig.correlation)
        return self.data

    def _unread(self, method: type[Method]) -> str:
        """Name what is given and the method passes over; a path need not even exist."""
        read = {
            "canon": method.canonical_kind,
            "audit": method.audit_parts(self.train),
            "teacher": method.needs_teacher or method.canonical_kind,
            "classifier": method.needs_classifier,
        }
        names = [f"`{name}`" for name, reads in read.items() if getattr(self, name) and not reads]
        return f"method {self.method} does not read {' or '.join(names)}" if names else ""

    def _teacher(self, images: LabelledImages) -> Teacher | None:
        if self.teacher is not None:
            teacher = load_teacher(self.teacher, self.teacher_options)
            return of_classes(teacher, images.class_names)
        if self.teacher_options != TeacherOptions():
            raise UserError(
                "options of a teacher are given and no --teacher is: give one, or leave them out "
                "(they are not the student's)"
            )
        return None

    def _print(self, done: dict[str, Any]) -> None:
        path = self.out / "student" / STUDENT_NAME
        keys = ("method", "picked_epoch", "validation_accuracy", "seconds", "skipped")
        if self.json:
            print(json.dumps({key: done[key] for key in keys} | {"student": str(path)}))
            return
        accuracy = done["validation_accuracy"]
        text = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
        print(f"{self.method}: epoch {done['picked_epoch']}{text}, {done['seconds']:.0f} s")
        print(f"student in {path}")
