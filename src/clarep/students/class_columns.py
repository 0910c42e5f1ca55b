"""Which logits of a classifier stand for each class of the data.

By name where names are known, the model's own before those that the user gives; else by
position. A name may hold several, which commas divide ("tench, Tinca tinca").
"""

import re
from collections.abc import Sequence

from clarep.engine.printable import counted
from clarep.errors import UserError
from clarep.teachers.classes_by_name import by_name, synonyms

Columns = list[list[int]]
"""For each class the model's logits that stand for it: the highest of them counts."""

_IMAGENET_9 = {
    "dog": "151-170 173-268",
    "bird": "7-24 87-100 127-146",
    "wheeled vehicle": "407-408 428 436 444 468 511 547 555 561 565 569 573 586 603 609 612 627 "
    "656 661 665 670-671 675 690 705 717 734 751 757 791 802-803 817 820 829 847 864 866-867 870 "
    "880",
    "reptile": "33-68",
    "carnivore": "269-280 286-299 356-362 387-388",
    "insect": "300-326",
    "musical instrument": "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 "
    "683-684 687 699 776 822 875 881 889",
    "primate": "365-384",
    "fish": "0-6 389-397",
}
"""ImageNet-9's classes as labels of ImageNet's 1,000 (Xiao et al. 2020, arXiv 2006.09994; the
grouping is in_to_in9.json of the Backgrounds Challenge)."""
_IMAGENET_ENDS = ({"n01440764", "tench"}, {"n15075141", "toilet tissue"})  # labels 0 and 999


def match_columns(
    spec: str,
    classes: int,
    own: Sequence[str] | None,
    given: Sequence[str] | None,
    class_names: Sequence[str],
) -> tuple[Columns, str]:
    """Return each class's logits and, where one may expect otherwise, how they were found.

    Of ImageNet-9 a tenth row follows: all other classes of the model, whose answers are wrong.

    Args:
        spec: what the user called the model.
        classes: how many logits it has.
        own: its own names, in the order of its logits; None, `LABEL_0` ... and 0 ... are none.
        given: names that the user gives, likewise.
        class_names: the data's.

    Raises:
        UserError: if the names are not as many as the logits, contradict each other, match
            nothing, or the model has not as many classes.
    """
    own = None if own is None or _are_generic(own) else own
    for source, names in (("the model's own list", own), ("`class_names`", given)):
        if names is not None and len(names) != classes:
            raise UserError(
                f"{source} gives {counted(len(names), 'name')} and {spec} tells "
                f"{counted(classes, 'class')} apart: give a name for each of its logits, in their "
                "order"
            )
    by_given = by_name(given or (), class_names)
    try:
        by_own = by_name(own or (), class_names)
    except UserError:
        if not by_given:
            raise
        by_own = None
    if by_own and by_given and by_own != by_given:
        name = next(n for n, a, b in zip(class_names, by_own, by_given, strict=True) if a != b)
        raise UserError(
            f"`class_names` puts '{name}' at another logit than {spec}'s own names: leave "
            "`class_names` out, or mend the names in the model's configuration"
        )
    if chosen := by_own or by_given:
        said = f"{few(spec, classes, class_names)}chosen by name"
        return [[place] for place in chosen], said if len(chosen) < classes else ""
    if nine := _imagenet_9(classes, (own, given), class_names):
        return nine, (
            f"{few(spec, classes, class_names)}ImageNet-9's, each the highest of its classes among "
            "ImageNet's 1,000; an answer outside the nine is wrong, as in the challenge"
        )
    return _by_position(spec, classes, own, given, class_names)


def few(spec: str, classes: int, class_names: Sequence[str]) -> str:
    """Say how many classes a model has, and the data; what these are follows."""
    return (
        f"{spec} tells {counted(classes, 'class')} apart; the {len(class_names)} of the data are "
    )


def _are_generic(names: Sequence[str]) -> bool:
    """Say whether these are the names that libraries make up where there are none."""
    return all(name in (f"LABEL_{i}", str(i)) for i, name in enumerate(names))


def _by_position(
    spec: str,
    classes: int,
    own: Sequence[str] | None,
    given: Sequence[str] | None,
    class_names: Sequence[str],
) -> tuple[Columns, str]:
    numbers = all(name.isdecimal() for name in class_names)
    own = None if numbers else own
    if classes < len(class_names) or (classes != len(class_names) and own is given is None):
        raise UserError(
            f"{spec} tells {counted(classes, 'class')} apart and the data hold {len(class_names)}: "
            "give data of its classes, or `class_names` with its classes' names (imagenet for "
            "ImageNet's 1,000), of which the data's are chosen"
        )
    for source, names in (("`class_names`", given), (spec, own)):
        if names is not None:
            known = {one for name in names for one in synonyms(name)}
            name = next(name for name in class_names if name not in known)
            raise UserError(
                f"{source} knows no class '{name}' of the data (its own are "
                f"{', '.join(names[:3])} ...): give data of its classes, or `class_names` with the "
                "data's names in the order of the logits"
            )
    said = (
        f"the classes of {spec} and of the data are matched by number, for want of names that "
        "both have"
    )
    if numbers and sorted(class_names, key=int) != list(class_names):
        said += (
            f"; the data's come in the order {', '.join(class_names[:4])} ..., so that a model "
            "whose logits are in the order of the numbers is misread: for such a one give "
            "`class_names` with the numbers in their order"
        )
    return [[i] for i in range(classes)], said


def _imagenet_9(
    classes: int, sources: Sequence[Sequence[str] | None], class_names: Sequence[str]
) -> Columns | None:
    """Return ImageNet-9's classes of a model of ImageNet's 1,000, and a row of all others."""
    plain = [re.sub(r"^\d+_", "", name).replace("_", " ").lower() for name in class_names]
    if classes != 1000 or sorted(plain) != sorted(_IMAGENET_9):
        return None
    if not any(
        synonyms(names[0]) & _IMAGENET_ENDS[0] and synonyms(names[-1]) & _IMAGENET_ENDS[1]
        for names in sources
        if names is not None
    ):
        return None
    rows = []
    for name in plain:
        ends = [[int(end) for end in part.split("-")] for part in _IMAGENET_9[name].split()]
        rows.append([number for end in ends for number in range(end[0], end[-1] + 1)])
    inside = {number for row in rows for number in row}
    return [*rows, [number for number in range(classes) if number not in inside]]
