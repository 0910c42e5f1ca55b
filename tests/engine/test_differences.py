"""What two configurations differ in: all of it, and no spelling of a path."""

from clarep.engine.identity import differences

STORED = {
    "teacher": "./t",
    "teacher_sha256": "aa" * 32,
    "data_options": {"data": "x", "split": "train"},
    "data_sha256": "bb" * 32,
    "clarid": {"k": 4, "t": 0.5},
    "seed": 0,
}


def test_every_option_that_differs_is_named():
    given = STORED | {"seed": 1, "clarid": {"k": 5, "t": 0.7}, "new": True}
    found = differences(STORED, given)
    for words in (
        "seed: 0 there, 1 now",
        "k: 4 there, 5 now",
        "t: 0.5 there, 0.7 now",
        "new: null",
    ):
        assert words in found
    assert differences({"seed": 0, "train": {"seed": 0}}, {"seed": 3, "train": {"seed": 3}}) == (
        "seed: 0 there, 3 now"
    )
    assert differences(given, {k: v for k, v in given.items() if k != "new"}) != ""


def test_nothing_differs():
    assert differences(STORED, dict(STORED)) == ""
    assert differences({}, {}) == ""


def test_where_the_same_content_was_found_is_no_difference():
    given = STORED | {"teacher": "/a/t", "data_options": {"data": "./x", "split": "train"}}
    assert differences(STORED, given) == ""


def test_other_content_under_the_same_name_is():
    found = differences(STORED, STORED | {"data_sha256": "cc" * 32})
    assert "images or labels themselves" in found
    assert "bbbb" in found and "cccc" in found
    moved = {"data_options": {"data": "y", "split": "train"}, "data_sha256": "cc" * 32}
    assert 'data: "x" there, "y" now' in differences(STORED, STORED | moved)
    assert "teacher_sha256" in differences(STORED, STORED | {"teacher_sha256": "dd" * 32})


def test_a_record_without_the_hash_is_told_by_where():
    old = {key: value for key, value in STORED.items() if key != "data_sha256"}
    assert "data_sha256" in differences(old, STORED)
    assert "data: " in differences(old, old | {"data_options": {"data": "y", "split": "train"}})


def test_the_places_are_named():
    assert differences({"k": 1}, {"k": 2}, ("in a", "in b")) == "k: 1 in a, 2 in b"


def test_where_no_content_is_known_the_place_counts():
    for nothing in (None, {}):
        both = {"data_options": {"data": "x"}, "data_sha256": nothing}
        other = {"data_options": {"data": "y"}, "data_sha256": nothing}
        assert 'data: "x" there, "y" now' in differences(both, other)
