"""Background measures against naive loops, with students that look at one place only."""

import dataclasses

import numpy as np
import pytest
import torch

from clarep.data.backdrops import SCENES, load_backdrops
from clarep.data.foregrounds import VARIANTS, Separated, separate
from clarep.data.labelled import LabelledImages
from clarep.robustness.backgrounds import (
    adversarial_choice,
    background_measures,
    example_arrays,
    first_of_each_class,
    flipped,
    gap,
    paste,
)
from clarep.robustness.tested_student import Subject, choose_images, under_test
from clarep.students.student import Student, StudentInfo

LEVELS = (40, 120, 200)  # grey of a class: of its background, and of its object
SIDE = 8


class OnePixel(Student):
    """Says the class whose grey level is nearest to that of one pixel."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.info = StudentInfo("one pixel", ("a", "b", "c"), (3, SIDE, SIDE))
        self.row, self.column = row, column

    def features(self, x):
        return x[:, :, self.row, self.column]

    def forward(self, x):
        grey = 255 * self.features(x).mean(dim=1)
        return -(grey[:, None] - torch.tensor(LEVELS)).abs()

    def both(self, x):
        return self.features(x), self(x)


BACKGROUND_READER = (0, 0)
OBJECT_READER = (4, 4)


def image(object_class: int, background_class: int) -> np.ndarray:
    pixels = np.full((SIDE, SIDE, 3), LEVELS[background_class], np.uint8)
    pixels[2:6, 2:6] = LEVELS[object_class]
    return pixels


@pytest.fixture
def parts() -> Separated:
    """Twelve squares on backgrounds of one grey; original: the background is of the class."""
    labels = np.arange(12) % 3
    rand = np.random.default_rng(0).integers(3, size=12)
    backgrounds = {
        "original": labels,
        "mixed_same": labels,
        "mixed_rand": rand,
        "mixed_next": (labels + 1) % 3,
    }

    def made(name: str) -> LabelledImages:
        def read(i: int) -> np.ndarray:
            return image(int(labels[i]), int(backgrounds[name][i]))

        return LabelledImages(name, labels, ("a", "b", "c"), [str(i) for i in range(12)], read)

    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:6, 2:6] = True

    def backdrops(indices):
        pixels = np.stack([np.full((3, SIDE, SIDE), LEVELS[labels[i]], np.uint8) for i in indices])
        return torch.from_numpy(pixels)

    return Separated(
        variants={name: made(name) for name in backgrounds},
        paired=True,
        usable=np.arange(12),
        masks=lambda indices: torch.from_numpy(np.stack([mask for _ in indices])),
        backdrops=backdrops,
        donors=np.arange(12),
        scene=lambda i: int(labels[i]),
    )


def values_of(measured) -> dict[str, float]:
    return {measurement.key: measurement.value for measurement in measured[0]}


def test_who_reads_only_the_background_follows_it(parts: Separated) -> None:
    with under_test(OnePixel(*BACKGROUND_READER)) as subject:
        values = values_of(background_measures(subject, parts, 12, 3, 0))
    labels = parts.variants["original"].labels
    share = 0
    for i in range(12):  # by hand, from the pixels
        level = int(parts.variants["mixed_rand"].read(i)[0, 0, 0])
        share += LEVELS.index(level) == labels[i]
    assert values["background/original"] == 1
    assert values["background/mixed_next"] == 0
    assert values["background/mixed_rand"] == pytest.approx(share / 12)
    assert values["background/gap"] == pytest.approx(1 - share / 12)
    assert values["background/flipped"] == 1


def test_who_reads_only_the_object_is_not_moved(parts: Separated) -> None:
    with under_test(OnePixel(*OBJECT_READER)) as subject:
        measured = background_measures(subject, parts, 12, 3, 0)
    values = values_of(measured)
    assert {values[f"background/{name}"] for name in parts.variants} == {1.0}
    assert values["background/gap"] == values["background/flipped"] == 0


def test_one_backdrop_flips_those_of_the_other_classes_alone(parts: Separated) -> None:
    backdrop = torch.full((1, 3, SIDE, SIDE), LEVELS[1], dtype=torch.uint8)
    with under_test(OnePixel(*BACKGROUND_READER)) as subject:
        found = flipped(subject, parts, np.arange(12), backdrop)
    assert found.tolist() == [label != 1 for label in parts.variants["original"].labels]


def test_what_is_wrong_already_counts_for_nothing(parts: Separated) -> None:
    # On mixed_next as the original, the background reader is right on no image.
    swapped = dataclasses.replace(
        parts, variants={**parts.variants, "original": parts.variants["mixed_next"]}
    )
    with under_test(OnePixel(*BACKGROUND_READER)) as subject:
        values = values_of(background_measures(subject, swapped, 12, 3, 0))
    assert values["background/original"] == 0
    assert "background/flipped" not in values


@pytest.mark.parametrize("paired", [True, False])
def test_gap_and_its_interval_against_loops(paired: bool) -> None:
    rng = np.random.default_rng(1)
    same = torch.from_numpy((rng.random(80) < 0.9).astype(np.float32))
    rand = torch.from_numpy((rng.random(80) < 0.5).astype(np.float32))
    found = gap(same, rand, paired)
    assert found.value == pytest.approx(float(same.sum() - rand.sum()) / 80)
    draws = []
    for _ in range(2_000):
        first = rng.integers(80, size=80)
        second = first if paired else rng.integers(80, size=80)
        draws.append(float(same[first].mean() - rand[second].mean()))
    assert found.interval == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.03)


def test_pairing_narrows_the_interval_where_the_answers_go_together() -> None:
    same = (torch.arange(100) % 2).float()
    rand = same.clone()
    rand[:10] = 0
    widths = {p: np.diff(gap(same, rand, p).interval)[0] for p in (True, False)}
    assert widths[True] < 0.5 * widths[False]


def test_sets_that_are_not_paired_may_differ_in_length(parts: Separated) -> None:
    labels = np.arange(6) % 3
    whole = parts.variants["mixed_rand"]
    short = dataclasses.replace(whole, labels=labels, sources=whole.sources[:6])
    loose = dataclasses.replace(
        parts, variants={**parts.variants, "mixed_rand": short}, paired=False
    )
    with under_test(OnePixel(*OBJECT_READER)) as subject:
        measurements, arrays, _ = background_measures(subject, loose, 12, 3, 0)
    assert len(arrays["background/mixed_rand"]) == 6
    assert len(arrays["background/mixed_same"]) == 12
    assert "background/gap" not in arrays
    assert values_of((measurements, arrays))["background/gap"] == 0


def test_backdrops_come_apart_exactly() -> None:
    data = load_backdrops("test", correlation=0.9, variant="mixed_rand")
    parts = separate(data)
    assert parts is not None
    assert list(parts.variants) == list(VARIANTS)
    indices = np.array([3, 500])
    original = parts.variants["original"].images(indices)
    pasted = paste(original, parts.masks(indices), parts.backdrops(indices))
    assert torch.equal(pasted, original)
    elsewhere = paste(original, parts.masks(indices), torch.zeros_like(original))
    assert torch.equal(elsewhere, parts.variants["only_fg"].images(indices))
    assert parts.variants["mixed_same"].correlation == 0.9


def test_adversarial_backgrounds_are_taken_evenly_from_the_scenes() -> None:
    parts = separate(load_backdrops("test", correlation=0.9))
    chosen = adversarial_choice(parts, 2 * len(SCENES), seed=3)
    scenes = [parts.scene(int(i)) for i in chosen]
    assert np.bincount(scenes).tolist() == [2] * len(SCENES)
    assert len(set(chosen.tolist())) == len(chosen)
    assert not np.array_equal(chosen, adversarial_choice(parts, 2 * len(SCENES), seed=4))
    assert np.array_equal(chosen, adversarial_choice(parts, 2 * len(SCENES), seed=3))


def test_data_without_foregrounds_cannot_be_separated(parts: Separated) -> None:
    assert separate(parts.variants["original"]) is None


def test_examples_hold_images_masks_and_answers(parts: Separated) -> None:
    indices = first_of_each_class(parts.variants["original"], parts.usable)
    assert indices.tolist() == [0, 1, 2]
    with under_test(OnePixel(*BACKGROUND_READER)) as subject:
        arrays = example_arrays(subject, parts, indices)
    assert arrays["examples/label"].tolist() == [0, 1, 2]
    assert arrays["examples/mask"].shape == (3, SIDE, SIDE)
    assert arrays["examples/mixed_next"].dtype == torch.uint8
    assert arrays["examples/mixed_next/predicted"].tolist() == [1, 2, 0]


def test_a_subject_counts_and_leaves_the_student_as_it_was() -> None:
    student = OnePixel(0, 0)
    student.layer = torch.nn.Linear(2, 2)
    student.layer.bias.requires_grad_(False)
    student.train()
    student.layer.eval()
    images = torch.zeros(7, 3, SIDE, SIDE, dtype=torch.uint8)
    with under_test(student) as subject:
        assert isinstance(subject, Subject)
        assert not student.training
        assert not student.layer.weight.requires_grad
        subject.predict(images)
        subject.both(images)
        subject(images.float() / 255)
        assert subject.passes == 21
    assert student.training
    assert not student.layer.training
    assert student.layer.weight.requires_grad
    assert not student.layer.bias.requires_grad


def test_images_are_chosen_evenly_and_all_if_there_are_no_more() -> None:
    labels = np.repeat([0, 1, 2], 20)
    chosen = choose_images(labels, 15, 0)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 5]
    assert choose_images(labels, 60, 0).tolist() == list(range(60))
    assert choose_images(labels, 999, 0).tolist() == list(range(60))
