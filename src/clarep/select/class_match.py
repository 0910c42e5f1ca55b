"""Whether the labels of data, which a teacher takes by number, mean the teacher's own classes."""

from collections.abc import Mapping
from typing import Any

import torch

from clarep.data.backdrops import Backdrops
from clarep.data.labelled import LabelledImages
from clarep.errors import UserError
from clarep.select.clarep_measures import judge_knows
from clarep.teachers.classes_by_name import check_matched, few, of_classes
from clarep.teachers.teacher import Teacher
from clarep.teachers.unet_teacher import UNetTeacher

_IMAGENET = 1000  # classes


def of_the_datas_classes(teacher: Teacher, data: LabelledImages) -> tuple[Teacher, str]:
    """Return the teacher, of the data's classes alone if it knows them by name, and a note on it.

    Raises UserError if data and teacher have the same classes in another order.
    """
    found = of_classes(teacher, data.class_names)
    check_matched(found, data.class_names)
    chosen = (
        f"the teacher knows {teacher.num_classes} classes; the {len(data.class_names)} of the data "
        "are chosen by name"
    )
    return found, "" if found is teacher else chosen


def matched_by_number(teacher: Teacher, data: LabelledImages, judged: bool = False) -> str:
    """Return what to know where the data's classes are not named as the teacher's, else "".

    judged: whether another judge than the bundled one is given.
    """
    ours, theirs = tuple(data.class_names), tuple(teacher.class_names)
    if _are_matched(ours, theirs):
        return ""
    text = (
        f"the classes of the data are not named as the teacher's ({few(ours)} against "
        f"{few(theirs)}); labels are matched by number, '{ours[0]}' with '{theirs[0]}'"
    )
    if isinstance(data, Backdrops) and not judge_knows(teacher, data) and not judged:
        text += "; the judge knows the ten garments alone, so that nothing is measured with it"
    return text


def taken_for_others(
    teacher: Teacher, data: LabelledImages, recognition: Mapping[str, Any] | None = None
) -> str:
    """Return why the teacher must take the images for others than they are, else "".

    recognition: as a manifest's findings hold it. Where it could tell, it decides. Else the names
    do: where the teacher has never heard of any class of the data, or knows its classes by numbers
    alone and has more of them than the data. Data whose names are numbers say nothing: there
    labels may well be matched by number.
    """
    own = isinstance(teacher, UNetTeacher)  # it takes no other names
    choose = "" if own else "name or choose the classes with `class_names`, "
    mend = f"{choose}train a teacher of such images (`clarep train-teacher --data`), or give one "
    mend += "with `teacher`"
    verdict = (recognition or {}).get("verdict")
    if recognition and verdict == "near chance":
        return (
            f"the teacher does not know these classes ({recognition['said']}): what is found says "
            f"nothing of them; check that the labels are right, or {mend}"
        )
    ours, theirs = tuple(data.class_names), tuple(teacher.class_names)
    if verdict == "known" or _are_matched(ours, theirs) or all(name.isdigit() for name in ours):
        return ""
    if all(name.isdigit() for name in theirs):
        return (
            f"the teacher knows its {len(theirs)} classes by numbers alone, and those of the data "
            f"({few(ours)}) are taken for its first {len(ours)}: unless they are, choose them "
            "with a file of `class_names`, a number a line in the order of the data's labels"
            if len(ours) < len(theirs)
            else ""
        )
    if not set(ours).isdisjoint(theirs):
        return ""
    return (
        f"no class of the data ({few(ours)}) is one of the teacher's ({few(theirs)}): it takes "
        f"the images for its own classes, and what is found says nothing of them; {mend}"
    )


def _are_matched(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether labels that are matched by number are matched rightly, as far as names can tell.

    ImageNet's 1,000 wnids, sorted, are the labels of every model of 1,000 classes.
    """
    if ours == theirs or len(theirs) != _IMAGENET:
        return ours == theirs
    from clarep.data.sets.natural import imagenet_columns  # with all corruptions: slow

    try:
        return bool((imagenet_columns(ours) == torch.arange(_IMAGENET)).all())
    except UserError:
        return False
