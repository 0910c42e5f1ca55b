"""`Study`: what a recipe needs, where each part belongs, and which parts are there already."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from clarep.clarid.clarid import Clarid
from clarep.data.files import NoSplitError
from clarep.data.foregrounds import separate
from clarep.data.held_out import HELD_OUT, Indices, seen_before, split_off
from clarep.data.labelled import LabelledImages, subset
from clarep.data.load import DataConfig, load_data, load_test
from clarep.distill.methods import METHODS
from clarep.distill.trainer.run_folder import PICKED_ON_THESE
from clarep.engine.artefacts import Progressed
from clarep.errors import UserError
from clarep.robustness.images_read import sha256_read, widest
from clarep.robustness.suite.suite import SuiteRun
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student
from clarep.study.canonical_jobs import SetSettings, new_set, settings_of
from clarep.study.comparison import REFERENCE
from clarep.study.recipe import Recipe, Variant
from clarep.study.student_jobs import EvaluationSettings, StudentSettings
from clarep.teachers.classes_by_name import of_classes
from clarep.teachers.options import recorded
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

STORE, RUNS = "store", "runs"


@dataclass(frozen=True)
class Job:
    """One thing to build: done or not, and resumable."""

    kind: str
    """Canonical set, classifier, student or evaluation."""
    name: str
    """Which: kind of directions, or variant and seed."""
    folder: Path
    """Where it is built."""
    cost_class: str
    """Jobs of one class take about as long as each other."""
    unit: str
    """What its progress counts."""
    is_done: Callable[[], bool] = field(repr=False)
    """Look whether it is there, whole and of these settings."""
    build: Callable[[], Iterator[Progressed]] = field(repr=False)
    """Build it, or go on with it, yielding after each part."""


class Study:
    """A recipe's jobs in a folder, in the order in which they can be done.

    Args:
        recipe: what is studied.
        out: folder; `out/store` holds canonical sets and classifiers, `out/runs` the students.

    Attributes:
        jobs: all of them, done or not.
        runs: folder of every run, with the variant that it is of.
        canonical: folder of the set that the report shows, None if no method needs one.
        left_out: which measures the test data have nothing for, and why; or empty.

    Raises:
        UserError: for data, a teacher, or an existing canonical set that cannot be had or do
            not fit each other.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe = recipe
        self.out = out
        self.jobs: list[Job] = []
        self.runs: dict[Path, Variant] = {}
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

    @property
    def test(self) -> LabelledImages:
        """What they are measured on."""
        return self._tested[1]

    @cached_property
    def seen(self) -> str:
        """How many of the test images students are trained on; empty if none."""
        _, test, trained = self._tested
        return seen_before(set(self.data.marks(trained)), test, widest(test, self.recipe.evaluate))[
            1
        ]

    @cached_property
    def test_sha256(self) -> dict[str, str]:
        """Of the test images that each group of the suite reads."""
        suite, parts = self.recipe.evaluate, separate(self.test)
        return {group: sha256_read(self.test, parts, suite, group) for group in suite.groups}

    @cached_property
    def teacher(self) -> Teacher:
        """The recipe's teacher, of the data's classes."""
        teacher = load_teacher(self.recipe.teacher, self.recipe.teacher_options)
        return of_classes(teacher, self.data.class_names)

    def _check_students(self) -> None:
        """Raise UserError for what would only fail after hours: test data, students, measures."""
        names, test = self.data.class_names, self.test
        if test.class_names != names:
            raise UserError(
                f"recipe {self.recipe.name}: {test.name} has other classes than {self.data.name}: "
                "give test data of the same classes"
            )
        channels, height, width = self.data.images([0]).shape[1:]
        for name, layer in dict.fromkeys((v.student, v.layer) for v in self.recipe.variants):
            student = build_student(StudentInfo(name, names, (channels, height, width)), layer)
            self.left_out = SuiteRun(student, test, self.recipe.evaluate, untrained=True).left_out

    def _add_all(self) -> None:
        sets = {variant.name: self._add_set(variant) for variant in self.recipe.variants}
        tops = [found for found in sets.values() if found and found[1].kind == "top"]
        self.canonical = next(iter([*tops, *filter(None, sets.values())]), (None,))[0]
        self._add_classifier()
        # Seed by seed, so that early tables compare all methods; what others need comes first.
        variants = sorted(self.recipe.variants, key=lambda variant: variant.name != REFERENCE)
        for seed in self.recipe.seeds:
            reference = None
            for variant in variants:
                run = self._add_run(variant, seed, sets[variant.name], reference)
                reference = run if variant.name == REFERENCE else reference

    def _add_set(self, variant: Variant) -> tuple[Path, SetSettings] | None:
        """Plan the canonical set that a variant needs, if any, and say where it is."""
        method = METHODS[variant.method]
        if method.canonical_kind is None:
            return None
        top = self.top(variant)
        settings = top.of(method.canonical_kind, method.canonical_guidance)
        if method.stronger_guidance and settings.clarid.guidance <= 1:
            raise UserError(
                f"recipe {self.recipe.name}: {variant.name} decodes with a guidance above 1 and "
                f"[clarid] guidance is {settings.clarid.guidance:g}: give 3, say, or leave "
                f"{variant.name} out"
            )
        if settings == top and self.recipe.canonical.top is not None:
            return self.recipe.canonical.top, settings
        Clarid(self.teacher, settings.clarid)  # raises for settings that do not fit the teacher
        folder = self.out / STORE / f"{settings.kind}-{settings.address}"
        if all(job.folder != folder for job in self.jobs):
            self.jobs.append(
                Job(
                    kind="canonical set",
                    name=settings.kind,
                    folder=folder,
                    cost_class=f"canonical set {settings.kind}",
                    unit="images",
                    is_done=partial(settings.is_built, folder),
                    build=lambda: settings.build(self.teacher, self.data, folder),
                )
            )
        return folder, settings

    def top(self, variant: Variant) -> SetSettings:
        """Return the settings of CLARID's own set, from which the controls' follow."""
        recipe = self.recipe
        if recipe.canonical.top is not None:
            return settings_of(
                recipe.canonical.top, recipe.teacher, self.teacher, recipe.data, self.data
            )
        return new_set(
            recipe.teacher,
            self.teacher,
            recipe.data,
            self.data,
            fraction=variant.fraction,
            clarid=variant.clarid,
            seed=variant.canonical_seed,
            teacher_options=recorded(recipe.teacher_options),
        )

    def _add_classifier(self) -> None:
        """Plan the classifier, a vanilla student of another architecture, if a method needs it."""
        if self._classifier is None:
            return
        folder, settings = self._classifier
        self.jobs.append(self._training("classifier", settings.student, folder, settings))

    @cached_property
    def _classifier(self) -> tuple[Path, StudentSettings] | None:
        recipe = self.recipe
        if not any(METHODS[variant.method].needs_classifier for variant in recipe.variants):
            return None
        settings = StudentSettings(
            method=REFERENCE,
            student=recipe.classifier_student,
            layer=None,
            data=recipe.data,
            data_sha256=self.data.sha256(),
            train=recipe.train,
            seed=recipe.seeds[0],
        )
        return self.out / STORE / f"classifier-{settings.address}", settings

    def _add_run(
        self,
        variant: Variant,
        seed: int,
        found: tuple[Path, SetSettings] | None,
        reference: Path | None,
    ) -> Path:
        """Plan a variant's student of one seed and its evaluation; return the run's folder."""
        method = METHODS[variant.method]
        classifier = self._classifier if method.needs_classifier else None
        settings = StudentSettings(
            method=variant.method,
            student=variant.student,
            layer=variant.layer,
            data=self.recipe.data,
            data_sha256=self.data.sha256(),
            train=variant.train,
            seed=seed,
            canonical=None if found is None else found[0],
            canonical_address=None if found is None else found[1].address,
            teacher_sha256=self.teacher.fingerprint if method.needs_teacher else None,
            classifier=None if classifier is None else classifier[0],
            classifier_address=None if classifier is None else classifier[1].address,
        )
        folder = self.out / RUNS / f"{variant.name}-seed{seed}-{settings.address}"
        self.runs[folder] = variant
        options, images, _ = self._tested
        picked = options.split == HELD_OUT and variant.train.pick == "best"
        measuring = EvaluationSettings(
            test=options,
            images=images,
            caveat="; ".join(filter(None, (self.seen, PICKED_ON_THESE if picked else ""))),
            test_sha256=self.test_sha256,
            suite=self.recipe.evaluate,
            reference=reference,
        )
        name = f"{variant.name} seed {seed}"
        self.jobs.append(self._training("student", name, folder, settings, variant.name))
        self.jobs.append(
            Job(
                kind="evaluation",
                name=name,
                folder=folder,
                cost_class=f"evaluation {variant.student}",
                unit="passes",
                is_done=partial(measuring.is_measured, folder),
                build=partial(measuring.measure_in, folder),
            )
        )
        return folder

    def _training(
        self, kind: str, name: str, folder: Path, settings: StudentSettings, variant: str = ""
    ) -> Job:
        def build() -> Iterator[Progressed]:
            needs_teacher = settings.teacher_sha256 is not None
            teacher = self.teacher if needs_teacher else None
            return settings.train_in(folder, self.data, teacher, variant)

        return Job(
            kind=kind,
            name=name,
            folder=folder,
            cost_class=f"{kind} {settings.method} {settings.student}",
            unit="epochs",
            is_done=partial(settings.is_trained, folder),
            build=build,
        )
