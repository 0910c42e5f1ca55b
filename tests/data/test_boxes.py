"""Boxed images: fills by hand, variants pixel by pixel, bad archives, and tiny9 if it is there."""

from pathlib import Path

import numpy as np
import pytest

from clarep.data.foregrounds import VARIANTS, MaskedImages, separate
from clarep.data.labelled import LabelledImages
from clarep.data.load import load_data
from clarep.data.npz import has_boxes, load_npz
from clarep.errors import UserError

TINY9 = Path(__file__).parents[3] / "shared/data/tiny9_jpegbytes_val.npz"
BOXES = [[2, 1, 4, 3], [0, 0, 7, 7], [3, 3, 6, 6], [1, 0, 7, 7], [0, 2, 5, 4], [2, 2, 3, 3]]


@pytest.fixture
def archive(tmp_path: Path):
    def build(**changes) -> Path:
        pixels = np.random.default_rng(0).integers(256, size=(6, 8, 8, 3)).astype(np.uint8)
        arrays = {"x": pixels, "y": np.array([0, 0, 0, 1, 1, 1]), "box": np.array(BOXES)}
        path = tmp_path / "boxed.npz"
        np.savez(path, **(arrays | changes))
        return path

    return build


@pytest.fixture
def boxed(archive) -> MaskedImages:
    return load_npz(archive())


