"""`clarep identify`: from a labelled data set to canonical samples, measures and a picture."""

import json
import math
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from clarep.audit.chosen_images import ChoiceConfig, chosen_images
from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.canonical_shards import find_manifest, read_manifest
from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import ClaridConfig, find_stored, is_auto, unfound
from clarep.clarid.identify import SHARD_SIZE, identify_steps
from clarep.clarid.round_trip import POOR_PSNR, RoundTrip, median_round_trip
from clarep.cli.option_groups import (
    ChoiceGroup,
    ClaridGroup,
    DataGroup,
    EngineGroup,
    Json,
    JudgeRun,
    SkipBad,
    TeacherGroup,
    TeacherSpec,
)
from clarep.cli.settled_setting import settled_on
from clarep.cli.terminal import note, told, warn
from clarep.data.backdrops import Backdrops
from clarep.data.labelled import LabelledImages, in_memory
from clarep.data.load import DataConfig, load_data
from clarep.engine.artefacts import Progressed
from clarep.engine.bounds import Seed, Within
from clarep.engine.fan_out import EngineConfig, check_engine
from clarep.engine.flags import flags
from clarep.engine.lock import hold_place
from clarep.engine.places import Folder, Place, copy_folder, part_of, place_of, work_folder
from clarep.engine.printable import counted
from clarep.engine.progress import announce, progress
from clarep.errors import UserError
from clarep.report.measures_table import (
    CLASSIFIER_NAME,
    judge_originals,
    measure_rows,
    measures_table,
    write_classifier,
)
from clarep.report.quality import load_classifier
from clarep.report.set_figures import draw_set
from clarep.select.clarep_measures import Measures, judge_knows
from clarep.select.class_match import matched_by_number, of_the_datas_classes, taken_for_others
from clarep.select.controls import check_controls, measured_on
from clarep.students.student import Student
from clarep.students.student_files import load_judge
from clarep.teachers.options import TeacherOptions, recorded
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher, sources


