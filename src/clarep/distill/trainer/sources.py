"""What a student may learn from beside its images, and whether it belongs to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from clarep.audit.audit import Audit, check_audit
from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clareps import CLAReps
from clarep.data.cues import cues_of
from clarep.data.fits import check_alike, kind_of
from clarep.data.held_out import Indices
from clarep.data.labelled import LabelledImages
from clarep.distill.methods.base import Method
from clarep.distill.trainer.canonical_batches import CanonicalImages
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.identity import differences, plain
from clarep.engine.tensors import weights_hash
from clarep.errors import UserError, check_type
from clarep.students.student import Student
from clarep.teachers.teacher import Teacher


@dataclass(frozen=True)
class Sources:
    """What a student may learn from beside its images."""

    canonical: CanonicalSet | None = None
    """A canonical set."""
    teacher: Teacher | None = None
    """A diffusion model."""
    classifier: Student | None = None
    """A stronger student."""
    audit: Audit | None = None
    """What a diffusion model said of the data."""

    @classmethod
    def of(
        cls,
        canonical: CanonicalSet | Path | str | None,
        teacher: Teacher | None,
        classifier: Student | None,
        audit: Audit | Path | str | None,
    ) -> "Sources":
        """Load what is given as a folder; raises UserError, also for CLAReps of no folder."""
        if isinstance(canonical, CLAReps) and not isinstance(canonical, CanonicalSet):
            raise UserError("CLAReps in memory name no data: give a set that identify stored")
        if isinstance(canonical, Path | str):
            canonical = CanonicalSet.load(canonical)
        if isinstance(audit, Path | str):
            audit = Audit.load(audit)
        found = cls(canonical, teacher, classifier, audit)
        for name, kind, mend in (
            ("canonical", CanonicalSet, "a canonical set or its folder"),
            ("teacher", Teacher, "what load_teacher('backdrops') gives, say"),
            ("classifier", Student, "what load_student gives of a run's folder"),
            ("audit", Audit, "an audit or its folder"),
        ):
            if (given := getattr(found, name)) is not None:
                check_type(name, given, kind, mend)
        return found

    def used_by(self, method: type[Method], config: TrainingConfig) -> "Sources":
        """Return those that a method looks at; a teacher beside a set is compared with it."""
        return Sources(
            self.canonical if method.canonical_kind else None,
            self.teacher if method.needs_teacher or method.canonical_kind else None,
            self.classifier if method.needs_classifier else None,
            self.audit if method.audit_parts(config) else None,
        )

    def placed(
        self, device: torch.device, config: TrainingConfig, apart: Indices
    ) -> tuple[CanonicalImages | None, Teacher | None, Student | None, Audit | None]:
        """Return them as methods take them, on a device, without the images held apart."""
        taken = None
        if self.canonical is not None:
            pooled = config.teacher_features == "pooled"
            taken = CanonicalImages.of(self.canonical, pooled, apart).to(device)
        strong = self.classifier and self.classifier.to(device).eval()
        return taken, self.teacher, strong, self.audit

    def described(
        self, method: type[Method], data: LabelledImages, config: TrainingConfig
    ) -> dict[str, Any]:
        """Return what a run's configuration holds of them, and of the data's groups."""
        cues = cues_of(data) if method.needs_groups else None
        canonical, canon = self.canonical, dict[str, Any]()
        if canonical is not None:
            made_by = canonical.manifest["config"]["teacher_sha256"]
            canon |= {"sha256": canonical.sha256, "teacher_sha256": made_by}
            canon |= {name: canonical.setting[name] for name in ("kind", "guidance")}
            canon |= {"images": len(canonical)}
        asked = self.teacher if method.needs_teacher else None
        classifier = {} if self.classifier is None else weights_hash(self.classifier)
        audit = {}
        if self.audit is not None:
            read = self.audit.sha256_of(method.audit_parts(config))
            audit = {"audit_sha256": self.audit.sha256, "audit_read_sha256": read}
        return {
            "canon": canon or None,
            "teacher_sha256": None if asked is None else asked.fingerprint,
            "classifier_sha256": None,
            **{f"classifier_{name}": value for name, value in classifier.items()},
            **audit,
            **({} if cues is None else {"cues_sha256": sha256(cues.tobytes()).hexdigest()}),
        }

    def check(
        self, method: type[Method], data: LabelledImages, data_options: Mapping[str, Any] | None
    ) -> None:
        """Raise UserError if a method lacks what it needs, or is given what does not fit the data.

        data_options: how the data were read, which is only told.
        """
        canonical, teacher, classifier = self.canonical, self.teacher, self.classifier
        needs = {
            "`canonical`": (method.canonical_kind, canonical, "a folder of clarep identify"),
            "`teacher`": (method.needs_teacher, teacher, "a diffusion model, such as backdrops"),
            "`classifier`": (method.needs_classifier, classifier, "a folder of clarep distill"),
            "`audit`": (method.needs_audit, self.audit, "a folder of clarep audit"),
        }
        for option, (needed, given, what) in needs.items():
            if needed and given is None:
                raise UserError(f"method {method.name} needs {option}: give {what}")
        check_groups(method, data)
        if canonical is not None:
            check_canonical(canonical, data, data_options, teacher)
            check_kind(method, canonical)
        elif teacher is not None:
            check_alike("the teacher's", kind_of(teacher), data.name, kind_of(data))
        if classifier is not None:
            check_alike("the classifier's", kind_of(classifier.info), data.name, kind_of(data))
        if self.audit is not None:
            check_audit(self.audit, data)


def check_groups(method: type[Method], data: LabelledImages) -> None:
    """Raise UserError if a method is told groups that the data do not know."""
    if method.needs_groups and cues_of(data) is None:
        raise UserError(
            f"method {method.name} is told the groups of images, and {data.name} knows no "
            "spurious cues: give data that do, such as backdrops, or a method that is told "
            "none, such as jtt"
        )


def check_kind(method: type[Method], canonical: CanonicalSet) -> None:
    """Raise UserError if the set was not made as the method wants it."""
    kind, guidance = canonical.setting["kind"], canonical.setting["guidance"]
    needed = method.canonical_guidance
    if kind != method.canonical_kind:
        takes, found = f"kind {method.canonical_kind}", f"kind {kind}"
    elif needed not in (None, guidance):
        takes, found = f"guidance {needed:g}", f"guidance {guidance:g}"
    elif method.stronger_guidance and guidance <= 1:
        takes, found, needed = "a guidance above 1", f"guidance {guidance:g}", 3.0
    else:
        return
    command = f"`clarep identify --kind {method.canonical_kind}`"
    if needed is not None:
        command = f"`clarep identify --kind {method.canonical_kind} --guidance {needed:g}`"
    raise UserError(
        f"method {method.name} takes a canonical set of {takes} and {canonical.folder} is of "
        f"{found}: make one with {command} and else the options of that set"
    )


def check_canonical(
    canonical: CanonicalSet,
    data: LabelledImages,
    data_options: Mapping[str, Any] | None,
    teacher: Teacher | None,
) -> None:
    """Raise UserError if the set was made of other data, classes or teacher than these.

    Images and labels are told by their content; how they were read is only said.
    """
    config, folder = canonical.manifest["config"], canonical.folder
    if teacher is not None and config["teacher_sha256"] != teacher.fingerprint:
        raise UserError(
            f"{folder} was made with another teacher than `teacher` (weights "
            f"{config['teacher_sha256'][:12]} there, {teacher.fingerprint[:12]} given): give the "
            "teacher that made it, or leave `teacher` out"
        )
    own = config["class_names"], canonical[:1].sample.shape[1:]
    check_alike(f"{folder}'s", own, data.name, kind_of(data))
    chosen, options = config["chosen"], config.get("data_options")
    if not config.get("data_sha256"):
        raise UserError(
            f"{folder} does not tell of which images it was made, as `CLAReps.save` stores it: "
            "give a set that identify stored"
        )
    content = data.sha256(chosen) if max(chosen) < len(data) else None
    there, here = dict[str, Any](), dict[str, Any]()
    if options and data_options:
        there, here = {"data_options": options}, {"data_options": dict(data_options)}
    there, here = there | {"data_sha256": config["data_sha256"]}, here | {"data_sha256": content}
    if difference := differences(there, plain(here)):
        raise UserError(
            f"{folder} was made of other data than {data.name} ({difference}): give a set of "
            "these data, or the data that it was made of, as they were"
        )