def one(image, box):
    """A set of one image with one box, x0, y0, x1, y1."""
    x0, y0, x1, y1 = box
    mask = np.zeros(image.shape[:2], bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    labels = np.zeros(1, int)
    return MaskedImages("one", labels, ("a",), ["one/0"], lambda i: image, mask=lambda i: mask)


def fill_box(image, box):
    return one(image, box).backdrop(0)


def test_a_box_is_filled_from_the_largest_strip_beside_it() -> None:
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    filled = fill_box(image, np.array([1, 1, 4, 2]))  # below it lie two rows: the largest strip
    below = image[3:]
    for row in range(5):
        for column in range(6):
            inside = 1 <= row <= 2 and 1 <= column <= 4
            expected = below[row - 1, column - 1] if inside else image[row, column]
            assert (filled[row, column] == expected).all()


def test_a_strip_that_is_smaller_than_its_box_is_repeated() -> None:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    filled = fill_box(image, np.array([0, 0, 4, 3]))  # all but the last column
    assert (filled == image[:, 5:6]).all()


def test_a_box_that_is_the_whole_image_turns_black() -> None:
    assert not fill_box(np.full((4, 4, 3), 9, np.uint8), np.array([0, 0, 3, 3])).any()


def test_the_last_pixel_is_inside(archive) -> None:
    for i, (x0, y0, x1, y1) in enumerate(BOXES):
        places = np.argwhere(load_npz(archive()).mask(i))
        assert (places.min(0).tolist(), places.max(0).tolist()) == ([y0, x0], [y1, x1])


def test_masks_of_any_shape_serve_as_boxes_do() -> None:
    """A user's own masks: a disc is filled within its box, and what lies beside it stays."""
    image = np.random.default_rng(0).integers(256, size=(9, 9, 3)).astype(np.uint8)
    disc = np.hypot(*np.mgrid[-4:5, -4:5]) < 3
    data = MaskedImages(
        "own",
        np.array([0, 0, 1, 1]),
        ("a", "b"),
        list("abcd"),
        lambda i: image,
        mask=lambda i: disc,
    )
    parts = separate(data)
    assert parts.usable.tolist() == [0, 1, 2, 3]
    assert (data.backdrop(0)[~disc] == image[~disc]).all()
    assert (data.backdrop(0)[disc] == fill_box(image, (2, 2, 6, 6))[disc]).all()
    assert (parts.variants["mixed_next"].read(0)[disc] == image[disc]).all()
    assert separate(LabelledImages("p", data.labels, ("a", "b"), list("abcd"), data.read)) is None


def test_load_data_knows_boxes(archive) -> None:
    assert isinstance(load_data(archive()), MaskedImages)


def test_variants_pixel_by_pixel(boxed: MaskedImages) -> None:
    parts = separate(boxed)
    assert list(parts.variants) == list(VARIANTS)
    for i in map(int, parts.usable):
        image, mask = boxed.read(i), boxed.mask(i)
        only_fg = parts.variants["only_fg"].read(i)
        assert (only_fg[mask] == image[mask]).all()
        assert not only_fg[~mask].any()
        no_fg = parts.variants["no_fg"].read(i)
        assert not no_fg[mask].any()
        assert (no_fg[~mask] == image[~mask]).all()
        assert (parts.variants["only_bg"].read(i)[~mask] == image[~mask]).all()
        for name, wanted in {"mixed_same": [0, 1], "mixed_next": [1, 0]}.items():
            mixed = parts.variants[name].read(i)
            assert (mixed[mask] == image[mask]).all()
            label = wanted[boxed.labels[i]]
            donors = [j for j in map(int, parts.usable) if boxed.labels[j] == label and j != i]
            assert any((mixed[~mask] == boxed.backdrop(j)[~mask]).all() for j in donors)
            assert (mixed == parts.variants[name].read(i)).all()


def test_large_boxes_are_not_used(boxed: MaskedImages) -> None:
    assert boxed.usable.tolist() == [0, 2, 3, 4, 5]


def test_a_class_of_one_usable_image_has_no_other_background(archive) -> None:
    box = [*BOXES[:3], [0, 0, 7, 7], [0, 0, 7, 7], BOXES[5]]
    data = load_npz(archive(box=np.array(box)))
    with pytest.raises(UserError, match="one usable image of class '1'"):
        data.variant("mixed_same").read(5)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (np.zeros((5, 4), int), "give whole numbers \\(6, 4\\)"),
        (np.zeros((6, 4)), "float64"),
        (np.full((6, 4), 8), "lies outside its image: give .* of 8x8"),
        (np.full((6, 4), -1), "lies outside its image: give .* of 8x8"),
        (
            [*BOXES[:4], [4, 4, 2, 3], BOXES[5]],
            r"\[4, 4, 2, 3\] of image 4 .* ends before it starts",
        ),
        ([*BOXES[:5], [4, 4, 6, 2]], r"\[4, 4, 6, 2\] of image 5 .* x, y, width, height"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(archive, box, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_npz(archive(box=np.array(box)))


def test_boxes_come_from_the_file_of_their_split(archive, tmp_path: Path) -> None:
    train = archive().rename(tmp_path / "b_train.npz")
    turned = np.array(BOXES)[:, [1, 0, 3, 2]]
    test = archive(box=turned).rename(tmp_path / "b_test.npz")
    for path in (train, test):
        for split, boxes in (("train", BOXES), ("test", turned)):
            x0, y0, x1, y1 = boxes[0]
            rows, columns = np.nonzero(load_npz(path, split).mask(0))
            assert [columns.min(), rows.min(), columns.max(), rows.max()] == [x0, y0, x1, y1]
    pixels, labels = np.zeros((6, 8, 8, 3), np.uint8), np.zeros(6, int)
    np.savez(test, x=pixels, y=labels)
    with pytest.raises(UserError, match=r"b_test\.npz has no 'box'"):
        load_npz(train, "test")
    both = {"x_train": pixels, "y_train": labels, "x_test": pixels, "y_test": labels}
    np.savez(tmp_path / "divided.npz", **both, box=np.array(BOXES))
    with pytest.raises(UserError, match="does not tell of which split"):
        load_npz(tmp_path / "divided.npz", "test")


def test_an_archive_says_whether_it_has_boxes(archive, tmp_path: Path) -> None:
    assert has_boxes(archive())
    np.savez(tmp_path / "plain.npz", x=np.zeros((1, 2, 2, 3), np.uint8), y=np.zeros(1, int))
    assert not has_boxes(tmp_path / "plain.npz")
    assert not has_boxes(tmp_path)


@pytest.mark.skipif(not TINY9.exists(), reason="shared/data/tiny9_jpegbytes_val.npz is absent")
def test_tiny9_comes_apart() -> None:
    data = load_npz(TINY9, "val")
    parts = separate(data)
    assert len(data.class_names) == 9
    assert 0.7 * len(data) < len(parts.usable) < len(data)
    i = int(parts.usable[10])
    mixed, mask = parts.variants["mixed_rand"].read(i), data.mask(i)
    assert (mixed[mask] == data.read(i)[mask]).all()
    assert (mixed[~mask] != data.read(i)[~mask]).any()


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((9, 9), np.uint8),
        255 * np.ones((9, 9), np.uint8),
        np.ones((9, 9, 1), bool),
        np.ones((8, 9), bool),
        [[1.0]],
    ],
)
def test_a_mask_that_is_none_is_refused(mask) -> None:
    """Of 0s and 1s the opposite is no mask: a background would be a negative."""
    image, labels = np.zeros((9, 9, 3), np.uint8), np.zeros(2, int)
    data = MaskedImages("own", labels, ("a",), ["0", "1"], lambda _: image, mask=lambda _: mask)
    with pytest.raises(UserError, match=r"mask of image 0 .* give bool"):
        separate(data)


@pytest.mark.parametrize("value", [True, False])
def test_masks_of_nothing_and_of_all_are_refused(value) -> None:
    image, labels, mask = np.zeros((9, 9, 3), np.uint8), np.zeros(2, int), np.full((9, 9), value)
    data = MaskedImages("own", labels, ("a",), ["0", "1"], lambda _: image, mask=lambda _: mask)
    with pytest.raises(UserError, match="no mask of own"):
        separate(data)
