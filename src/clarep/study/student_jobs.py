"""The students of a study: what their weights follow from, how they are trained and measured."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clarep.audit.audit_config import PARTS, Part
from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, stored_options
from clarep.distill.distill_config import DistillConfig, settled
from clarep.distill.methods import METHODS
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.artefacts import Progressed, read_json, sha256_file, write_json
from clarep.engine.devices import default_device
from clarep.engine.identity import address, differences, plain, recorded
from clarep.errors import UserError
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.measures import measure_of
from clarep.robustness.probe import Answers
from clarep.robustness.suite.suite import SuiteRun
from clarep.robustness.suite.suite_config import SuiteConfig
from clarep.students.student_files import STUDENT_NAME, load_student
from clarep.study.audit_jobs import AuditJob
from clarep.study.canonical_jobs import SetJob
from clarep.study.runs import ROBUSTNESS, STUDENT, STUDENT_CONFIG, STUDY_NAME
from clarep.teachers.teacher import Teacher


@dataclass(frozen=True, eq=False)
class StudentJob:
    """A student, or the classifier that others learn from, and all that its weights follow from."""

    kind: str  # student or classifier
    store: Path  # folder above its own
    title: str  # what the study calls it; empty for a classifier
    method: str  # one of METHODS
    student: str  # architecture
    layer: str | None  # of the student, which meets the teacher
    options: DataConfig  # what it is trained on, as the user named it
    data: LabelledImages  # the same, loaded
    train: DistillConfig  # how, its seed too
    canonical: SetJob | None = None  # for methods that take one
    teacher: Teacher | None = None  # for methods that ask it
    classifier: "StudentJob | None" = None  # for methods that ask it
    audit: AuditJob | None = None  # for methods that read it
    activation: str | None = None  # in place of the architecture's own
    unit = "epochs"

    @property
    def name(self) -> str:
        """Variant and seed, or the classifier's architecture."""
        return f"{self.title} seed {self.train.seed}" if self.title else self.student

    @cached_property
    def address(self) -> str:
        """What stands for its weights."""
        return self._address_by(METHODS[self.method].audit_parts(self.train))

    def _address_by(self, parts: Collection[Part]) -> str:
        """Return it by these parts of the audit."""
        settings = {name: getattr(self, name) for name in ("method", "student", "layer")}
        of_audit = self.audit and self.audit.address_of(parts)
        later = {"activation": self.activation, "audit": of_audit}
        settings |= {name: value for name, value in later.items() if value is not None}
        return address(
            settings
            | {
                "data_sha256": self.data.sha256(),
                "train": recorded(self.train, TrainingConfig),
                "options": recorded(settled(self.method, self.train)[1]),
                "seed": self.train.seed,
                "canonical": None,
                "canonical_address": self.canonical and self.canonical.address,
                "teacher_sha256": self.teacher and self.teacher.fingerprint,
                "classifier": None,
                "classifier_address": self.classifier and self.classifier.address,
            }
        )

    @cached_property
    def folder(self) -> Path:
        """The run."""
        start = f"{self.title}-seed{self.train.seed}" if self.title else self.kind
        earlier = self.store / f"{start}-{self._address_by(PARTS)}"  # versions that told all parts
        return earlier if earlier.exists() else self.store / f"{start}-{self.address}"

    @property
    def reads(self) -> tuple[Path, ...]:
        """Folders of jobs that come before it."""
        found = (self.canonical, self.classifier, self.audit)
        return tuple(one.folder for one in found if one is not None)

    def is_done(self) -> bool:
        """Tell whether the run's folder holds the whole student."""
        inside = self.folder / STUDENT
        try:
            stored = read_json(inside / STUDENT_CONFIG)
            return bool(stored["student_sha256"] == sha256_file(inside / STUDENT_NAME))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def build(self) -> Iterator[Progressed]:
        """Train it, yielding after each epoch."""
        training = StudentRun(
            self.data,
            self.folder / STUDENT,
            method=self.method,
            student=self.student,
            layer=self.layer,
            activation=self.activation,
            config=self.train,
            canonical=None if self.canonical is None else CanonicalSet.load(self.canonical.folder),
            teacher=self.teacher,
            classifier=None if self.classifier is None else load_student(self.classifier.folder),
            audit=None if self.audit is None else self.audit.folder,
            data_options=stored_options(self.options),
        )
        write_json(self.folder / STUDY_NAME, {"name": self.title}, sealed=True)
        yield Progressed(training.epoch, 0, self.train.epochs)
        for _ in training.records():
            yield Progressed(training.epoch, 1, self.train.epochs)
        training.finish()


@dataclass(frozen=True, eq=False)
class EvaluationJob:
    """What is measured on a student, and beside which other one."""

    run: StudentJob  # the student
    options: DataConfig  # how the test images are read
    images: LabelledImages  # the test images
    caveat: str  # what speaks against figures on them; empty where nothing does
    images_sha256: Mapping[str, str]  # of the test images that each group of the suite reads
    suite: SuiteConfig  # what is measured
    keys: tuple[str, ...]  # of the figures that it gives
    reference: Path | None  # vanilla's run: its attacks are transferred, its errors are mCE's unit
    kind = "evaluation"
    unit = "passes"

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def reads(self) -> tuple[Path, ...]:
        """Folders of jobs that come before it: the student's, and the reference's of its seed."""
        return (self.folder,) if self.reference is None else (self.folder, self.reference)

    def _described(self) -> dict[str, Any]:
        """Return what an evaluation's configuration tells of these settings."""
        return {
            "run": self.folder.name,
            "data_options": stored_options(self.options),
            "reference": self.reference and self.reference.name,
        } | ({"caveat": self.caveat} if self.caveat else {})

    def is_done(self) -> bool:
        """Tell whether the run's folder holds a whole evaluation of these settings.

        One from before a measure came is not whole, but for those that the student cannot give.
        """
        try:
            found = Evaluation.load(self.folder / ROBUSTNESS)
            answers = found.config.get("answers")
            cannot = Answers(**answers).lacking if answers else {}
        except (UserError, TypeError):  # also of answers that an earlier version told otherwise
            return False
        stored = found.config
        wanted = (key for key in self.keys if measure_of(key).group not in cannot)
        if not all(key in found for key in wanted):
            return False
        read = stored.get("data_sha256", {})
        expected = self._described() | {"suite": plain(self.suite)}
        expected |= {"data_sha256": {group: self.images_sha256.get(group) for group in read}}
        return bool(read) and not differences({key: stored.get(key) for key in expected}, expected)

    def build(self) -> Iterator[Progressed]:
        """Measure it, yielding after each part."""
        reference, baseline = None, None
        if self.reference is not None:
            reference = load_student(self.reference).to(default_device())
            baseline = Evaluation.load(self.reference / ROBUSTNESS)
        suite = SuiteRun(
            load_student(self.folder).to(default_device()),
            self.images,
            self.suite,
            folder=self.folder / ROBUSTNESS,
            described=self._described(),
            reference=reference,
            baseline=baseline,
        )
        yield from suite.steps()
        suite.evaluation()
