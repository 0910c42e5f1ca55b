"""The composed set: determinism, exact masks, and each variant by its definition."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from clarep.data.backdrops import NO_SCENE, SCENES, Backdrops, load_backdrops
from clarep.data.foregrounds import VARIANTS
from clarep.data.garments import garment_arrays, load_garments
from clarep.errors import UserError

INDICES = np.array([0, 17, 123, 500, 998])
# Pinned: a change of the recipe would part the bundled teacher from its data.
PINNED = "9f7cc1a9e585edd34c704d8dc7ed6d2ccce3907207ef9753a6d6928a086abb1c"


def digest(data: Backdrops) -> str:
    return hashlib.sha256(data.images(INDICES).numpy().tobytes()).hexdigest()


def test_same_seed_gives_same_bytes_and_another_gives_others():
    assert digest(load_backdrops("test", seed=3)) == digest(load_backdrops("test", seed=3))
    assert digest(load_backdrops("test", seed=3)) != digest(load_backdrops("test", seed=4))


def test_bytes_are_the_ones_the_bundled_teacher_was_trained_on():
    assert digest(load_backdrops("test", seed=0, correlation=0.5)) == PINNED


def test_an_image_does_not_depend_on_those_read_before():
    data = load_backdrops("test")
    alone = data.images([123])
    assert_array_equal(alone[0], data.images(INDICES)[2])


def test_splits_differ():
    assert len(load_backdrops("train")) == 5000
    assert len(load_backdrops("test")) == 1000
    assert digest(load_backdrops("train")) != digest(load_backdrops("test"))


def garment_on_black(i: int) -> tuple[np.ndarray, np.ndarray]:
    only_fg = load_backdrops("test", variant="only_fg").composition(i)
    return only_fg.image, only_fg.mask


@pytest.mark.parametrize("i", INDICES)
def test_image_is_backdrop_outside_the_mask_and_garment_inside(i: int):
    made = load_backdrops("test").composition(int(i))
    garment, mask = garment_on_black(int(i))
    assert_array_equal(made.mask, mask)
    assert 0.05 < made.mask.mean() < 0.9
    assert_array_equal(made.image[~mask], made.backdrop[~mask])
    assert_array_equal(made.image[mask], garment[mask])
    assert (made.image[mask] != made.backdrop[mask]).any()


@pytest.mark.parametrize("i", INDICES)
def test_the_garment_is_the_source_garment_moved_and_maybe_mirrored(i: int):
    garment, mask = garment_on_black(int(i))
    source = garment_arrays("test")[0][i]
    found = [
        (top, left)
        for candidate in (source, source[:, ::-1])
        for top in range(5)
        for left in range(5)
        if (garment[:, :, 0] == np.where(mask, place(candidate, top, left), 0)).all()
    ]
    assert found
    assert_array_equal(garment, garment[:, :, :1].repeat(3, axis=2))


def place(garment: np.ndarray, top: int, left: int) -> np.ndarray:
    canvas = np.zeros((32, 32), np.uint8)
    canvas[top : top + 28, left : left + 28] = garment
    return canvas


def test_masks_and_backdrops_agree_with_compositions():
    data = load_backdrops("test")
    masks, backdrops = data.masks(INDICES), data.backdrops(INDICES)
    assert masks.shape == (5, 32, 32)
    assert backdrops.shape == (5, 3, 32, 32)
    for row, i in enumerate(INDICES):
        made = data.composition(int(i))
        assert_array_equal(masks[row], made.mask)
        assert_array_equal(backdrops[row].permute(1, 2, 0), made.backdrop)


@pytest.mark.parametrize("i", INDICES)
def test_only_fg_only_bg_and_no_fg(i: int):
    original = load_backdrops("test").composition(int(i))
    variants = {v: load_backdrops("test", variant=v).composition(int(i)) for v in VARIANTS}
    mask = original.mask
    assert (variants["only_fg"].image[~mask] == 0).all()
    assert_array_equal(variants["only_fg"].image[mask], original.image[mask])
    assert_array_equal(variants["only_bg"].image, original.backdrop)
    assert (variants["no_fg"].image[mask] == 0).all()
    assert_array_equal(variants["no_fg"].image[~mask], original.image[~mask])


@pytest.mark.parametrize("variant", ["mixed_same", "mixed_rand", "mixed_next"])
@pytest.mark.parametrize("i", INDICES)
def test_mixed_variants_keep_the_garment_and_take_anothers_backdrop(variant: str, i: int):
    original = load_backdrops("test").composition(int(i))
    mixed = load_backdrops("test", variant=variant).composition(int(i))
    assert_array_equal(mixed.mask, original.mask)
    assert_array_equal(mixed.image[mixed.mask], original.image[original.mask])
    assert_array_equal(mixed.image[~mixed.mask], mixed.backdrop[~mixed.mask])
    assert (mixed.backdrop != original.backdrop).any()


@pytest.mark.parametrize(("variant", "shift"), [("mixed_same", 0), ("mixed_next", 1)])
def test_at_full_correlation_mixed_scenes_follow_the_class(variant: str, shift: int):
    data = load_backdrops("test", correlation=1.0, variant=variant)
    for i in INDICES:
        assert data.composition(int(i)).scene == (data.labels[i] + shift) % 10


def test_a_mixed_backdrop_is_the_original_one_of_an_image_of_the_wanted_class():
    original = load_backdrops("test")
    next_class = (original.labels[0] + 1) % 10
    wanted = load_backdrops("test", variant="mixed_next").composition(0).backdrop
    members = np.flatnonzero(original.labels == next_class)
    assert any((original.composition(int(j)).backdrop == wanted).all() for j in members)


def scene_counts(correlation: float, count: int = 400) -> tuple[np.ndarray, float]:
    data = load_backdrops("train", correlation=correlation)
    indices = np.random.default_rng(0).choice(len(data), count, replace=False)
    scenes = np.array([data.composition(int(i)).scene for i in indices])
    return np.bincount(scenes, minlength=10), float((scenes == data.labels[indices]).mean())


def test_correlation_ties_a_class_to_its_scene():
    assert len(SCENES) == 10
    assert scene_counts(1.0)[1] == 1.0
    counts, own = scene_counts(0.0)
    assert own == pytest.approx(0.1, abs=0.06)  # four standard deviations of 400 draws
    assert counts.min() > 400 * 0.1 - 4 * np.sqrt(400 * 0.09)
    assert scene_counts(0.5)[1] == pytest.approx(0.55, abs=0.1)


def test_training_draws_follow_their_generator():
    data = load_backdrops("train")
    first = data.draw(INDICES, np.random.default_rng(0))
    assert_array_equal(first, data.draw(INDICES, np.random.default_rng(0)))
    assert (first != data.draw(INDICES, np.random.default_rng(1))).any()
    assert (first != data.images(INDICES)).any()


@pytest.mark.parametrize(
    "change", [{"seed": 5}, {"correlation": 1.0}, {"variant": "only_bg"}, {"split": "test"}]
)
def test_a_replaced_field_makes_a_whole_new_set(change: dict):
    given = {"split": "train", "seed": 3, "correlation": 0.7}
    replaced = replace(load_backdrops(**given), **change)
    fresh = load_backdrops(**(given | change))
    assert replaced == fresh
    assert replaced.name == fresh.name
    assert replaced.sources == fresh.sources
    assert digest(replaced) == digest(fresh) != digest(load_backdrops(**given))
    assert_array_equal(replaced.labels, fresh.labels)
    for i in INDICES:
        assert_array_equal(replaced.read(int(i)), replaced.composition(int(i)).image)
    with pytest.raises(UserError, match="unknown variant"):
        replace(fresh, variant="only")


def test_garments_are_the_padded_source_in_grey():
    data = load_garments("test")
    image = data.images([7])[0].numpy()
    assert_array_equal(image, np.pad(garment_arrays("test")[0][7], 2)[None].repeat(3, axis=0))
    assert np.bincount(data.labels).tolist() == [100] * 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variant": "mixed_nxt"}, "mixed_next"),
        ({"split": "tset"}, "test"),
        ({"correlation": 1.5}, r"outside \[0, 1\]"),
        ({"correlation": float("nan")}, "outside"),
        ({"seed": -1}, r"seed -1 is outside 0 to 2\^32 - 1"),
        ({"seed": 2**32}, "seed 4294967296 is outside"),
    ],
)
def test_wrong_arguments_are_the_users(arguments: dict, words: str):
    with pytest.raises(UserError, match=words):
        load_backdrops(**arguments)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty .zero bytes."),
        (b"PK\x03\x04 cut", "damaged or of another kind"),
        (b"text", "damaged or of another kind"),
    ],
)
def test_a_damaged_garments_archive_is_named(tmp_path: Path, content: bytes, found: str):
    path = tmp_path / "garments.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"cannot read .*garments\.npz .* it is {found}"):
        garment_arrays("test", str(path))


@pytest.mark.parametrize("at", [60, 90, 200])
def test_a_corrupt_compressed_archive_is_named(tmp_path: Path, at: int):
    path = tmp_path / "garments.npz"
    noise = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    np.savez_compressed(path, x_test=noise, y_test=np.arange(20) % 10)
    content = bytearray(path.read_bytes())
    content[at : at + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*garments\.npz .* it is damaged"):
        garment_arrays("test", str(path))


GARMENTS, LABELS = np.zeros((3, 28, 28), np.uint8), np.array([0, 9, 4])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_test": GARMENTS}, "lacks x_test or y_test: give an .npz"),
        ({"x": GARMENTS, "y": LABELS}, "lacks x_test or y_test"),
        ({"x_test": GARMENTS.reshape(3, 784), "y_test": LABELS}, r"are uint8 \(3, 784\): give"),
        ({"x_test": GARMENTS[..., None], "y_test": LABELS}, r"are uint8 \(3, 28, 28, 1\)"),
        ({"x_test": GARMENTS / 255, "y_test": LABELS}, r"are float64 \(3, 28, 28\): .* in uint8"),
        ({"x_test": GARMENTS[:2], "y_test": LABELS}, "2 garments and 3 labels"),
        ({"x_test": GARMENTS[:0], "y_test": LABELS[:0]}, "0 garments"),
        ({"x_test": GARMENTS, "y_test": LABELS + 1}, "label 10 of image 1 .* is outside"),
        ({"x_test": GARMENTS, "y_test": LABELS - 1}, "label -1 of image 0"),
        ({"x_test": GARMENTS, "y_test": LABELS / 1}, "give whole numbers"),
    ],
)
def test_garments_of_another_layout(tmp_path: Path, arrays: dict, words: str):
    np.savez(tmp_path / "garments.npz", **arrays)
    with pytest.raises(UserError, match=words):
        garment_arrays("test", str(tmp_path / "garments.npz"))
    with pytest.raises(UserError, match=words):
        load_backdrops("test", garments_path=str(tmp_path / "garments.npz"))


def test_noise_takes_the_place_of_the_photographs_alone():
    data, photographs = load_backdrops("test", noise=True), load_backdrops("test")
    assert digest(data) == digest(load_backdrops("test", noise=True))
    assert_array_equal(data.labels, photographs.labels)
    for i in INDICES:
        made = data.composition(int(i))
        assert made.scene == NO_SCENE
        assert_array_equal(made.image[~made.mask], made.backdrop[~made.mask])
        assert made.mask.sum() == photographs.composition(int(i)).mask.sum()


def test_noise_falls_with_frequency_and_its_colour_varies():
    backdrops = load_backdrops("test", noise=True).backdrops(np.arange(100)).double().numpy()
    power = (np.abs(np.fft.fft2(backdrops)) ** 2).mean(axis=(0, 1))
    # Amplitudes of 1/f: eight times the frequency, a 64th of the power, but for what is clipped.
    assert power[0, 1] / power[0, 8] == pytest.approx(64, rel=0.4)
    assert power[1, 0] / power[8, 0] == pytest.approx(64, rel=0.4)
    assert backdrops.mean(axis=(2, 3)).std(axis=0).min() > 25  # of 255; a width of 128 has 37


@pytest.mark.parametrize("variant", ["mixed_same", "mixed_rand", "mixed_next"])
def test_mixed_noise_is_another_images_noise(variant: str):
    original = load_backdrops("test", noise=True)
    backdrop = load_backdrops("test", noise=True, variant=variant).composition(0).backdrop
    found = [(original.composition(j).backdrop == backdrop).all() for j in range(len(original))]
    assert sum(found) == 1 and not found[0]


def test_noise_has_no_scene_to_tie_a_class_to():
    with pytest.raises(UserError, match="noise has none: leave it out"):
        load_backdrops(correlation=0.9, noise=True)
