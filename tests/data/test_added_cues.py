"""A cue that is added to images: its share, its determinism, its colours, what is refused."""

import colorsys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clarep.data.added_cues import with_cue
from clarep.data.cues import NO_CUE, cues_of
from clarep.data.garments import load_garments
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data, load_test, stored_options
from clarep.data.subset import subset
from clarep.errors import UserError

GARMENTS = load_garments("train")


def many(count: int, classes: int = 5, side: int = 12) -> LabelledImages:
    """Noise of as many classes."""

    def read(i: int) -> np.ndarray:
        return np.random.default_rng(i).integers(0, 256, (side, side + 3, 3)).astype(np.uint8)

    names = tuple(f"class {i}" for i in range(classes))
    labels = np.arange(count) % classes
    return LabelledImages("noise", labels, names, [str(i) for i in range(count)], read)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9, 1.0])
def test_the_dial_is_the_share_of_own_cues(correlation: float) -> None:
    data = many(4000)
    cues = cues_of(with_cue(data, "tint", correlation))
    share = correlation + (1 - correlation) / 5
    assert (cues == data.labels).mean() == pytest.approx(share, abs=5 * np.sqrt(0.25 / 4000))
    for label in range(5):  # what is not the own is spread over all the others
        others = np.bincount(cues[data.labels == label], minlength=5)
        wanted = 800 * (1 - correlation) / 5
        assert abs(np.delete(others, label) - wanted).max() <= 5 * np.sqrt(wanted) + 1e-9


def test_the_variants_are_own_random_and_none() -> None:
    data = many(2000)
    made = with_cue(data, "patch", 0.9)
    assert set(made.other_cues) == {"own", "random", "none"}
    own, random, none = (made.other_cues[name] for name in ("own", "random", "none"))
    assert np.array_equal(cues_of(own), data.labels)
    assert (cues_of(random) == data.labels).mean() == pytest.approx(0.2, abs=0.05)
    assert np.array_equal(cues_of(random), cues_of(with_cue(data, "patch", 0.0)))
    assert cues_of(none) is None and np.array_equal(none.read(7), data.read(7))
    for name, other in made.other_cues.items():
        alone = with_cue(data, "patch", 0.9, variant=name)
        assert alone.name == other.name != made.name and alone.sha256([0, 5]) == other.sha256(
            [0, 5]
        )
    more, less = cues_of(with_cue(data, "patch", 0.9)), cues_of(with_cue(data, "patch", 0.4))
    assert (more == data.labels)[less == data.labels].all()  # of a dial, one way


def test_same_seed_and_split_same_bytes() -> None:
    data = many(300)
    made = with_cue(data, "tint", 0.5, seed=3)
    assert made.sha256() == with_cue(data, "tint", 0.5, seed=3).sha256()
    cues = cues_of(made)
    for changed in ({"seed": 4}, {"seed": 3, "split": "test"}):
        other = cues_of(with_cue(data, "tint", 0.5, **changed))
        assert 0.2 < (other != cues).mean() < 0.8
    first = with_cue(subset(data, np.arange(100), "first"), "tint", 0.5, seed=3)
    assert np.array_equal(cues_of(first), cues[:100])  # by image, whatever comes behind it


def test_colours_by_hand() -> None:
    data = many(40)
    tinted, patched = with_cue(data, "tint", 0.5), with_cue(data, "patch", 0.5)
    for i in range(40):
        red, green, blue = colorsys.hsv_to_rgb(int(cues_of(tinted)[i]) / 5, 1, 1)
        colour = np.array([255 * red, 255 * green, 255 * blue])
        image = data.read(i)
        assert np.abs(tinted.read(i) - (0.7 * image + 0.3 * colour)).max() <= 0.5 + 1e-9
        patch = patched.read(i)
        assert (patch[:3, :3] == np.rint(colour)).all()
        patch[:3, :3] = image[:3, :3]
        assert np.array_equal(patch, image)
    assert np.array_equal(data.read(3), many(40).read(3))  # the image itself stays as it was


def test_a_single_colour_channel_tells_the_class_as_often_as_the_dial() -> None:
    """What a student could read: the hue of the patch, and nothing else."""
    made = with_cue(many(500), "patch", 0.8)
    hues = [colorsys.rgb_to_hsv(*(made.read(i)[0, 0] / 255))[0] for i in range(500)]
    read = np.rint(np.array(hues) * 5).astype(int) % 5
    assert np.array_equal(read, cues_of(made))


def test_by_options_of_data(tmp_path: Path) -> None:
    config = DataConfig(data="garments", cue="tint", correlation=0.9, data_seed=2)
    made = load_data(config)
    assert made.name == "garments/train/cue=tint/seed=2/correlation=0.9"
    assert made.sha256([0, 9]) == with_cue(GARMENTS, "tint", 0.9, seed=2).sha256([0, 9])
    options, test = load_test(config)
    assert options == replace(config, split="test") and len(test) == 1000
    assert (cues_of(test) == test.labels).mean() == pytest.approx(0.91, abs=0.04)
    assert not np.array_equal(cues_of(test), cues_of(made)[:1000])
    assert cues_of(load_data(replace(config, variant="none"))) is None
    assert "cue" not in stored_options(DataConfig(data="garments"))
    assert stored_options(config)["cue"] == "tint"

    x, y = np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "s.npz", x=x, y=y)
    part = load_data(DataConfig(data=str(tmp_path / "s.npz"), cue="patch", share=0.5, data_seed=1))
    assert len(part) == 20 and set(part.other_cues) == {"own", "random", "none"}
    whole = load_data(DataConfig(data=str(tmp_path / "s.npz"), cue="patch", data_seed=1))
    assert len(whole) == 40


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "backdrops"}, "`cue=tint` would lose the foregrounds of backdrops"),
        ({"data": "noise-backdrops"}, "`cue=tint` would lose the foregrounds of noise-backdrops"),
        ({"variant": "mixed_rand"}, "mixed_rand"),
        ({"cue": None}, "`correlation=0.9` does not apply to garments"),
        ({"classes_file": Path("x")}, "`classes_file=x` does not apply to garments"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict, words: str) -> None:
    given = {"data": "garments", "cue": "tint", "correlation": 0.9} | change
    with pytest.raises(UserError, match=words):
        load_data(DataConfig(**given))


def test_more_classes_than_colours_are_refused() -> None:
    with_cue(many(32, 32), "tint", 0.9)
    with pytest.raises(UserError, match="those of 33 classes cannot be told apart"):
        with_cue(many(33, 33), "tint", 0.9)
    with pytest.raises(UserError, match=r"correlation 1.5 is outside \[0, 1\]"):
        with_cue(many(5), "tint", 1.5)


def test_cues_that_can_be_told_apart_have_colours_of_their_own() -> None:
    made = with_cue(many(64, 32), "patch", 1.0)
    colours = {tuple(made.read(i)[0, 0].tolist()) for i in range(64)}
    assert len(colours) == 32 and NO_CUE not in cues_of(made)
