"""`clarep identify`: from a labelled data set to canonical samples, measures and a picture."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from clarep.clarid.canonical_set import MANIFEST, CanonicalSet
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.identify import SHARD_SIZE, identify_steps
from clarep.clarid.round_trip import POOR_PSNR, RoundTrip, median_round_trip
from clarep.cli.shared import (
    describe,
    flags,
    load_classifier,
    note,
    note_other_classes,
    of_the_datas_classes,
    told,
    warn,
    warn_of_other_classes,
)
from clarep.data.backdrops import Backdrops
from clarep.data.labelled import (
    LabelledImages,
    class_balanced_choice,
    in_memory,
    to_unit_range,
)
from clarep.data.load import DataConfig, load_data
from clarep.engine.artefacts import read_json
from clarep.engine.bounds import Seed, Within
from clarep.engine.lock import hold
from clarep.engine.progress import announce, progress
from clarep.engine.tensors import weights_hash
from clarep.errors import UserError, unknown_name
from clarep.report.measures_table import (
    CLASSIFIER_NAME,
    measures_table,
    read_measures,
    write_classifier,
    write_measures,
)
from clarep.report.quality import student_judge
from clarep.report.set_figures import draw_set
from clarep.select.clarep_measures import Measures, judge_knows, judged
from clarep.select.controls import CONTROLS, measure_set
from clarep.students.judge import load_judge
from clarep.students.student import Student
from clarep.teachers.options import TeacherOptions
from clarep.teachers.zoo import load_teacher

_FEWEST_MEASURED = 2  # of each class: with one, k-means finds the classes whatever the features


@dataclass(frozen=True)
class Identify:
    """Find the canonical latent representations of a share of a data set.

    Killed at any moment, the same command goes on and ends with the same bytes.
    """

    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    """Which images."""
    clarid: Annotated[ClaridConfig, tyro.conf.arg(name="")] = field(default_factory=ClaridConfig)
    """How their CLAReps are found."""
    teacher_options: Annotated[TeacherOptions, tyro.conf.arg(name="")] = field(
        default_factory=TeacherOptions
    )
    """How the teacher is loaded and run."""
    teacher: str = "backdrops"
    """A bundled teacher's name, a path to a teacher.safetensors or its folder, or FAMILY:PLACE such
    as dit:PATH."""
    fraction: Annotated[float, Within(0, 1, "(]")] = 0.1
    """Share of every class that is chosen at random."""
    seed: Seed = 0
    """Seed of the choice, of the solver's start and of random directions."""
    controls: tuple[str, ...] = ("none", "reconstruction", "random")
    """For backdrops, or with --classifier: what to measure beside it; none, reconstruction, random,
    bottom, middle."""
    control_images: Annotated[int, Within(0)] = 100
    """For the same: images, evenly from the classes, on which all rows are measured; 0 skips."""
    classifier: Path | None = None
    """Run of a student trained on the same classes (clarep distill --method vanilla), which judges
    samples where the bundled judge does not know the classes, or instead of it."""
    shard_size: Annotated[int, Within(1)] = SHARD_SIZE
    """Images a shard: what a kill can cost."""
    skip_bad: bool = False
    """Go on without unreadable images, and list them."""
    out: Path = Path("runs/identify")
    """Folder of the run: canon/ holds the set, report/ the picture and the table."""
    json: bool = False
    """Print one JSON object instead of lines; progress goes to stderr."""

    def run(self) -> None:
        """Compute, measure, draw, and say where everything is."""
        self._check()
        teacher = load_teacher(self.teacher, self.teacher_options)
        Clarid(teacher, self.clarid)  # refuses what does not fit before data are read
        data = told(load_data(self.data))
        teacher = of_the_datas_classes(teacher, data)
        clarid = Clarid(teacher, self.clarid)
        classifier = load_classifier(self.classifier, teacher)
        self._check_control_images(data)
        balanced = class_balanced_choice(data.labels, self.fraction, self.seed)
        data, chosen, bad = in_memory(data, self.skip_bad, balanced)
        _lock = hold(self.out)
        self._identify(clarid, data, chosen, classifier, bad)
        canonical = CanonicalSet.load(self.out / "canon")
        self._warn_of_poor_round_trips(median_round_trip(canonical))
        measured, recorded = self._measure(clarid, data, canonical, classifier)
        pictures = draw_set(canonical, self.out / "report")
        self._print(canonical, measured, recorded, pictures, bad)

    def _check(self) -> None:
        """Raise UserError for what would only fail after hours."""
        for name in self.controls:
            if name not in CONTROLS:
                raise unknown_name("control", name, CONTROLS)

    def _check_control_images(self, data: LabelledImages) -> None:
        fewest = _FEWEST_MEASURED * len(np.unique(data.labels))
        measured = isinstance(data, Backdrops) or self.classifier is not None
        if measured and 0 < self.control_images < fewest:
            raise UserError(
                f"--control-images {self.control_images} are too few to measure on: give at "
                f"least {fewest}, two of each class, or 0 to skip the table"
            )

    def _identify(
        self,
        clarid: Clarid,
        data: LabelledImages,
        chosen: NDArray[np.int64],
        classifier: Student | None,
        bad: list[str],
    ) -> None:
        described = describe(self.teacher, self.data, self.teacher_options)
        described |= {"fraction": self.fraction} | ({"skipped": bad} if bad else {})
        described |= data.noted()
        steps = identify_steps(
            clarid,
            data,
            self.out / "canon",
            chosen,
            described=described,
            seed=self.seed,
            shard_size=self.shard_size,
        )
        if clarid.num_dirs is None and self.clarid.kind != "none":
            announce(f"identify: settling k = {self.clarid.k} by exact spectra of a few images")
        start = next(steps)
        note_other_classes(clarid.teacher, data, classifier)
        findings = read_json(self.out / "canon" / MANIFEST)["findings"]
        warn_of_other_classes(clarid.teacher, data, findings["recognition"])
        if self.fraction * np.bincount(data.labels).max() < 0.5:
            note(
                f"--fraction {self.fraction:g} is less than half an image of every class: one of "
                "each is taken"
            )
        announce(
            f"identify: {start.total - start.done} of {start.total} images to do, "
            f"in shards of {self.shard_size}"
        )
        with progress("identify", "images", start.total, start.done) as advance:
            for step in steps:
                advance(step.new, "now its pictures" if step.done == step.total else "")

    def _measure(
        self,
        clarid: Clarid,
        data: LabelledImages,
        canonical: CanonicalSet,
        classifier: Student | None,
    ) -> tuple[list[Measures], dict[str, Any] | None]:
        """Measure all rows and write them; return them, and what was recorded of the classifier."""
        known = classifier is not None or judge_knows(clarid.teacher, data)
        if not known or self.control_images == 0:
            return [], None
        subset = canonical.balanced(self.control_images)
        labels, counts = subset.tensors["label"].unique(return_counts=True)
        if int(counts.min()) < _FEWEST_MEASURED:
            note(
                f"class '{data.class_names[int(labels[counts.argmin()])]}' has {int(counts.min())} "
                f"of the {len(subset)} images that would be measured, and the table takes two of "
                "each class: it is left out; a larger --fraction gives it"
            )
            return [], None
        judge = classifier or load_judge()
        folder, config = self.out / "report", self._measured_by(canonical, judge)
        rows, scorer = read_measures(folder, config), student_judge(judge)
        kinds = list(dict.fromkeys((self.clarid.kind, *self.controls)))
        missing = [kind for kind in kinds if kind not in rows]
        # One row may cost a hundred times another: no time left could be true.
        with progress("measure", "rows", len(kinds), len(kinds) - len(missing), even=False) as step:
            for kind in missing:
                control = None if kind == self.clarid.kind else kind
                exact = f" (exact Jacobians of {len(subset)} images, slow)"
                step(0, f"now {kind}{exact if control in ('bottom', 'middle') else ''}")
                rows[kind] = measure_set(clarid, scorer, data, subset, control, seed=self.seed)
                write_measures(list(rows.values()), folder, config)
                step(1)
        # Rows of an earlier command with more controls stay in the files.
        measured = [rows[kind] for kind in kinds]
        write_measures(
            list({kind: rows[kind] for kind in (*kinds, *rows)}.values()), folder, config
        )
        recorded = None if classifier is None else _on_originals(classifier, data, subset)
        write_classifier(recorded, folder)
        return measured, recorded

    def _measured_by(self, canonical: CanonicalSet, judge: Student) -> dict[str, Any]:
        """Return all that a row of the table follows from, but for its kind."""
        return {
            "canonical_sha256": [shard["sha256"] for shard in canonical.manifest["shards"]],
            "control_images": self.control_images,
            "seed": self.seed,
            "judge_sha256": weights_hash(judge)["sha256"],
        }

    def _warn_of_poor_round_trips(self, trip: RoundTrip) -> None:
        """Say so where the teacher cannot even give back the images it was shown."""
        if trip.poor:
            warn(
                f"the median round trip is {trip}, below {POOR_PSNR:g} dB: inverted and "
                "decoded, the images do not come back, and what is found says little about them: "
                f"--steps {self.clarid.steps} is too low, or the teacher does not know such "
                "images; give more, or with --teacher one of such images, yours or that of clarep "
                f"train-teacher{flags(replace(self.data, split='train'))}"
            )

    def _print(
        self,
        canonical: CanonicalSet,
        measured: list[Measures],
        recorded: dict[str, Any] | None,
        pictures: dict[str, Path],
        bad: list[str],
    ) -> None:
        report = self.out / "report"
        places = {"canonical set": self.out / "canon"} | pictures
        if measured:
            places |= {"table": report / "measures.csv"}
        if recorded is not None:
            places |= {"classifier": report / CLASSIFIER_NAME}
        trip, findings = median_round_trip(canonical), canonical.manifest["findings"]
        if self.json:
            answer: dict[str, Any] = {
                "images": len(canonical),
                "round_trip_psnr_median": trip.psnr,
                "cost": canonical.manifest["cost"],
                "measures": [row.as_dict() for row in measured],
                "skipped": bad,
                "wrote": {name: str(path) for name, path in places.items()},
            } | findings
            print(json.dumps(answer | ({"classifier": recorded} if recorded else {}), indent=2))
            return
        for entry in bad:
            print(f"skipped {entry}")
        if measured:
            print(measures_table(measured, recorded))
        cost = canonical.manifest["cost"]
        if lost := len(canonical) - cost["images"]:
            print(f"what {lost} of the images cost is not known: their manifest was made again")
        print(
            f"{len(canonical)} images, {sum(cost['seconds'].values()):.0f} s, "
            f"{cost['denoiser_evaluations']} denoiser evaluations, "
            f"{cost['jacobian_products']} Jacobian products, "
            f"peak memory {cost['peak_memory_mb']} MiB, median round trip {trip}"
        )
        for name, path in places.items():
            print(f"{name} in {path}")


def _on_originals(
    classifier: Student, data: LabelledImages, subset: CanonicalSet
) -> dict[str, Any]:
    """Return which classifier it is, and what it says of the images that the rows were made of."""
    images = to_unit_range(data.images(subset.tensors["index"].numpy()))
    said = judged(student_judge(classifier), images, subset.tensors["label"])
    return {
        "student": classifier.info.name,
        **weights_hash(classifier),
        "originals": {"images": len(subset)} | said,
    }
