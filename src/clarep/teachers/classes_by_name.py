"""Classes found by name: a few of a model's where data hold no more, and all their names are known.

A name may hold several, which commas divide ("tench, Tinca tinca").
"""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from clarep.errors import UserError
from clarep.teachers.options import joint_fingerprint
from clarep.teachers.teacher import Teacher


def synonyms(name: str) -> set[str]:
    """Return a name, and those that commas divide it into."""
    return {name, *(part.strip() for part in name.split(","))}


def by_name(names: Sequence[str], class_names: Sequence[str]) -> list[int] | None:
    """Return the place of each class among a model's names; None where one of them is unknown.

    Raises UserError for a class that is the name of several, and for two that are the same.
    """
    places = places_of(map(synonyms, names))
    if not all(name in places for name in class_names):
        return None
    return one_place_each(
        class_names,
        places,
        "model",
        "`class_names` with a name for each",
        "data that hold each class once",
    )


def places_of(named: Iterable[Collection[str]]) -> dict[str, list[int]]:
    """Return name -> the places of the classes that have it among their names."""
    places: dict[str, list[int]] = {}
    for place, names in enumerate(named):
        for name in dict.fromkeys(names):
            places.setdefault(name, []).append(place)
    return places


def one_place_each(
    names: Sequence[str], places: Mapping[str, Sequence[int]], whose: str, single: str, once: str
) -> list[int]:
    """Return the place of each name.

    whose: classes they are; single, once: what to give instead of a name that several classes
    have, and of two names of one class. Raises UserError for either.
    """
    taken: dict[int, str] = {}
    for name in names:
        place, *more = places[name]
        if more:
            raise UserError(
                f"'{name}' is the name of {1 + len(more)} classes of the {whose}, "
                f"{', '.join(map(str, places[name]))}: give {single}"
            )
        if place in taken:
            raise UserError(
                f"'{taken[place]}' and '{name}' are both class {place} of the {whose}: give {once}"
            )
        taken[place] = name
    return list(taken)


def of_classes(teacher: Teacher, class_names: Sequence[str]) -> Teacher:
    """Return the teacher with these classes alone, where it has more and knows all their names.

    Otherwise itself: labels are matched by position then. Raises UserError as `by_name`, and for
    a few numbers that are neither its names nor 0, 1, 2 ...: by position 207 would be class 0.
    """
    if not 0 < len(class_names) < teacher.num_classes:
        return teacher
    places = by_name(teacher.class_names, class_names)
    if places is not None:
        return _with_classes(teacher, tuple(class_names), places)
    numbers = all(name.isdecimal() for name in class_names)
    if numbers and any(int(name) != i for i, name in enumerate(class_names)):
        raise UserError(
            f"the data's classes are the numbers {', '.join(class_names[:3])} ... and the teacher "
            f"has {teacher.num_classes} others, {', '.join(teacher.class_names[:3])} ...: give the "
            "data's classes the teacher's names"
        )
    return teacher


def _with_classes(whole: Teacher, class_names: tuple[str, ...], places: Sequence[int]) -> Teacher:
    """Return a teacher of the same network with some of its classes, in another order."""
    own_labels = torch.tensor([*places, whole.null_label])

    def condition(labels: Int64[Tensor, " batch"]) -> Tensor:
        return whole.condition(own_labels.to(labels.device)[labels])

    few = copy.copy(whole)
    few.class_names, few.null_label = class_names, len(class_names)
    few.condition = condition  # type: ignore[method-assign]
    few.fingerprint = joint_fingerprint(whole.fingerprint, *map(str, places))
    return few
