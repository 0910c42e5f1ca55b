"""Which of a checkpoint's classes a teacher has: all, in their order, or a few of them."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clarep.errors import UserError
from clarep.teachers.classes_by_name import one_place_each, places_of
from clarep.teachers.options import TeacherOptions, read_class_names


class Classes(NamedTuple):
    """The classes of a teacher."""

    names: tuple[str, ...]
    """A name a class."""
    ids: tuple[int, ...]
    """The checkpoint's number of each."""
    has_null: bool = True
    """Whether one more row of its table of labels, the last, stands for no class."""


def choose_classes(options: TeacherOptions, synonyms: Sequence[Sequence[str]]) -> Classes:
    """Return the classes of a checkpoint that the options' file of names, if any, asks for.

    As many names as the checkpoint has classes rename them in their order; fewer choose, each
    by a name that the checkpoint knows or by its number. Raises UserError for any other file.

    synonyms: the names of each class of the checkpoint; its number where it has none.
    """
    count = len(synonyms)
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
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            what = "a name that it knows, or " if len(known) > count else ""
            raise UserError(
                f"the checkpoint has no class '{name}': {hint}give {what}the class's number, "
                f"0 to {count - 1}"
            )
    single, once = "the number of the one that you mean", "each class once"
    return Classes(names, tuple(one_place_each(names, known, "checkpoint", single, once)))


def numbered(count: int) -> list[list[str]]:
    """Return the synonyms of classes that have no names."""
    return [[str(number)] for number in range(count)]


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
    names = named if named and not renamed else tuple(map(str, range(count)))
    chosen = choose_classes(options, [[name] for name in names])
    return chosen._replace(has_null=count == rows - 1)
