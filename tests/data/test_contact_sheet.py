"""Contact sheets hold the images, pixel by pixel."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from clarep.data.labelled import LabelledImages
from clarep.data.sheet import choose_by_class, class_sheet, contact_sheet
from clarep.errors import UserError

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 250, (5, 3, 32, 32), dtype=np.uint8))


def test_images_are_enlarged_a_whole_number_of_times_and_stand_in_order():
    sheet = np.asarray(contact_sheet(IMAGES, columns=3))
    assert sheet.shape == (4 + 2 * 100, 4 + 3 * 100, 3)
    for i in range(5):
        top, left = 4 + i // 3 * 100, 4 + i % 3 * 100
        cell = sheet[top : top + 96, left : left + 96]
        assert_array_equal(
            cell, IMAGES[i].permute(1, 2, 0).repeat_interleave(3, 0).repeat_interleave(3, 1)
        )
    assert (sheet[104:, 204:] == 255).all()  # the sixth place is blank


def test_large_images_are_kept():
    image = torch.zeros(1, 3, 120, 200, dtype=torch.uint8)
    assert contact_sheet(image, columns=1).size == (208, 128)


def test_labels_are_written_beside_and_below():
    plain = contact_sheet(IMAGES, columns=5)
    labelled = contact_sheet(IMAGES, 5, ["a row"], "end")
    assert labelled.width > plain.width
    assert labelled.height > plain.height
    pixels = np.asarray(labelled)
    left = labelled.width - 5 * 100
    assert (pixels[:, :left] < 128).any()
    assert (pixels[-22:] < 128).any()
    assert_array_equal(pixels[4:100, left : left + 96], np.asarray(plain)[4:100, 4:100])


def test_wrong_numbers_are_named():
    with pytest.raises(UserError, match="1 labels were given for 2 rows"):
        contact_sheet(IMAGES, 3, ["a"])
    with pytest.raises(UserError, match="at least 1"):
        contact_sheet(IMAGES, 0)


def toy(labels: list[int], num_classes: int) -> LabelledImages:
    return LabelledImages(
        name="toy",
        labels=np.array(labels),
        class_names=tuple(f"class {i}" for i in range(num_classes)),
        sources=[str(i) for i in range(len(labels))],
        read=lambda i: np.full((32, 32, 3), 10 * i % 250, np.uint8),
    )


def test_the_first_or_random_images_of_each_class_are_chosen():
    labels = np.array([0, 1] * 50 + [3])
    first = choose_by_class(labels, 4, 3, None)
    assert [indices.tolist() for indices in first] == [[0, 2, 4], [1, 3, 5], [], [100]]
    chosen = [choose_by_class(labels, 4, 3, seed) for seed in (0, 0, 1)]
    assert_array_equal(chosen[0][0], chosen[1][0])
    assert (chosen[0][0] != chosen[2][0]).any()
    for label, indices in enumerate(chosen[0]):
        assert (labels[indices] == label).all()
        assert_array_equal(indices, np.unique(indices))


def test_a_class_has_its_row_and_a_short_one_ends_in_blanks():
    data = toy([0, 0, 2], 3)
    sheet = np.asarray(class_sheet(data, choose_by_class(data.labels, 3, 2, None)))
    left = sheet.shape[1] - 2 * 100
    centres = [
        [sheet[4 + row * 100 + 48, left + column * 100 + 48, 0] for column in range(2)]
        for row in range(3)
    ]
    assert centres == [[0, 10], [255, 255], [20, 255]]


def test_many_classes_are_capped_and_the_sheet_says_so(monkeypatch: pytest.MonkeyPatch):
    footers = []

    def spy(*arguments: object, footer: str) -> Image.Image:
        footers.append(footer)
        return contact_sheet(*arguments, footer=footer)

    monkeypatch.setattr("clarep.data.sheet.contact_sheet", spy)
    for count in (40, 60):
        data = toy(list(range(count)), count)
        sheet = class_sheet(data, choose_by_class(data.labels, count, 1, None))
        assert sheet.height == 4 + 40 * 100 + 22
    assert footers == [
        "toy: 40 images, 40 classes",
        "toy: 60 images, 60 classes; 20 classes are not shown",
    ]


def test_nothing_chosen_is_a_users_mistake():
    with pytest.raises(UserError, match="at least one index"):
        class_sheet(toy([0], 1), [np.array([], np.int64)])
