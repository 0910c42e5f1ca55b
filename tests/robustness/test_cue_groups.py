"""Accuracy by groups of class and cue, against naive loops."""

import dataclasses

import numpy as np
import pytest
import torch

from clarep.data.added_cues import with_cue
from clarep.data.backdrops import load_backdrops
from clarep.data.cues import cues_of
from clarep.data.garments import CLASS_NAMES, load_garments
from clarep.data.subset import subset
from clarep.engine.statistics import binomial_interval, least_share_interval
from clarep.robustness.cue_groups import group_measures, merged_groups
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.suite.suite import robustness_suite
from clarep.robustness.suite.suite_config import SuiteConfig
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student


def by_hand(labels: list[int], cues: list[int], fewest: int) -> list[list[int]]:
    """The images of each group, as the catalogue words it."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, pair in enumerate(zip(labels, cues, strict=True)):
        groups.setdefault(pair, []).append(i)
    found, small = [], dict[int, list[int]]()
    for (label, _), members in groups.items():
        if len(members) >= fewest:
            found.append(members)
        else:
            small.setdefault(label, []).extend(members)
    return sorted(sorted(m) for m in [*found, *small.values()] if len(m) >= fewest)


@pytest.mark.parametrize("seed", range(5))
def test_worst_group_and_conflicting_against_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=90)
    cues = np.where(rng.random(90) < 0.6, labels, rng.integers(-1, 4, size=90))
    right = rng.random(90) < 0.7
    groups = merged_groups(labels, cues)
    found = [np.flatnonzero(groups == group).tolist() for group in range(groups.max() + 1)]
    wanted = by_hand(labels.tolist(), cues.tolist(), 5)
    assert sorted(found) == wanted and len(wanted) > 4

    worst, conflicting = group_measures(torch.from_numpy(right), labels, cues).measurements
    assert worst.value == min(np.mean([right[i] for i in group]) for group in wanted)
    assert worst.images == sum(map(len, wanted))
    assert worst.interval[0] <= worst.value <= worst.interval[1]
    apart = [right[i] for i in range(90) if cues[i] not in (-1, labels[i])]
    assert conflicting.value == pytest.approx(np.mean(apart)) and conflicting.images == len(apart)


def test_groups_too_small_even_together_are_none() -> None:
    labels, cues = np.array([0] * 9 + [1] * 4), np.array([0] * 5 + [1, 1, 2, 2] + [1, 2, 0, 0])
    assert merged_groups(labels, cues).tolist() == [0] * 5 + [-1] * 8
    right = torch.ones(13, dtype=torch.bool)
    few = group_measures(right[9:], labels[9:], cues[9:])
    assert [one.key for one in few.measurements] == ["clean/conflicting"]
    own = group_measures(right[:5], labels[:5], cues[:5])
    assert [one.key for one in own.measurements] == ["clean/worst_group"]


def test_the_interval_holds_the_least_of_true_shares() -> None:
    """As often as it should, though the worst is picked: a single share's interval does not."""
    rng, sizes = np.random.default_rng(0), [12] * 40
    held, single = 0, 0
    for _ in range(300):
        right = rng.binomial(12, 0.75, size=40).tolist()
        value, (low, high) = least_share_interval(right, sizes)
        assert value == min(right) / 12
        held += low <= 0.75 <= high
        alone = binomial_interval(min(right), 12)
        single += alone[0] <= 0.75 <= alone[1]
    assert held >= 285 > single
    assert least_share_interval([7], [9])[1] == binomial_interval(7, 9)


@pytest.fixture(scope="module")
def student():
    return build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 32, 32))).eval()


def test_the_suite_measures_groups_where_cues_are_known(student, tmp_path) -> None:
    config = SuiteConfig(groups=("clean",), images=100)
    data = load_backdrops("test", correlation=0.9)
    found = robustness_suite(student, data, config, folder=tmp_path)
    index = found.arrays["index"].numpy()
    cues, labels = cues_of(data)[index], data.labels[index]
    right = found.arrays["clean/accuracy"].numpy()
    assert np.array_equal(found.arrays["clean/cue"].numpy(), cues)
    wanted = min(right[group].mean() for group in by_hand(labels.tolist(), cues.tolist(), 5))
    assert found["clean/worst_group"].value == pytest.approx(wanted)
    assert found["clean/conflicting"].value == pytest.approx(right[cues != labels].mean())
    without = robustness_suite(student, load_garments("test"), config)
    assert [one.key for one in without.measurements] == ["clean/accuracy"]


def test_an_evaluation_from_before_the_measure_is_read_and_completed(student, tmp_path) -> None:
    config = SuiteConfig(groups=("clean",), images=100)
    data = load_backdrops("test", correlation=0.9)
    whole = robustness_suite(student, data, config, folder=tmp_path)
    groups, clean = tmp_path / "parts" / "clean" / "groups", tmp_path / "parts" / "clean"
    for path in sorted(groups.iterdir()):
        path.unlink()
    groups.rmdir()
    before = (clean / "evaluation.json").stat().st_mtime_ns
    known = [one for one in whole.measurements if one.key == "clean/accuracy"]
    arrays = {key: values for key, values in whole.arrays.items() if key.count("/") == 0}
    dataclasses.replace(whole, measurements=known, arrays=arrays).save(tmp_path)
    old = Evaluation.load(tmp_path)
    assert "clean/worst_group" not in old and "clean/accuracy" in old
    again = robustness_suite(student, data, config, folder=tmp_path)
    assert again.measurements == whole.measurements
    assert (clean / "evaluation.json").stat().st_mtime_ns == before


def test_an_added_cue_is_measured_own_random_and_none(student) -> None:
    config = SuiteConfig(groups=("clean",), images=60)
    data = with_cue(load_garments("test"), "tint", 0.9, split="test")
    found = robustness_suite(student, data, config)
    index = found.arrays["index"]
    for name in ("own", "random", "none"):
        with torch.no_grad():
            answers = student(data.other_cues[name].images(index) / 255).argmax(1).numpy()
        right = (answers == data.labels[index.numpy()]).mean()
        assert found[f"clean/cue_{name}"].value == pytest.approx(right)
    gap = found["clean/cue_own"].value - found["clean/cue_random"].value
    assert found["clean/cue_gap"].value == pytest.approx(gap)
    assert found.config["cost"]["forward_passes"]["clean"] == 4 * 60
    assert {one.key for one in found.measurements} >= {"clean/worst_group", "clean/conflicting"}
    held = robustness_suite(student, subset(data, index.numpy(), "held-out"), config)
    assert held["clean/cue_gap"] == found["clean/cue_gap"]
