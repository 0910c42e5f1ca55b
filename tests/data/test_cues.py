"""Cues that data know: of backdrops their scenes; a subset keeps those of its images."""

from dataclasses import replace

import numpy as np
import pytest

from clarep.data.backdrops import Backdrops, load_backdrops
from clarep.data.cues import NO_CUE, GroupedImages, cues_of, group_numbers
from clarep.data.garments import load_garments
from clarep.data.held_out import load_held_out, save_held_out, split_off
from clarep.data.labelled import in_memory
from clarep.data.subset import subset
from clarep.errors import UserError


def own(labels: list[int], cue: object, **more: object) -> GroupedImages:
    """Black images of two classes with these cues."""
    return GroupedImages(
        name="own",
        labels=np.array(labels),
        class_names=("a", "b"),
        sources=[str(i) for i in range(len(labels))],
        read=lambda i: np.full((4, 4, 3), i, np.uint8),
        cue=np.array(cue),
        **more,
    )


@pytest.mark.parametrize("variant", ["original", "no_fg", "mixed_rand", "mixed_same"])
def test_the_cue_of_a_backdrop_is_its_scene(variant: str) -> None:
    data = load_backdrops("test", correlation=0.7, variant=variant)
    cues = cues_of(data)
    assert cues is not None and len(cues) == len(data)
    for i in range(0, len(data), 37):
        assert cues[i] == data.composition(i).scene


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_the_share_of_own_cues_is_the_correlation(correlation: float) -> None:
    data = load_backdrops("train", correlation=correlation)
    share = (cues_of(data) == data.labels).mean()
    assert share == pytest.approx(correlation + (1 - correlation) / 10, abs=0.02)


def test_data_without_cues_say_so() -> None:
    for data in (
        load_garments("test"),
        Backdrops("test", noise=True),
        load_backdrops("test", variant="only_fg"),
        own([0, 1], [NO_CUE, NO_CUE]),
    ):
        assert cues_of(data) is None
        some = subset(data, np.array([1, 0]), "some")
        assert cues_of(some) is None and len(some) == 2


def test_a_subset_and_images_held_out_keep_their_cues(tmp_path) -> None:
    data = load_backdrops("test", correlation=0.5)
    cues = cues_of(data)
    kept = np.array([7, 3, 999])
    assert cues_of(subset(data, kept, "three")).tolist() == cues[kept].tolist()
    assert cues_of(in_memory(data, False, kept)[0]).tolist() == cues.tolist()
    kept, apart = split_off(data, 0.1)
    save_held_out(tmp_path, data, kept, apart)
    trained, held_out = load_held_out(tmp_path, data)
    assert cues_of(trained).tolist() == cues[kept].tolist()
    assert cues_of(held_out).tolist() == cues[apart].tolist()


def test_other_cues_go_with_a_subset() -> None:
    dark = own([0, 1, 1], [1, 1, 1])
    data = own(
        [0, 1, 1],
        [0, NO_CUE, 1],
        other_cues={"none": replace(dark, read=lambda i: dark.read(2 * i))},
    )
    some = subset(data, np.array([2, 0]), "some")
    assert cues_of(some).tolist() == [1, 0]
    assert some.other_cues["none"].read(0)[0, 0, 0] == 4 and some.read(0)[0, 0, 0] == 2


def test_other_cues_that_no_measure_knows_are_refused() -> None:
    with pytest.raises(UserError, match="dark"):
        own([0, 1], [0, 1], other_cues={"dark": own([0, 1], [1, 1])})


@pytest.mark.parametrize("cue", [[0, 1], [0, 1, 2], [0, 1, -2], [[0], [1], [1]]])
def test_cues_that_are_none_are_refused(cue: object) -> None:
    with pytest.raises(UserError, match=r"the cues of own are .*0 to 1, or -1 for none"):
        cues_of(own([0, 1, 1], cue))


def test_groups_are_the_pairs_that_there_are() -> None:
    rng = np.random.default_rng(0)
    labels, cues = rng.integers(3, size=50), rng.integers(-1, 3, size=50)
    groups = group_numbers(labels, cues)
    assert set(groups) == set(range(len({*zip(labels.tolist(), cues.tolist(), strict=True)})))
    for i in range(50):
        same = (labels == labels[i]) & (cues == cues[i])
        assert np.array_equal(groups == groups[i], same)
