"""`Study`: what a recipe needs, and where it belongs."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clarep.audit.questions import Questions
from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import settled
from clarep.data.files import NoSplitError
from clarep.data.foregrounds import separate
from clarep.data.held_out import HELD_OUT, Indices, seen_before, split_off
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data, load_test
from clarep.data.subset import subset
from clarep.distill.methods import METHODS
from clarep.distill.trainer.run_folder import picked_on_these
from clarep.distill.trainer.sources import check_groups
from clarep.errors import UserError
from clarep.robustness.suite.suite import SuiteRun
from clarep.robustness.suite.suite_inputs import sha256_read, widest
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student
from clarep.study.audit_jobs import AuditJob
from clarep.study.canonical_jobs import SetJob
from clarep.study.comparison import REFERENCE
from clarep.study.recipe import Recipe, Variant
from clarep.study.runs import RUNS
from clarep.study.student_jobs import EvaluationJob, StudentJob
from clarep.teachers.classes_by_name import of_classes
from clarep.teachers.options import recorded
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

STORE = "store"
Job = SetJob | AuditJob | StudentJob | EvaluationJob
"""One thing to build, in `folder`: `is_done` tells whether it is there, whole and of its settings,
and `build` builds it or goes on with it, yielding after each part. Jobs before it whose folders it
`reads` have to be done."""


class Study:
    """A recipe's jobs in a folder, in the order in which they can be done.

    Args:
        recipe: what is studied.
        out: folder; `out/store` holds canonical sets, the audit and classifiers, `out/runs` the
            students.

    Attributes:
        jobs: all of them, done or not.
        runs: folder of every run.
        canonical: folder of the set that the report shows, None if no method needs one.
        audit: what the teacher is asked of the training images, None if no method needs it.
        left_out: which measures the test data have nothing for, and why; or empty.

    Raises:
        UserError: for data, a teacher, or an existing canonical set that cannot be had or do
            not fit each other.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe = recipe
        self.out = out
        self.jobs: list[Job] = []
        self.runs: list[Path] = []
        self.canonical: Path | None = None
        self.left_out = ""
        self._check_students()
        self._add_all()

    @cached_property
    def data(self) -> LabelledImages:
        """What students are trained on."""
        return load_data(self.recipe.data)

    @cached_property
    def _tested(self) -> tuple[DataConfig, LabelledImages, Indices]:
        """How test images are read (or held out), these, and which of the data are trained on."""
        recipe, asked = self.recipe, self.recipe.test
        try:
            found = load_test(asked) if asked.split == "test" else (asked, load_data(asked))
            return *found, np.arange(len(self.data))
        except NoSplitError:
            same = replace(asked, split=recipe.data.split) == recipe.data
            if not same or asked.split not in ("test", HELD_OUT):
                raise
        trained = [recipe.train, *(variant.train for variant in recipe.variants)]
        share = min(train.validation_share for train in trained)
        if share == 0:
            raise UserError(
                f"recipe {recipe.name}: {self.data.name} has no test split and a validation_share "
                "of 0 holds nothing out: give a share above 0, or other data in [test]"
            )
        kept, apart = split_off(self.data, share)
        return replace(asked, split=HELD_OUT), subset(self.data, apart, HELD_OUT), kept

    @cached_property
    def seen(self) -> str:
        """How many of the test images students are trained on; empty if none."""
        _, test, trained = self._tested
        marks = set(self.data.marks(trained))
        _, said = seen_before(marks, test, widest(test, self.recipe.evaluate))
        return said

    @cached_property
    def _read_sha256(self) -> dict[str, str]:
        """Of the test images that each group of the suite reads."""
        suite, test = self.recipe.evaluate, self._tested[1]
        parts = separate(test)
        return {group: sha256_read(test, parts, suite, group) for group in suite.groups}

    @cached_property
    def teacher(self) -> Teacher:
        """The recipe's teacher, of the data's classes."""
        teacher = load_teacher(self.recipe.teacher, self.recipe.teacher_options)
        return of_classes(teacher, self.data.class_names)

    def _check_students(self) -> None:
        """Raise UserError for what would only fail after hours: test data, students, measures."""
        names, test = self.data.class_names, self._tested[1]
        if test.class_names != names:
            raise UserError(
                f"recipe {self.recipe.name}: {test.name} has other classes than {self.data.name}: "
                "give test data of the same classes"
            )
        for method in dict.fromkeys(variant.method for variant in self.recipe.variants):
            check_groups(METHODS[method], self.data)
        channels, height, width = self.data.images([0]).shape[1:]
        asked = ((v.student, v.activation, v.layer) for v in self.recipe.variants)
        for name, activation, layer in dict.fromkeys(asked):
            info = StudentInfo(name, names, (channels, height, width), activation)
            student = build_student(info, layer)
            suite = SuiteRun(student, test, self.recipe.evaluate, untrained=True)
            self.left_out = suite.left_out
            self._keys = tuple(key for part in suite.parts for key in part.keys)

    def _add_all(self) -> None:
        sets = {variant.name: self._add_set(variant) for variant in self.recipe.variants}
        found = sorted(filter(None, sets.values()), key=lambda one: one.name != "top")
        self.canonical = found[0].folder if found else None
        self.jobs += filter(None, (self.audit, self._classifier))
        # Seed by seed, so that early tables compare all methods; what others need comes first.
        variants = sorted(self.recipe.variants, key=lambda variant: variant.name != REFERENCE)
        for seed in self.recipe.seeds:
            reference = None
            for variant in variants:
                run = self._add_run(variant, seed, sets[variant.name], reference)
                reference = run if variant.name == REFERENCE else reference

    def _add_set(self, variant: Variant) -> SetJob | None:
        """Plan the canonical set that a variant needs, if any, unless it is there or planned."""
        method = METHODS[variant.method]
        if method.canonical_kind is None:
            return None
        job = self.top(variant).of(method.canonical_kind, method.canonical_guidance)
        if method.stronger_guidance and job.clarid.guidance <= 1:
            raise UserError(
                f"recipe {self.recipe.name}: {variant.name} decodes with a guidance above 1 and "
                f"[clarid] guidance is {job.clarid.guidance:g}: give 3, say, or leave "
                f"{variant.name} out"
            )
        if job.existing is None and all(job.folder != planned.folder for planned in self.jobs):
            Clarid(self.teacher, job.clarid)  # raises for settings that do not fit the teacher
            self.jobs.append(job)
        return job

    def top(self, variant: Variant) -> SetJob:
        """Return CLARID's own set of a variant, from which the controls' follow."""
        existing = self.recipe.canonical.top
        clarid = settled(variant.clarid, self.teacher)
        top = SetJob(**self._asked, clarid=clarid)
        if existing is not None:
            return top.existing_in(existing)
        return top.of_share(variant.fraction, variant.canonical_seed)

    @cached_property
    def audit(self) -> AuditJob | None:
        """What the teacher says of the training images, for methods that read it."""
        recipe = self.recipe
        read = [METHODS[variant.method].audit_parts(variant.train) for variant in recipe.variants]
        if not (any(read) or METHODS[REFERENCE].audit_parts(recipe.train)):  # for a classifier
            return None
        for method in (METHODS[variant.method] for variant in recipe.variants):
            if method.needs_audit:
                method.check_asked(recipe.audit)
        Questions.of(self.teacher, self.data, recipe.audit, [0])  # raises for what does not fit
        return AuditJob(**self._asked, config=recipe.audit)

    @cached_property
    def _asked(self) -> dict[str, Any]:
        """Which teacher is asked about which images, and where the answers are kept."""
        recipe = self.recipe
        return {
            "store": self.out / STORE,
            "spec": recipe.teacher,
            "teacher": self.teacher,
            "teacher_options": recorded(recipe.teacher_options),
            "options": recipe.data,
            "data": self.data,
        }

    @cached_property
    def _classifier(self) -> StudentJob | None:
        """The vanilla student of another architecture that some methods learn from."""
        recipe = self.recipe
        if not any(METHODS[variant.method].needs_classifier for variant in recipe.variants):
            return None
        return StudentJob(
            kind="classifier",
            store=self.out / STORE,
            title="",
            method=REFERENCE,
            student=recipe.classifier_student,
            layer=None,
            options=recipe.data,
            data=self.data,
            train=replace(recipe.train, seed=recipe.seeds[0]),
            audit=self.audit if METHODS[REFERENCE].audit_parts(recipe.train) else None,
        )

    def _add_run(
        self, variant: Variant, seed: int, canonical: SetJob | None, reference: Path | None
    ) -> Path:
        """Plan a variant's student of one seed and its evaluation; return the run's folder."""
        method = METHODS[variant.method]
        student = StudentJob(
            kind="student",
            store=self.out / RUNS,
            title=variant.name,
            method=variant.method,
            student=variant.student,
            layer=variant.layer,
            activation=variant.activation,
            options=self.recipe.data,
            data=self.data,
            train=replace(variant.train, seed=seed),
            canonical=canonical,
            teacher=self.teacher if method.needs_teacher else None,
            classifier=self._classifier if method.needs_classifier else None,
            audit=self.audit if method.audit_parts(variant.train) else None,
        )
        options, images, _ = self._tested
        picked = picked_on_these(variant.train.pick) if options.split == HELD_OUT else ""
        evaluation = EvaluationJob(
            run=student,
            options=options,
            images=images,
            caveat="; ".join(filter(None, (self.seen, picked))),
            images_sha256=self._read_sha256,
            suite=self.recipe.evaluate,
            keys=self._keys,
            reference=reference,
        )
        self.jobs += [student, evaluation]
        self.runs.append(student.folder)
        return student.folder
