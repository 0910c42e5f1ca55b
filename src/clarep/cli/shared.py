"""What `clarep identify` and `clarep select` have in common."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clarep.clarid.measures import judge_knows
from clarep.data.backdrops import Backdrops
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig
from clarep.distill.student import Student
from clarep.distill.students import load_student
from clarep.report.quality import check_classifier
from clarep.teachers.options import TeacherOptions, recorded
from clarep.teachers.teacher import Teacher


def describe(
    teacher: str, data: DataConfig, options: TeacherOptions | None = None
) -> dict[str, Any]:
    """Return what was given of teacher and data, as JSON values: part of a run's configuration.

    Of the teacher's options those alone that change what it computes, if any was given.
    """
    plain: dict[str, Any] = json.loads(json.dumps(asdict(data), default=str))
    described = {"teacher": teacher, "data_options": plain}
    given = recorded(options or TeacherOptions())
    return described | ({"teacher_options": given} if given else {})


def load_classifier(place: Path | None, teacher: Teacher) -> Student | None:
    """Return the student at `place`, which is to judge the teacher's samples; None for None.

    Raises UserError if there is none, or it is of other classes or images than the teacher's.
    """
    if place is None:
        return None
    student = load_student(place)
    check_classifier(student, teacher)
    return student


def note(text: str) -> None:
    """Say on stderr what a run does otherwise than one may expect."""
    print(f"clarep: note: {text}", file=sys.stderr)


def warn(text: str) -> None:
    """Say on stderr why a run's result should not be trusted."""
    print(f"clarep: warning: {text}", file=sys.stderr)


def note_other_classes(
    teacher: Teacher, data: LabelledImages, classifier: Student | None = None
) -> None:
    """Say so where the classes of the data are not named as the teacher's.

    classifier: what judges instead of the bundled judge.
    """
    ours, theirs = tuple(data.class_names), tuple(teacher.class_names)
    if ours == theirs:
        return
    text = (
        "the classes of the data are not named as the teacher's "
        f"({', '.join(ours[:3])} ... against {', '.join(theirs[:3])} ...); "
        "labels are matched by number"
    )
    if isinstance(data, Backdrops) and not judge_knows(teacher, data) and classifier is None:
        text += "; the judge knows the ten garments alone, so that nothing is measured with it"
    note(text)


def warn_of_other_classes(teacher: Teacher, data: LabelledImages) -> None:
    """Say so where the teacher has never heard of any class of the data.

    Names that are numbers say nothing: there labels may well be matched by number.
    """
    ours, theirs = tuple(data.class_names), tuple(teacher.class_names)
    numbers = all(name.isdigit() for name in ours) or all(name.isdigit() for name in theirs)
    if numbers or not set(ours).isdisjoint(theirs):
        return
    warn(
        f"no class of the data ({', '.join(ours[:3])} ...) is one of the teacher's "
        f"({', '.join(theirs[:3])} ...): it saw the images as its own classes, and what was found "
        "says nothing of them; train a teacher of such images (clarep train-teacher --data), or "
        "give one with --teacher"
    )
