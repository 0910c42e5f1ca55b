"""The Backgrounds Challenge's layout, in a tiny copy made here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarep.data.foregrounds import separate
from clarep.data.sets.backgrounds_challenge import CHALLENGE_VARIANTS, is_challenge, load_challenge
from clarep.errors import UserError
from clarep.robustness.backgrounds import flipped
from clarep.robustness.tested_student import Subject
from clarep.students.student import Student, StudentInfo

CLASSES = ("00_dog", "01_bird")
SIDE = 8


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of two images in every variant, grey by variant and class; masks of a square."""
    for grey, variant in enumerate(CHALLENGE_VARIANTS):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / variant / "val" / name
            folder.mkdir(parents=True)
            for i in range(3 if variant == "mixed_rand" else 2):
                pixels = np.full((SIDE, SIDE, 3), 10 * grey + 100 * label, np.uint8)
                Image.fromarray(pixels).save(folder / f"fg_{i}.png")
    for name in CLASSES:
        folder = tmp_path / "fg_mask" / "val" / name
        folder.mkdir(parents=True)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[2:6, 2:6] = True
        np.save(folder / "fg_0.npy", mask)
    return tmp_path


def test_every_variant_is_read_with_its_classes(root: Path) -> None:
    data = load_challenge(root)
    assert is_challenge(root)
    variants = separate(data).variants
    assert tuple(variants) == CHALLENGE_VARIANTS
    assert data.class_names == CLASSES
    assert len(data) == 4
    assert len(variants["mixed_rand"]) == 6
    greys = {name: int(variant.read(2)[0, 0, 0]) for name, variant in variants.items()}
    assert greys["only_fg"] == 10 * CHALLENGE_VARIANTS.index("only_fg") + 100
    assert data.read(0).shape == (SIDE, SIDE, 3)


def test_masks_come_from_fg_mask_and_backgrounds_from_only_bg_t(root: Path) -> None:
    parts = separate(load_challenge(root))
    assert not parts.paired
    assert parts.usable.tolist() == [0, 2]  # of each class the first has a mask
    assert int(parts.masks(parts.usable).sum()) == 2 * 16
    assert parts.donors.tolist() == [0, 1, 2, 3]
    grey = 10 * CHALLENGE_VARIANTS.index("only_bg_t")
    assert parts.backdrops(np.array([0, 2]))[:, 0, 0, 0].tolist() == [grey, grey + 100]


def test_masks_shrink_with_their_images(root: Path) -> None:
    data = load_challenge(root, image_size=4)
    assert data.read(0).shape == (4, 4, 3)
    mask = separate(data).masks(np.array([0]))[0]
    assert mask.nonzero().tolist() == [
        [1, 1],
        [1, 2],
        [2, 1],
        [2, 2],
    ]


def test_a_foreground_is_pasted_where_its_mask_is(root: Path) -> None:
    class Watch(Student):
        def __init__(self) -> None:
            super().__init__()
            self.info = StudentInfo("watch", ("a", "b"), (3, SIDE, SIDE))
            self.seen = []

        def features(self, x):
            return x.flatten(1)

        def forward(self, x):
            self.seen.append(x)
            return torch.zeros(len(x), 2)

        def both(self, x):
            return self.features(x), self(x)

    student = Watch()
    parts = separate(load_challenge(root))
    flipped(
        Subject(student),
        parts,
        parts.usable,
        torch.full((1, 3, SIDE, SIDE), 255, dtype=torch.uint8),
    )
    assert student.seen[0].shape == (2, 3, SIDE, SIDE)
    assert (student.seen[0][0, 0] == 1).sum() == SIDE**2 - 16
    assert (student.seen[0][0, 0] == 0).sum() == 16


def test_without_masks_nothing_is_pasted(root: Path) -> None:
    for path in (root / "fg_mask").rglob("*.npy"):
        path.unlink()
    parts = separate(load_challenge(root))
    assert parts.masks is None


def test_another_layout_is_refused(root: Path, tmp_path_factory) -> None:
    with pytest.raises(UserError, match="no Backgrounds Challenge folder"):
        load_challenge(tmp_path_factory.mktemp("other"))
    extra = root / "only_fg" / "val" / "02_cat"
    extra.mkdir()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(extra / "a.png")
    with pytest.raises(UserError, match="other classes than"):
        load_challenge(root)


def test_a_damaged_mask_is_named(root: Path) -> None:
    path = root / "fg_mask/val/00_dog/fg_0.npy"
    path.write_bytes(b"no array")
    with pytest.raises(UserError, match=r"cannot read .*fg_0\.npy"):
        separate(load_challenge(root)).masks(np.array([0]))
    np.save(path, np.zeros((3, 3), bool))
    with pytest.raises(UserError, match="give one size"):
        separate(load_challenge(root)).masks(np.array([0]))
