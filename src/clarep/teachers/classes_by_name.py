"""Classes found by name: which of a checkpoint's or model's classes a teacher or data have."""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from clarep.errors import UserError, nearest
from clarep.teachers.options import TeacherOptions, joint_fingerprint, read_class_names
from clarep.teachers.teacher import Teacher


def synonyms(name: str) -> set[str]:
    """Return a name, and those that commas divide it into ("tench, Tinca tinca")."""
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


def check_matched(teacher: Teacher, class_names: Sequence[str]) -> None:
    """Raise UserError where data's labels, which are taken by number, are by name other classes."""
    ours, theirs = tuple(class_names), tuple(teacher.class_names)
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise UserError(
            f"the data have the teacher's classes in another order ({few(ours)} against "
            f"{few(theirs)}), and labels are matched by number: of class folders, which are "
            "sorted by name, give `classes_file` with the teacher's order, or put the names of "
            "`class_names` in the data's"
        )
    if of_classes(teacher, ours) is teacher or by_name(theirs, ours) == list(range(len(ours))):
        return
    raise UserError(
        f"the data's classes ({few(ours)}) are by name others of the teacher's ({few(theirs)}) "
        "than by number: give `of_classes(teacher, data.class_names)` of "
        "clarep.teachers.classes_by_name, in its place"
    )


def strangers(teacher: Teacher, class_names: Sequence[str]) -> str:
    """Return what to know where no class of the data is by name one of the teacher's, else "".

    Classes that are numbers, the data's or the teacher's, say nothing.
    """
    ours, theirs = class_names, teacher.class_names
    if not set(ours).isdisjoint(theirs) or any(name.isdigit() for name in (*ours, *theirs)):
        return ""
    return (
        f"no class of the data ({few(ours)}) is by name one of the teacher's ({few(theirs)}), and "
        f"labels are matched by number, '{ours[0]}' with '{theirs[0]}': unless they mean the same, "
        "what is found says nothing of these images; give a teacher of such classes"
    )


def few(names: Sequence[str]) -> str:
    """Return the first three of many names, for a sentence."""
    return f"{', '.join(names[:3])} ..."


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


class Classes(NamedTuple):
    """The classes of a teacher."""

    names: tuple[str, ...]
    ids: tuple[int, ...]  # the checkpoint's number of each
    has_null: bool = True  # whether one more row of its table, the last, stands for no class


def choose_classes(
    options: TeacherOptions, count: int, synonyms: Sequence[Sequence[str]] = ()
) -> Classes:
    """Return the classes of a checkpoint that the options' file of names, if any, asks for.

    As many names as the checkpoint has classes rename them in their order; fewer choose, each
    by a name that the checkpoint knows or by its number. Raises UserError for any other file.

    synonyms: the names of each of its classes; their numbers without any.
    """
    synonyms = synonyms or [[str(number)] for number in range(count)]
    if options.class_names is None:
        return Classes(tuple(names[0] for names in synonyms), tuple(range(count)))
    names, known = read_class_names(options.class_names), places_of(synonyms)
    known |= {str(i): [i] for i in range(count) if str(i) not in known}
    if len(names) > count:
        raise UserError(
            f"{len(names)} class names are given and the checkpoint has {count} classes: "
            "give as many, in their order, or fewer to choose these"
        )
    if len(names) == count:
        for place, name in enumerate(names):
            if place not in known.get(name, [place]):
                raise UserError(
                    f"class name {place} is '{name}', which is class {known[name][0]} of the "
                    f"checkpoint: give all {count} in its order, or fewer to choose these"
                )
        return Classes(names, tuple(range(count)))
    for name in names:
        if name not in known:
            what = "a name that it knows, or " if len(known) > count else ""
            raise UserError(
                f"the checkpoint has no class '{name}': {nearest(name, known, 0.6)}give {what}"
                f"the class's number, 0 to {count - 1}"
            )
    single, once = "the number of the one that you mean", "each class once"
    return Classes(names, tuple(one_place_each(names, known, "checkpoint", single, once)))


def classes_of_table(
    place: Path | str,
    rows: int,
    options: TeacherOptions,
    *,
    known: Sequence[str] = (),
    num_classes: int | None = None,
    guess: int | None = None,
) -> Classes:
    """Return the classes that the rows of a checkpoint's table of label embeddings stand for.

    Their number is num_classes, that of the names, or the guess; their names are the known ones,
    else their numbers. The options' file renames or chooses them. Raises UserError, which names
    the place, if there are neither `rows` classes nor one fewer, or their number is not known.
    """
    given = () if options.class_names is None else read_class_names(options.class_names)
    fitting = {num_classes} if num_classes is not None else {rows - 1, rows}
    if num_classes is None:  # the known names, where they fit, say whether the last row is a class
        fitting = fitting & {len(known)} or fitting
    renamed = len(given) in fitting and len(given) > len(known)
    named = given if renamed else tuple(known)
    count = (len(named) or guess) if num_classes is None else num_classes
    if count is None:
        raise UserError(
            f"{place} has a label table of {rows} rows and does not say whether its last stands "
            f"for no class: add ?num_classes={rows - 1} to the file's name if it does, "
            f"?num_classes={rows} if not"
        )
    if named and len(named) != count:
        raise UserError(
            f"{len(named)} class names and num_classes {count} are given for {place}: give one "
            "name a class"
        )
    if count < 1 or count not in (rows - 1, rows):
        said = f"{count} class names are" if named else f"num_classes {count} is"
        raise UserError(
            f"{place} has a label table of {rows} rows, and {said} given: it takes "
            f"{rows - 1} classes, or {rows} if no row stands for no class"
        )
    synonyms = [] if renamed else [[name] for name in named]
    chosen = choose_classes(options, count, synonyms)
    return chosen._replace(has_null=count == rows - 1)
