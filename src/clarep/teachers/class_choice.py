"""Which of a checkpoint's classes a teacher has: all, in their order, or a few of them."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from clarep.errors import UserError
from clarep.teachers.options import read_class_names


def choose_classes(
    path: Path, synonyms: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], list[int]]:
    """Return the names in a file of class names, and the checkpoint's number of each.

    As many names as the checkpoint has classes rename them in their order; fewer choose, each
    by a name that the checkpoint knows or by its number.

    Args:
        path: the file, a name a line.
        synonyms: the names of each class of the checkpoint; its number where it has none.

    Raises:
        UserError: for a file that cannot be read, more names than classes, all names in another
            order, a name that stands for no class or for several, or a class chosen twice.
    """
    names, count = read_class_names(path), len(synonyms)
    numbers = _numbers(synonyms)
    if len(names) > count:
        raise UserError(
            f"{len(names)} class names are given and the checkpoint has {count} classes: "
            "give as many, in their order, or fewer to choose these"
        )
    if len(names) < count:
        return names, _chosen(names, numbers, count)
    for place, name in enumerate(names):
        if place not in numbers.get(name, [place]):
            raise UserError(
                f"class name {place} is '{name}', which is class {numbers[name][0]} of the "
                f"checkpoint: give all {count} in its order, or fewer to choose these"
            )
    return names, list(range(count))


def numbered(count: int) -> list[list[str]]:
    """Return the synonyms of classes that have no names."""
    return [[str(number)] for number in range(count)]


def _numbers(synonyms: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Return name -> classes of that name; a number that is no name stands for its class."""
    found: dict[str, list[int]] = {}
    for number, names in enumerate(synonyms):
        for name in dict.fromkeys(names):
            found.setdefault(name, []).append(number)
    for number in range(len(synonyms)):
        found.setdefault(str(number), [number])
    return found


def _chosen(names: Sequence[str], numbers: dict[str, list[int]], count: int) -> list[int]:
    found: dict[int, str] = {}
    for name in names:
        number = _number(name, numbers, count)
        if number in found:
            raise UserError(
                f"'{found[number]}' and '{name}' are both class {number} of the checkpoint: "
                "give each class once"
            )
        found[number] = name
    return list(found)


def _number(name: str, numbers: dict[str, list[int]], count: int) -> int:
    found = numbers.get(name, [])
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"'{name}' is the name of {len(found)} classes of the checkpoint, "
            f"{', '.join(map(str, found))}: give the number of the one that you mean"
        )
    near = difflib.get_close_matches(name, numbers, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    names = "a name that it knows, or " if len(numbers) > count else ""
    raise UserError(
        f"the checkpoint has no class '{name}': {hint}give {names}the class's number, "
        f"0 to {count - 1}"
    )
