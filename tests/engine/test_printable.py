"""Counts as they are told."""

from clarep.engine.printable import counted


def test_one_is_told_as_one_and_large_numbers_in_threes():
    said = [counted(1, "image"), counted(0, "image"), counted(2000, "class"), counted(1, "class")]
    assert said == ["1 image", "0 images", "2,000 classes", "1 class"]
