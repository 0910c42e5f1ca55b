"""`clarep audit`: ask a teacher which images go against their class's cue."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from clarep.audit.audit import Audit as Found
from clarep.audit.audit_config import AuditConfig
from clarep.audit.audit_run import audit_steps
from clarep.audit.extraneous_part import readable_parts
from clarep.audit.projected_evidence import projected_evidence
from clarep.clarid.canonical_set import CanonicalSet
from clarep.cli.option_groups import DataGroup, Json, SkipBad, TeacherGroup, TeacherSpec
from clarep.cli.terminal import note, told
from clarep.data.class_balance import class_balanced_choice
from clarep.data.cues import cues_of
from clarep.data.fits import check_alike, kind_of
from clarep.data.labelled import LabelledImages, readable_indices
from clarep.data.load import DataConfig, load_data, stored_options
from clarep.distill.trainer.sources import check_canonical
from clarep.engine.bounds import Within
from clarep.engine.printable import counted
from clarep.engine.progress import announce, progress
from clarep.report.audit_scores import (
    detection_rows,
    detection_table,
    probabilities_of,
    read_scores,
    readable_rows,
    readable_table,
    store_scores,
)
from clarep.report.audit_table import audit_table, most_doubted, said_of
from clarep.report.projected_scores import (
    are_of,
    no_longer_against,
    projected_rows,
    projected_table,
    said_of_change,
)
from clarep.select.class_match import matched_by_number, of_the_datas_classes
from clarep.students.student import Student
from clarep.students.student_files import load_student
from clarep.teachers.options import TeacherOptions, recorded
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher, sources

_TABLES = {"detection": detection_table, "readable": readable_table, "projected": projected_table}


@dataclass(frozen=True)
class Audit:
    """Ask a teacher, without masks or groups, which images go against their class's cue.

    A folder holds what it says, for methods of clarep distill that read it. Killed at any moment,
    the same command goes on and ends with the same bytes.
    """

    data: DataGroup = field(default_factory=DataConfig)
    audit: Annotated[AuditConfig, tyro.conf.arg(name="")] = field(default_factory=AuditConfig)
    teacher_options: TeacherGroup = field(default_factory=TeacherOptions)
    teacher: TeacherSpec = "backdrops"
    classifier: Path | None = None
    """Run of a student trained on these data, of few epochs best: where the data know their cues,
    its errors (JTT) and its confident-learning score stand beside the doubt."""
    canon: Path | None = None
    """Canonical set of some of the images: says how well the label is read from the part of them
    that CLARID takes out, and how much the teacher's evidence for each image's class changes
    without it."""
    fraction: Annotated[float, Within(0, 1, "(]")] = 1.0
    """Share of every class to ask about, chosen at random by the seed."""
    show: Annotated[int, Within(0)] = 10
    """Most doubted images to name."""
    skip_bad: SkipBad = False
    out: Path = Path("runs/audit")
    """Folder of the audit: manifest.json, errors.safetensors, and what else was asked for."""
    json: Json = False

    def run(self) -> None:
        """Ask, and print what the answers say."""
        teacher = load_teacher(self.teacher, self.teacher_options)
        data = told(load_data(self.data))
        teacher, chosen_by_name = of_the_datas_classes(teacher, data)
        note(chosen_by_name)
        classifier = self._classifier(data)
        canonical = self._canonical(teacher, data)
        parts = [] if canonical is None else readable_parts(canonical)
        chosen, bad = self._readable(data)
        described = sources(self.teacher, self.data, recorded(self.teacher_options))
        described |= ({"skipped": bad} if bad else {}) | data.noted()
        steps = audit_steps(teacher, data, self.out, self.audit, chosen, described=described)
        start = next(steps)  # which refuses other numbers of classes
        note(matched_by_number(teacher, data, judged=True))
        announce(f"audit: {start.total - start.done} of {start.total} denoisings to do")
        with progress("audit", "denoisings", start.total, start.done) as advance:
            for step in steps:
                advance(step.new)
        found = Found.load(self.out)
        seen = None if classifier is None else probabilities_of(classifier, found, data)
        detected = detection_rows(found, data, seen)
        scores = {"detection": detected, "readable": readable_rows(parts, data.class_names)}
        store_scores(found, scores | self._projected(teacher, found, canonical))
        self._print(found, data, bad)

    def _classifier(self, data: LabelledImages) -> Student | None:
        """Return the student whose scores stand beside the doubt, if there is what to find."""
        if self.classifier is None:
            return None
        student = load_student(self.classifier)
        check_alike("the classifier's", kind_of(student.info), data.name, kind_of(data))
        if cues_of(data) is None:
            note(f"{data.name} knows no cues, so that `classifier` is held against nothing")
            return None
        return student

    def _canonical(self, teacher: Teacher, data: LabelledImages) -> CanonicalSet | None:
        """Return the canonical set of these images and this teacher, if one is given."""
        if self.canon is None:
            return None
        canonical = CanonicalSet.load(self.canon)
        check_canonical(canonical, data, stored_options(self.data), teacher)
        return canonical

    def _projected(
        self, teacher: Teacher, found: Found, canonical: CanonicalSet | None
    ) -> dict[str, list[dict[str, Any]]]:
        """Return class evidence before and after the projection, unless it is known already."""
        known = read_scores(found).get("projected", [])
        if canonical is None or are_of(known, canonical.sha256):
            return {}
        seed, size = int(canonical.config["seed"]), self.audit.batch_size
        evidence = projected_evidence(teacher, canonical, seed=seed, batch_size=size)
        level, sha256 = canonical.sigma_te, canonical.sha256
        return projected_rows(evidence, found, sigma_te=level, canonical_sha256=sha256)

    def _readable(self, data: LabelledImages) -> tuple[Any, list[str]]:
        """Return the images to ask about, None for all, and why others cannot be read."""
        if not self.skip_bad and self.fraction == 1:
            return None, []
        balanced = class_balanced_choice(data.labels, self.fraction, self.audit.seed)
        return readable_indices(data, balanced, skip_bad=True) if self.skip_bad else (balanced, [])

    def _print(self, found: Found, data: LabelledImages, bad: list[str]) -> None:
        doubted, cost = most_doubted(found, data.sources, self.show), found.manifest["cost"]
        scores = read_scores(found)
        images = scores.get("projected_images", [])
        if self.json:
            names = found.class_names
            classes = [
                asdict(row)
                | {"class": names[row.label], "sigma": sigma}
                | {"rival": None if row.rival is None else found.name_of(row.rival)}
                for level, sigma in enumerate(found.config.sigmas)
                for row in found.evidence().by_class(level)
            ]
            answer = {"images": len(found.index), "classes": classes, "most_doubted": doubted}
            answer |= {name: scores.get(name, []) for name in (*_TABLES, "projected_images")}
            answer |= {"cost": cost, "skipped": bad, "wrote": {"audit": str(self.out)}}
            print(json.dumps(answer, indent=2))
            return
        for entry in bad:
            print(f"skipped {entry}")
        print(audit_table(found))
        for name, table in _TABLES.items():
            if rows := scores.get(name):
                print(table(rows))
        for image in doubted:
            print(said_of(image))
        for image in no_longer_against(images, data.sources, self.show):
            print(said_of_change(image))
        if refused := found.manifest.get("masks", {}).get("refused"):
            note(f"no object masks: {refused}")
        print(
            f"{counted(len(found.index), 'image')}, {sum(cost['seconds'].values()):.0f} s, "
            f"{cost['denoiser_evaluations']} denoiser evaluations, "
            f"peak memory {cost['peak_memory_mb']} MiB"
        )
        print(f"audit in {self.out}")
