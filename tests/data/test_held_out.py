"""The images that a run keeps out: which they are, and that they are found again or refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from clarep.data.class_balance import class_balanced_choice
from clarep.data.held_out import load_held_out, save_held_out, split_off
from clarep.data.labelled import LabelledImages
from clarep.data.subset import subset
from clarep.errors import UserError

PIXELS = np.random.default_rng(0).integers(256, size=(120, 4, 4, 3)).astype(np.uint8)


@pytest.fixture
def data() -> LabelledImages:
    labels = np.arange(120) % 3
    sources = [f"image {i}" for i in range(120)]
    return LabelledImages("toy", labels, ("a", "b", "c"), sources, PIXELS.__getitem__)


def test_the_share_apart_is_balanced_disjoint_and_always_the_same(data):
    kept, apart = split_off(data, 0.1)
    assert np.bincount(data.labels[apart]).tolist() == [4, 4, 4]
    assert sorted([*kept, *apart]) == list(range(120))
    assert split_off(data, 0.1)[1].tolist() == apart.tolist()
    assert set(apart) < set(split_off(data, 0.2)[1])
    of_two = subset(data, np.flatnonzero(data.labels > 0), "of two classes")
    _, less = split_off(of_two, 0.1)
    assert [of_two.sources[i] for i in less] == [f"image {i}" for i in apart if i % 3]


@pytest.mark.parametrize("seed", range(5))
def test_the_share_apart_is_not_what_identify_chooses(data, seed):
    _, apart = split_off(data, 0.1)
    chosen = class_balanced_choice(data.labels, 0.1, seed)
    assert len(np.intersect1d(apart, chosen)) < len(apart) / 2


def test_a_small_class_gives_one_image_and_no_share_none(data):
    kept, apart = split_off(data, 0.001)
    assert np.bincount(data.labels[apart]).tolist() == [1, 1, 1] and len(kept) == 117
    kept, apart = split_off(data, 0.0)
    assert len(kept) == 120 and len(apart) == 0


def test_a_class_that_is_left_without_images_to_train_on(data):
    with pytest.raises(UserError, match=r"class 'a' has 40 .* 0\.99.* leaves none to train on"):
        split_off(data, 0.99)
    one = replace(data, labels=np.array([2, *np.arange(119) % 2]))
    with pytest.raises(UserError, match="class 'c' has 1 of the images"):
        split_off(one, 0.1)


def test_an_image_that_cannot_be_read_leaves_the_others_where_they_were(data):
    kept, apart = split_off(data, 0.1)
    readable = np.setdiff1d(np.arange(120), [kept[0], apart[0]])
    assert split_off(data, 0.1, readable)[0].tolist() == kept[1:].tolist()
    assert split_off(data, 0.1, readable)[1].tolist() == apart[1:].tolist()


def test_what_was_held_out_is_found_again(data, tmp_path):
    kept, apart = split_off(data, 0.1)
    save_held_out(tmp_path, data, kept[1:], apart)  # one could not be read
    trained, held_out = load_held_out(tmp_path, data)
    assert [held_out.sources[i] for i in range(12)] == [f"image {i}" for i in apart]
    assert np.array_equal(held_out.read(3), PIXELS[apart[3]])
    assert held_out.labels.tolist() == data.labels[apart].tolist()
    assert list(trained.sources) == [f"image {i}" for i in kept[1:]]


def test_images_that_are_others_by_now_are_refused(data, tmp_path):
    kept, apart = split_off(data, 0.1)
    save_held_out(tmp_path, data, kept, apart)
    turned = {i: 255 - PIXELS[i] for i in (kept[0], apart[5])}
    read = lambda i, which: turned[i] if i == which else PIXELS[i]  # noqa: E731
    others = {
        "other pixels": replace(data, read=lambda i: read(i, apart[5])),
        "other labels": replace(data, labels=(data.labels + 1) % 3),
        "fewer images": replace(data, labels=data.labels[:60], sources=data.sources[:60]),
    }
    for changed in others.values():
        with pytest.raises(UserError, match="toy are not there as they were"):
            load_held_out(tmp_path, changed)
    load_held_out(tmp_path, replace(data, read=lambda i: read(i, kept[0])))  # it was not held out


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"index": "x", "sha256": ""}', '{"index": [1]}']
)
def test_a_file_that_does_not_say_it(data, tmp_path, text):
    if text is not None:
        (tmp_path / "held_out.json").write_text(text)
    with pytest.raises(UserError, match=r"train (it|that run) again"):
        load_held_out(tmp_path, data)


def test_one_index_changed_in_the_file_is_told(data, tmp_path):
    kept, apart = split_off(data, 0.1)
    save_held_out(tmp_path, data, kept, apart)
    stored = json.loads((tmp_path / "held_out.json").read_text())
    stored["index"][2] = int(kept[7])
    (tmp_path / "held_out.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="was changed after it was written"):
        load_held_out(tmp_path, data)
