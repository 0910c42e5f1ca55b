"""Which logits stand for which class: names before positions, numbers are no names."""

import json

import pytest
import torch

from clarep.errors import UserError
from clarep.students.class_columns import match_columns
from clarep.students.matched_student import MatchedStudent, WholeModel
from clarep.students.student import StudentInfo

timm = pytest.importorskip("timm")

PETS = ("tabby, tabby cat", "Egyptian cat", "pug, pug-dog", "crane", "crane")
STRINGS = tuple(sorted(str(i) for i in range(12)))  # 0, 1, 10, 11, 2: as folders are sorted
NUMBERS = tuple(str(i) for i in range(12))


def columns(class_names, own=None, given=None, classes=None) -> list[int]:
    """Return the one logit of each class."""
    count = classes or len(own or given)
    found, _ = match_columns("m", count, own, given, class_names)
    assert all(len(row) == 1 for row in found)
    return [row[0] for row in found]


def told(class_names, own=None, given=None, classes=None) -> str:
    return match_columns("m", classes or len(own or given), own, given, class_names)[1]


def refused(*args, **options) -> str:
    with pytest.raises(UserError) as caught:
        columns(*args, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("class_names", "own", "given", "right"),
    [
        (("c", "a", "b"), ("a", "b", "c"), None, [2, 0, 1]),
        (("c", "a", "b"), None, ("a", "b", "c"), [2, 0, 1]),
        (("c", "a", "b"), ("x", "y", "z"), ("a", "b", "c"), [2, 0, 1]),  # own names match nothing
        (("c", "a", "b"), ("a", "b", "c"), ("x", "y", "z"), [2, 0, 1]),  # own names come first
        (STRINGS, STRINGS, None, list(range(12))),  # trained on such folders
        (STRINGS, None, STRINGS, list(range(12))),
        (STRINGS, None, NUMBERS, [int(name) for name in STRINGS]),
        (STRINGS, tuple(f"LABEL_{i}" for i in range(12)), None, list(range(12))),
        (STRINGS, NUMBERS, None, list(range(12))),  # made up by a library: no names
        (("2", "0", "1"), ("top", "bag", "shoe"), None, [0, 1, 2]),
        (("pug", "tabby cat"), PETS, None, [2, 0]),  # a few, by one of several names each
        (("4", "10"), None, NUMBERS, [4, 10]),
    ],
)
def test_columns(class_names, own, given, right):
    assert columns(class_names, own, given) == right


def test_what_was_taken_is_told():
    assert told(("b", "a"), ("a", "b")) == ""
    assert "chosen by name" in told(("b", "a"), ("a", "b", "c"))
    assert "by number" in told(("cat", "dog"), classes=2)
    assert "in the order 0, 1, 10, 11" in told(STRINGS, classes=12)
    assert "in the order 0, 1, 10, 11" in told(STRINGS, NUMBERS)
    assert "in the order" not in told(NUMBERS, classes=12)


def test_refused():
    assert "no class 'k' of the data" in refused(("a", "k"), ("a", "b"))
    assert "`class_names` knows no class '0'" in refused(
        STRINGS, given=[f"k{i}" for i in range(12)]
    )
    both = refused(("a", "b"), ("a", "b"), ("b", "a"))
    assert "'a'" in both and "leave `class_names` out" in both
    assert "'crane' is the name of 2 classes" in refused(("crane", "pug"), PETS)
    assert columns(("crane", "pug"), PETS, ["a", "b", "pug", "c", "crane"]) == [4, 2]
    assert "are both class 0" in refused(("tabby", "tabby cat"), PETS)
    assert "tells 3 classes apart and the data hold 2" in refused(("a", "b"), classes=3)
    assert "tells 2 classes apart and the data hold 3" in refused(("a", "b", "c"), ("a", "b"))
    assert "`class_names` gives 2 names" in refused(("a", "b"), given=("a", "b"), classes=3)


def test_imagenets_names_are_known_by_wnid_and_by_word():
    from clarep.students.timm_student import imagenet_names

    names = imagenet_names()
    labels = {"n02123045": 281, "Egyptian cat": 285, "golden retriever": 207, "n03126707": 517}
    assert columns(tuple(labels), names) == list(labels.values())
    assert "'crane' is the name of 2 classes" in refused(("crane", "pug"), names)


NINE = (
    "00_dog", "01_bird", "02_wheeled vehicle", "03_reptile", "04_carnivore", "05_insect",
    "06_musical instrument", "07_primate", "08_fish",
)  # fmt: skip
OF_NINE = {
    "golden retriever": 0, "robin": 1, "sports car": 2, "box turtle": 3,
    "Egyptian cat": 9, "lion": 4,
    "ladybug": 5, "cello": 6, "gorilla": 7, "goldfish": 8, "fire engine": 2, "sax": 6,
    "dalmatian": 0, "bullfrog": 9, "teapot": 9, "meerkat": 4, "coho": 8, "African grey": 1,
    "dragonfly": 5, "hourglass": 9, "steam locomotive": 2,
}  # fmt: skip
"""Names of ImageNet -> place in the nine; 9 is none of them."""


def test_imagenet_9_is_read_from_a_model_of_imagenets_classes():
    from clarep.students.timm_student import imagenet_names

    names = imagenet_names()
    rows, said = match_columns("m", 1000, names, None, NINE)
    assert "ImageNet-9" in said
    assert sorted(number for row in rows for number in row) == list(range(1000))
    for word, row in OF_NINE.items():
        (number,) = [i for i, name in enumerate(names) if word in name.split(", ")]
        assert number in rows[row], word
    assert "chosen" not in said and "tells 1,000" in said
    by_words = [name.partition(", ")[2] for name in names]
    assert match_columns("m", 1000, by_words, None, NINE[::-1])[0] == [*rows[8::-1], rows[9]]
    assert "`class_names`" in refused(NINE, classes=1000)  # it may be of other classes


def test_the_highest_of_a_group_is_its_logit():
    model = WholeModel("m", lambda x: (x.flatten(1), x.flatten(1)), "logits")
    info = StudentInfo("m", ("a", "b"), (5, 1, 1))
    student = MatchedStudent(info, model, [[3], [0, 4, 1], [2]], 5)
    x = torch.randn(6, 5, 1, 1, generator=torch.Generator().manual_seed(0))
    flat = x.flatten(1)
    expected = torch.stack([flat[:, 3], flat[:, [0, 1, 4]].amax(1), flat[:, 2]], 1)
    assert torch.equal(student(x), expected)
    assert json.dumps(student.notes) == "[]"