@dataclass(frozen=True)
class Identify:
    """Find the canonical latent representations of a share of a data set.

    Killed at any moment, the same command goes on and ends with the same bytes.
    """

    data: DataGroup = field(default_factory=DataConfig)
    clarid: ClaridGroup = field(default_factory=ClaridConfig)
    teacher_options: TeacherGroup = field(default_factory=TeacherOptions)
    engine: EngineGroup = field(default_factory=EngineConfig)
    teacher: TeacherSpec = "backdrops"
    fraction: Annotated[float, Within(0, 1, "(]")] = 0.1
    """Share of every class that is chosen, at random unless told otherwise."""
    choice: ChoiceGroup = field(default_factory=ChoiceConfig)
    only: tuple[int, ...] = ()
    """Images to take instead of a share, by their numbers in the data."""
    seed: Seed = 0
    """Seed of the choice, of the solver's start and of random directions."""
    controls: tuple[str, ...] = ("none", "reconstruction", "random", "scrambled")
    """What to measure beside it; none, reconstruction, random, centre, bottom, middle, scrambled,
    or data:PATH, images of other data."""
    control_images: Annotated[int, Within(0)] = 100
    """Images, evenly from the classes, on which all rows are measured; 0 skips."""
    classifier: JudgeRun = None
    shard_size: Annotated[int, Within(1)] = SHARD_SIZE
    """Images a shard: what a kill can cost."""
    skip_bad: SkipBad = False
    part: str | None = None
    """I/N, such as 3/8: make every N-th shard alone; other processes make the other parts of the
    same set, and the last one closes it."""
    out: Path = Path("runs/identify")
    """Folder of the run: canon/ holds the set, report/ the picture and the table. Or an address
    that fsspec knows, such as s3://BUCKET/RUN."""
    json: Json = False

    def run(self) -> None:
        """Compute, measure, draw, and say where everything is."""
        check_controls(self.controls, 0, np.empty(0, np.int64))
        check_engine(self.engine, self.teacher_options.device)
        part, place = part_of(self.part), place_of(self.out)
        canon, report = place / "canon", work_folder(self.out) / "report"
        teacher, data, classifier = self._loaded()
        among, choice = chosen_images(data, self.choice, self.fraction, self.seed, self.only)
        data, chosen, bad = in_memory(data, self.skip_bad, among)
        shards = math.ceil(len(chosen) / self.shard_size)
        if part is not None and part[0] > shards:
            self._say_of_part(f"has nothing to do, {canon} has {shards} shards", complete=False)
            return
        _lock = hold_place(Folder(work_folder(self.out)), part)
        described = sources(self.teacher, self.data, recorded(self.teacher_options))
        setting, noted = settled_on(
            self.clarid,
            teacher,
            data,
            chosen,
            folder=work_folder(self.out) / "setting",
            described=described,
            classifier=classifier,
            seed=self.seed,
        )
        clarid = Clarid(teacher, setting)
        described |= choice | ({"skipped": bad} if bad else {})
        steps = identify_steps(
            clarid,
            data,
            str(canon),
            chosen,
            described=described | data.noted(),
            noted=noted,
            seed=self.seed,
            shard_size=self.shard_size,
            part=part,
            engine=self.engine,
        )
        if clarid.num_dirs is None and self.clarid.kind != "none":
            announce(f"identify: settling k = {self.clarid.k} by exact spectra of a few images")
        start = next(steps)
        note(matched_by_number(teacher, data, classifier is not None))
        self._say_of_start(teacher, data, read_manifest(canon)["findings"])
        if not self._made(steps, start):
            self._say_who_closes(canon, shards)
            return
        canonical = CanonicalSet.load(str(canon))
        self._warn_of_poor_round_trips(median_round_trip(canonical))
        measured, judge = self._measure(clarid, data, canonical, classifier)
        pictures = draw_set(canonical, report)
        copy_folder(report, place / "report")
        self._print(canonical, measured, judge, pictures, bad)

    def _loaded(self) -> tuple[Teacher, LabelledImages, Student | None]:
        """Return teacher, data and classifier; raise UserError for what does not fit them."""
        teacher = load_teacher(self.teacher, self.teacher_options)
        Clarid(teacher, unfound(self.clarid))  # refuses what does not fit before data are read
        data = told(load_data(self.data))
        teacher, chosen_by_name = of_the_datas_classes(teacher, data)
        note(chosen_by_name)
        if self.part and is_auto(self.clarid) and find_stored(teacher, self.clarid) is None:
            raise UserError(
                f"--part {self.part} makes shards of one setting, and t and k are still to be "
                "found: find them first with clarep select, and give --t and --k"
            )
        classifier = load_classifier(self.classifier, teacher)
        if isinstance(data, Backdrops) or classifier is not None:
            check_controls(self.controls, self.control_images, data.labels)
        return teacher, data, classifier

    def _say_of_start(
        self, teacher: Teacher, data: LabelledImages, findings: dict[str, Any]
    ) -> None:
        """Say what is otherwise than one may expect, of teacher and data."""
        warn(taken_for_others(teacher, data, findings["recognition"]))
        if not self.only and self.fraction * np.bincount(data.labels).max() < 0.5:
            note(
                f"--fraction {self.fraction:g} is less than half an image of every class: one of "
                "each is taken"
            )

    def _made(self, steps: Generator[Progressed, None, bool], start: Progressed) -> bool:
        """Make all shards, with a bar; tell whether this process closed the set."""
        announce(
            f"identify: {start.total - start.done} of {start.total} images to do, "
            f"in shards of {self.shard_size}{f', part {self.part}' if self.part else ''}"
        )
        with progress("identify", "images", start.total, start.done) as advance:
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    return bool(end.value)
                advance(step.new, "" if self.part or step.done < step.total else "now its pictures")

    def _say_who_closes(self, canon: Place, shards: int) -> None:
        stored = find_manifest(canon)
        done = len(stored["shards"]) if stored else 0
        complete = stored is not None and stored["complete"]
        rest = (
            f"another part closes {canon} and draws it, or the same command without --part"
            if complete
            else f"the part that ends last closes {canon}"
        )
        self._say_of_part(
            f"is done, {done} of {shards} shards are there: {rest}", complete=complete
        )

    def _say_of_part(self, what: str, *, complete: bool) -> None:
        if self.json:
            print(json.dumps({"part": self.part, "complete": complete, "what": what}))
        else:
            print(f"part {self.part} {what}")

    def _measure(
        self,
        clarid: Clarid,
        data: LabelledImages,
        canonical: CanonicalSet,
        classifier: Student | None,
    ) -> tuple[list[Measures], dict[str, Any] | None]:
        """Measure all rows and write them; return them, and what was recorded of the classifier."""
        if self.control_images == 0:
            return [], None
        subset, too_few = measured_on(canonical, self.control_images)
        if too_few:
            note(too_few)
            return [], None
        folder = work_folder(self.out) / "report"
        kinds = [*dict.fromkeys((self.clarid.kind, *self.controls))]
        shards = [shard["sha256"] for shard in canonical.manifest["shards"]]
        described = {"canonical_sha256": shards, "control_images": self.control_images}
        judge = classifier or (load_judge() if judge_knows(clarid.teacher, data) else None)
        steps = measure_rows(
            clarid, judge, data, subset, kinds, folder=folder, described=described, seed=self.seed
        )
        kind, rows = next(steps)
        # One row may cost a hundred times another: no time left could be true.
        with progress("measure", "rows", len(kinds), len(rows), even=False) as advance:
            while kind:
                exact = f" (exact Jacobians of {counted(len(subset), 'image')}, slow)"
                slow = kind in ("bottom", "middle") and kind != self.clarid.kind
                advance(0, f"now {kind}{exact if slow else ''}")
                kind, rows = next(steps)
                advance(1)
        recorded = None if classifier is None else judge_originals(classifier, data, subset)
        write_classifier(recorded, folder)
        return rows, recorded

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
        report = work_folder(self.out) / "report"
        places: dict[str, object] = {"canonical set": place_of(self.out) / "canon", **pictures}
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
                "measures": [asdict(row) for row in measured],
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
            f"{counted(len(canonical), 'image')}, {sum(cost['seconds'].values()):.0f} s, "
            f"{cost['denoiser_evaluations']} denoiser evaluations, "
            f"{cost['jacobian_products']} Jacobian products, "
            f"peak memory {cost['peak_memory_mb']} MiB, median round trip {trip}"
        )
        for name, path in places.items():
            print(f"{name} in {path}")
