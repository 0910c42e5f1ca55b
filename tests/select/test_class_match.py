"""What is said of classes that are matched by number, before a run."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from clarep.data.labelled import LabelledImages
from clarep.errors import UserError
from clarep.select.class_match import matched_by_number, of_the_datas_classes, taken_for_others
from clarep.teachers.callable_teacher import CallableTeacher

NUMBERS = [str(number) for number in range(1000)]
READABLE = [f"thing {number}" for number in range(1000)]
WNIDS = ["n01440764", *(f"n02{number:06d}" for number in range(998)), "n15075141"]


def said(ours, theirs):
    """Return what is to be known of the classes of data and teacher, then what speaks against."""
    labels = np.arange(len(ours))
    data = LabelledImages("data", labels, tuple(ours), [""] * len(ours), lambda _: labels)
    teacher = CallableTeacher.__new__(CallableTeacher)
    teacher.__dict__.update(SimpleNamespace(class_names=tuple(theirs)).__dict__)
    return [*filter(None, (matched_by_number(teacher, data), taken_for_others(teacher, data)))]


@pytest.mark.parametrize("theirs", [NUMBERS, READABLE, WNIDS])
def test_imagenets_folders_are_the_labels_of_a_model_of_imagenet(theirs):
    assert said(WNIDS, theirs) == []


@pytest.mark.parametrize("ours", [WNIDS[::-1], [*WNIDS[:-1], "n99999999"], sorted(NUMBERS)])
def test_what_is_not_the_whole_of_imagenet_in_order_is_noted(ours):
    (note, *warnings) = said(ours, READABLE)
    assert note.startswith("the classes of the data are not named as the teacher's")
    assert len(warnings) == (ours[0] != "0")  # numbers say nothing


def test_a_few_classes_under_a_teacher_that_knows_numbers_alone():
    _, warning = said(WNIDS[500:510], NUMBERS)
    assert warning.startswith(
        "the teacher knows its 1000 classes by numbers alone, and those of the data "
        "(n02000499, n02000500, n02000501 ...) are taken for its first 10"
    )
    assert "choose them with a file of `class_names`, a number a line" in warning
    assert len(said(["cat", "dog"], ["0", "1"])) == 1  # as many: the note alone
    assert len(said(["0", "1"], NUMBERS)) == 1


def test_the_same_classes_in_another_order_are_refused():
    labels = np.zeros(2, np.int64)
    data = LabelledImages("data", labels, ("a", "b", "c"), ["", ""], lambda _: labels)
    for theirs, refused in (("acb", True), ("abc", False), ("abd", False)):
        teacher = CallableTeacher.__new__(CallableTeacher)
        teacher.__dict__.update(SimpleNamespace(class_names=tuple(theirs)).__dict__)
        with pytest.raises(UserError, match="another order") if refused else nullcontext():
            of_the_datas_classes(teacher, data)


def test_a_teacher_that_has_never_heard_of_the_classes():
    _, warning = said(["cat", "dog"], ["shirt", "coat"])
    assert warning.startswith("no class of the data (cat, dog ...) is one of the teacher")
    assert len(said(["cat", "dog"], ["dog", "coat"])) == 1
    assert said(["cat", "dog"], ["cat", "dog"]) == []
