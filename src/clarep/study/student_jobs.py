"""The students of a study: their settings, their addresses, how they are trained and measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, stored_options
from clarep.distill.distill_config import DistillConfig, settled
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.artefacts import Progressed, differences, read_json, sha256_file, write_json
from clarep.engine.identity import address, plain, recorded
from clarep.errors import UserError
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.suite.suite import SuiteRun
from clarep.robustness.suite.suite_config import SuiteConfig
from clarep.students.student_files import STUDENT_NAME, load_student
from clarep.study.runs import ROBUSTNESS, STUDENT, STUDENT_CONFIG, STUDY_NAME
from clarep.teachers.teacher import Teacher


@dataclass(frozen=True)
class StudentSettings:
    """All that a student's weights follow from, and where its ingredients lie."""

    method: str
    """One of METHODS."""
    student: str
    """Architecture."""
    layer: str | None
    """Of the student, which meets the teacher."""
    data: DataConfig
    """What it is trained on, as the user named it."""
    data_sha256: str
    """Of these images and their labels."""
    train: DistillConfig
    """How; the seed in it is not used."""
    seed: int
    """Of everything random."""
    canonical: Path | None = None
    """Folder of the canonical set, for methods that take one."""
    canonical_address: str | None = None
    """What stands for its content."""
    teacher_sha256: str | None = None
    """Of the diffusion model's weights, for methods that ask it."""
    classifier: Path | None = None
    """Folder of the classifier, for methods that ask it."""
    classifier_address: str | None = None
    """What stands for its content."""

    @property
    def address(self) -> str:
        """What stands for the student's weights: all settings but where its ingredients lie."""
        nowhere = replace(self, canonical=None, classifier=None)
        settings = {name: value for name, value in plain(nowhere).items() if name != "data"}
        settings["train"] = recorded(self.config, TrainingConfig)
        settings["options"] = recorded(settled(self.method, self.train)[1])
        return address(settings)

    @property
    def config(self) -> DistillConfig:
        """How it is trained, its seed too."""
        return replace(self.train, seed=self.seed)

    def is_trained(self, run: Path) -> bool:
        """Tell whether the run's folder holds the whole student."""
        try:
            stored = read_json(run / STUDENT / STUDENT_CONFIG)
            return bool(stored["student_sha256"] == sha256_file(run / STUDENT / STUDENT_NAME))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def train_in(
        self, run: Path, data: LabelledImages, teacher: Teacher | None, name: str
    ) -> Iterator[Progressed]:
        """Train the student in the run's folder or go on, yielding after each epoch.

        name: what the study calls the run; it is stored beside it.
        """
        training = StudentRun(
            data,
            run / STUDENT,
            method=self.method,
            student=self.student,
            layer=self.layer,
            config=self.config,
            canonical=None if self.canonical is None else CanonicalSet.load(self.canonical),
            teacher=teacher,
            classifier=None if self.classifier is None else load_student(self.classifier),
            data_options=stored_options(self.data),
        )
        write_json(run / STUDY_NAME, {"name": name}, sealed=True)
        total = self.train.epochs
        yield Progressed(training.epoch, 0, total)
        for _ in training.records():
            yield Progressed(training.epoch, 1, total)
        training.finish()


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured on a student, and beside which other one."""

    test: DataConfig
    """How the test images are read."""
    images: LabelledImages
    """The test images."""
    caveat: str
    """What speaks against figures on them; empty where nothing does."""
    test_sha256: Mapping[str, str]
    """Of the test images that each group of the suite reads."""
    suite: SuiteConfig
    """What is measured."""
    reference: Path | None
    """Run of the vanilla student: attacks are transferred from it, corruption errors divided by
    its; None where there is no other."""

    def described(self, run: Path) -> dict[str, Any]:
        """Return what an evaluation's configuration tells of these settings."""
        reference = None if self.reference is None else self.reference.name
        return {
            "run": run.name,
            "data_options": stored_options(self.test),
            "reference": reference,
        } | ({"caveat": self.caveat} if self.caveat else {})

    def is_measured(self, run: Path) -> bool:
        """Tell whether the run's folder holds a whole evaluation of these settings."""
        try:
            stored = Evaluation.load(run / ROBUSTNESS).config
        except UserError:
            return False
        read = stored.get("data_sha256", {})
        expected = self.described(run) | {"suite": plain(self.suite)}
        expected |= {"data_sha256": {group: self.test_sha256.get(group) for group in read}}
        return bool(read) and not differences({key: stored.get(key) for key in expected}, expected)

    def measure_in(self, run: Path) -> Iterator[Progressed]:
        """Measure the run's student or go on, yielding after each part."""
        reference = baseline = None
        if self.reference is not None:
            reference = load_student(self.reference)
            baseline = Evaluation.load(self.reference / ROBUSTNESS)
        suite = SuiteRun(
            load_student(run),
            self.images,
            self.suite,
            folder=run / ROBUSTNESS,
            described=self.described(run),
            reference=reference,
            baseline=baseline,
        )
        yield from suite.steps()
        suite.evaluation()
