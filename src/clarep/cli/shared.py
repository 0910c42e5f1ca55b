"""What `clarep identify` and `clarep select` have in common."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from clarep.cli.terminal import say
from clarep.data.backdrops import Backdrops
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, stored_options
from clarep.errors import UserError
from clarep.report.quality import check_classifier
from clarep.select.clarep_measures import judge_knows
from clarep.students.student import Student
from clarep.students.student_files import load_student
from clarep.teachers.classes_by_name import of_classes
from clarep.teachers.options import TeacherOptions, recorded
from clarep.teachers.teacher import Teacher
from clarep.teachers.unet_teacher import UNetTeacher
from clarep.teachers.zoo import stored_spec

_IMAGENET = 1000  # classes


def describe(
    teacher: str, data: DataConfig, options: TeacherOptions | None = None
) -> dict[str, Any]:
    """Return what was given of teacher and data, as JSON values: part of a run's configuration.

    Paths are absolute. Of the teacher's options those alone that change what it computes, if any
    was given.
    """
    described = {"teacher": stored_spec(teacher), "data_options": stored_options(data)}
    given = recorded(options or TeacherOptions())
    return described | ({"teacher_options": given} if given else {})


def flags(settings: Any, *names: str) -> str:
    """Return the fields of a dataclass that differ from their defaults, as command-line options.

    names: those that are looked at; all without any. Empty, or it starts with a space.
    """
    given = ""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value != field.default and field.name in (names or (field.name,)):
            given += f" --{field.name.replace('_', '-')}"
            given += "" if value is True else f" {shlex.quote(str(value))}"
    return given


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
    say(f"note: {text}")


def warn(text: str) -> None:
    """Say on stderr why a run's result should not be trusted."""
    say(f"warning: {text}")


def told(data: LabelledImages) -> LabelledImages:
    """Return a set, having said what should be known of it before it is trusted."""
    for text in data.notes:
        note(text)
    return data


def of_the_datas_classes(teacher: Teacher, data: LabelledImages) -> Teacher:
    """Return the teacher; where the data hold a few of its classes, all by name, with these alone.

    Raises UserError if data and teacher have the same classes in another order.
    """
    check_order_of_classes(teacher, data)
    found = of_classes(teacher, data.class_names)
    if found is not teacher:
        note(
            f"the teacher knows {teacher.num_classes} classes; the {found.num_classes} of the data "
            "are chosen by name"
        )
    return found


def check_order_of_classes(teacher: Teacher, data: LabelledImages) -> None:
    """Raise UserError if data and teacher have the same classes in another order."""
    ours, theirs = tuple(data.class_names), tuple(teacher.class_names)
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise UserError(
            f"the data have the teacher's classes in another order ({', '.join(ours[:3])} ... "
            f"against {', '.join(theirs[:3])} ...), and labels are matched by number: of class "
            "folders, which are sorted by name, give --classes-file with the teacher's order, or "
            "put the names of --class-names in the data's"
        )


def note_other_classes(
    teacher: Teacher, data: LabelledImages, classifier: Student | None = None
) -> None:
    """Say so where the classes of the data are not named as the teacher's.

    classifier: what judges instead of the bundled judge.
    """
    ours, theirs = tuple(data.class_names), tuple(teacher.class_names)
    if _are_matched(ours, theirs):
        return
    text = (
        "the classes of the data are not named as the teacher's "
        f"({', '.join(ours[:3])} ... against {', '.join(theirs[:3])} ...); "
        f"labels are matched by number, '{ours[0]}' with '{theirs[0]}'"
    )
    if isinstance(data, Backdrops) and not judge_knows(teacher, data) and classifier is None:
        text += "; the judge knows the ten garments alone, so that nothing is measured with it"
    note(text)


def warn_of_other_classes(
    teacher: Teacher, data: LabelledImages, recognition: Mapping[str, Any] | None = None
) -> None:
    """Warn before a run where the teacher must take the images for others than they are.

    recognition: as a manifest's findings hold it. Where it could tell, it decides. Else the names
    do: where the teacher has never heard of any class of the data, or knows its classes by numbers
    alone and has more of them than the data. Data whose names are numbers say nothing: there
    labels may well be matched by number.
    """
    own = isinstance(teacher, UNetTeacher)  # it takes no other names
    choose = "" if own else "name or choose the classes with --class-names, "
    mend = f"{choose}train a teacher of such images (clarep train-teacher --data), or give one "
    mend += "with --teacher"
    verdict = (recognition or {}).get("verdict")
    if recognition and verdict == "near chance":
        warn(
            f"the teacher does not know these classes ({recognition['said']}): what is found says "
            f"nothing of them; check that the labels are right, or {mend}"
        )
    ours, theirs = tuple(data.class_names), tuple(teacher.class_names)
    told = verdict in ("known", "near chance") or _are_matched(ours, theirs)
    if told or all(name.isdigit() for name in ours):
        return
    if all(name.isdigit() for name in theirs):
        if len(ours) < len(theirs):
            warn(
                f"the teacher knows its {len(theirs)} classes by numbers alone, and those of the "
                f"data ({', '.join(ours[:3])} ...) are taken for its first {len(ours)}: "
                "unless they are, choose them with --class-names FILE, a number a line in the "
                "order of the data's labels"
            )
    elif set(ours).isdisjoint(theirs):
        warn(
            f"no class of the data ({', '.join(ours[:3])} ...) is one of the teacher's "
            f"({', '.join(theirs[:3])} ...): it takes the images for its own classes, and what is "
            f"found says nothing of them; {mend}"
        )


def _are_matched(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether labels that are matched by number are matched rightly, as far as names can tell.

    ImageNet's 1,000 wnids, sorted, are the labels of every model of 1,000 classes.
    """
    return ours == theirs or (len(theirs) == _IMAGENET and _are_imagenets(ours))


def _are_imagenets(names: tuple[str, ...]) -> bool:
    from clarep.data.sets.natural import imagenet_columns  # with all corruptions: slow

    try:
        return bool((imagenet_columns(names) == torch.arange(_IMAGENET)).all())
    except UserError:
        return False
