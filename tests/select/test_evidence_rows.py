"""Class evidence in the rows of a set and of its controls, beside a mixture's closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.clarid.identify import identify
from clarep.engine.statistics import binomial_interval, bootstrap_interval
from clarep.errors import UserError
from clarep.select.class_evidence import ClassEvidence, class_evidence
from clarep.select.controls import (
    check_controls,
    inverted_evidence,
    measure_set,
    measured_on,
    project_control,
    scrambled,
    shown_instead,
)
from clarep.select.evidence_summary import summarised
from mixture import MixtureTeacher

SIGMA = 0.7


@pytest.fixture(scope="module")
def teacher():
    return MixtureTeacher(shape=(3, 4, 4), separation=1.2)


@pytest.fixture(scope="module")
def data(teacher):
    return teacher.data(np.arange(30) % 3, seed=1)


@pytest.fixture(scope="module")
def clarid(teacher):
    return Clarid(teacher, sigma=SIGMA, k=16, steps=4, guidance=2.0)


@pytest.fixture(scope="module")
def canonical(clarid, data, tmp_path_factory) -> CanonicalSet:
    return identify(clarid, data, tmp_path_factory.mktemp("set") / "canon")


@pytest.fixture(scope="module")
def rows(teacher, clarid, data, canonical):
    before = inverted_evidence(clarid, teacher.judge, canonical)
    kinds = (None, "none", "reconstruction", "random", "scrambled")
    return [
        measure_set(clarid, teacher.judge, data, canonical, kind, before=before) for kind in kinds
    ]


def test_the_evidence_of_a_row_is_that_of_its_latents(teacher, canonical, rows):
    labels = canonical.label
    of_x_te = teacher.nats(canonical.x_te, SIGMA, labels)
    of_latents = teacher.nats(canonical.latent, SIGMA, labels)
    top, none, reconstruction, random, _ = rows
    assert top.evidence == pytest.approx(float(of_latents.mean()), abs=0.05)
    assert none.evidence == pytest.approx(float(of_x_te.mean()), abs=0.05)
    changed = float((of_latents - of_x_te).mean())
    assert top.evidence_change == pytest.approx(changed, abs=0.03)
    assert abs(changed) > 0.1
    low, high = top.evidence_change_interval
    assert low < top.evidence_change < high
    # In pairs it is known better than by two rows.
    assert high - low < top.evidence_interval[1] - top.evidence_interval[0]
    assert random.evidence_change not in (None, top.evidence_change)
    assert none.evidence_change is reconstruction.evidence_change is None
    assert all(row.labels_tried == 3 for row in rows)
    likeliest = teacher.log_posterior(canonical.x_te, SIGMA).argmax(1) == labels
    assert none.posterior_share == pytest.approx(float(likeliest.double().mean()), abs=0.07)


def test_without_projection_two_rows_differ_in_guidance_alone(rows):
    _, none, reconstruction, *_ = rows
    own = {"kind", "swap_guided_share", "swap_guided_interval", "judge_accuracy", "judge_interval"}
    told = {name for name in vars(none) if getattr(none, name) != getattr(reconstruction, name)}
    assert {name for name in told if "evidence" in name or "share" in name} <= own
    assert reconstruction.swap_guided_share == reconstruction.swap_share == none.swap_share


def test_the_same_numbers_without_what_was_known_before(teacher, clarid, data, canonical, rows):
    for row, kind in ((rows[1], "none"), (rows[0], None)):
        alone = measure_set(clarid, teacher.judge, data, canonical, kind)
        no_change = {"evidence_change": None, "evidence_change_interval": None}
        assert alone == replace(row, **no_change)


def test_images_that_show_nothing_have_no_evidence(rows):
    """Though under guidance the label draws their class as it draws that of the others."""
    _, none, *_, nothing = rows
    assert nothing.kind == "scrambled"
    assert nothing.evidence < 0
    assert none.evidence > 0.5
    assert nothing.posterior_share < 1 / 3
    assert none.posterior_interval[0] > 1 / 3
    assert nothing.null_share < none.null_share
    assert nothing.judge_accuracy > 0.8
    assert nothing.background_area is None


def test_images_of_other_data_go_the_same_road(teacher, clarid, data, canonical, tmp_path):
    """Of one colour all, which says no class: the labels are the set's, the images are not."""
    grey = np.full((7, 4, 4, 3), 128, np.uint8) + np.arange(7, dtype=np.uint8)[:, None, None, None]
    np.savez(tmp_path / "grey.npz", x_train=grey, y_train=np.arange(7) % 2)
    control = f"data:{tmp_path / 'grey.npz'}"
    check_controls(("none", control), 30, canonical.label.numpy())
    row = measure_set(clarid, teacher.judge, data, canonical, control, seed=3)
    shown = shown_instead(control, data, canonical.index.numpy(), 3)
    values = {int(image[0, 0, 0]) for image in shown}
    assert values <= set(range(128, 135)) and len(values) > 3
    alone = shown_instead(control, data, canonical.index.numpy()[4:5], 3)
    assert torch.equal(alone, shown[4:5])
    x_te = clarid.invert(shown, canonical.label)[0]
    latents = project_control(clarid, x_te, canonical.label, canonical.index.numpy(), 3)
    nats = teacher.nats(latents, SIGMA, canonical.label)
    assert row.kind == control and row.evidence == pytest.approx(float(nats.mean()), rel=0.1)
    assert row.background_area is None and row.evidence_change is None
    for wrong, words in (("data:nowhere", "nowhere"), ("date:x", "data:PATH")):
        with pytest.raises(UserError, match=words):
            check_controls((wrong,), 30, canonical.label.numpy())


def test_other_data_are_brought_to_the_sets_size(data, canonical, tmp_path):
    """As --image-size does: the very pixels where the size is the same already."""
    drawn = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    large = drawn.repeat(3, 1).repeat(3, 2)
    for name, images in (("same", drawn), ("large", large)):
        np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=np.arange(3))
    controls = [f"data:{tmp_path / name}.npz" for name in ("same", "large")]
    check_controls(controls, 30, canonical.label.numpy())
    chosen = canonical.index.numpy()[:6]
    same, shrunk = (shown_instead(control, data, chosen, 3) for control in controls)
    pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2)
    assert all(any(torch.equal(one, known) for known in pixels) for one in same)
    assert torch.equal(shrunk, same)


def test_of_fewer_images_than_the_probes_folds_no_table_is_made(canonical):
    for reps, count, larger in ((canonical[:2], 30, "larger set"), (canonical, 4, "larger `con")):
        subset, why = measured_on(reps, count)
        assert len(subset) < 5 and "takes 5 or more" in why and larger in why
    assert measured_on(canonical, 30)[1] == ""
    with pytest.raises(UserError, match="are too few to measure on: give at least 5"):
        check_controls((), 4, np.arange(2))


def test_without_a_judge_the_teachers_own_evidence_stands(clarid, data, canonical, rows):
    row = measure_set(clarid, None, data, canonical, "none")
    assert row.evidence == rows[1].evidence
    assert row.below_share == rows[1].below_share
    assert row.null_share is row.swap_share is row.swap_guided_share is row.judge_accuracy is None


def test_a_teacher_of_one_class_has_no_evidence(tmp_path):
    alone = MixtureTeacher(classes=1)
    data = alone.data(np.zeros(4, np.int64))
    clarid = Clarid(alone, sigma=SIGMA, k=2, steps=1)
    canonical = identify(clarid, data, tmp_path / "canon")
    assert inverted_evidence(clarid, None, canonical) is None
    row = measure_set(clarid, None, data, canonical)
    assert row.evidence is row.labels_tried is row.posterior_share is row.below_share is None


def test_a_summary_by_a_loop(teacher, clarid, canonical):
    found = class_evidence(clarid, canonical.latent, canonical.label, teacher.judge)
    before = class_evidence(clarid, canonical.x_te, canonical.label, teacher.judge)
    said = summarised(found, before)
    assert said["evidence"] == pytest.approx(sum(found.nats.tolist()) / 30)
    differences = [a - b for a, b in zip(found.nats.tolist(), before.nats.tolist(), strict=True)]
    assert said["evidence_change"] == pytest.approx(sum(differences) / 30)
    wanted = torch.tensor(differences, dtype=torch.float64)
    assert said["evidence_change_interval"] == pytest.approx(bootstrap_interval(wanted))
    for name, right in (
        ("posterior", found.posterior_right),
        ("below", found.below_right),
        ("null", found.null_right),
        ("swap", found.swap_kept),
        ("swap_guided", found.swap_kept_guided),
    ):
        count = right.tolist().count(True)
        assert said[f"{name}_share"] == pytest.approx(count / 30)
        assert said[f"{name}_interval"] == binomial_interval(count, 30)
    unasked = summarised(replace(found, null_right=None))
    assert unasked["null_share"] is unasked["null_interval"] is unasked["evidence_change"] is None
    assert isinstance(found, ClassEvidence) and math.isfinite(said["evidence"])


@pytest.mark.parametrize(("height", "width", "side"), [(32, 32, 8), (28, 28, 7), (6, 9, 1)])
def test_scrambled_images_are_the_same_blocks_elsewhere(height, width, side):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (3, 2, height, width), dtype=np.uint8))
    chosen = np.array([5, 2, 9])
    found = scrambled(images, chosen, seed=1)

    def blocks(image):
        return [
            image[:, y : y + side, x : x + side].flatten().tolist()
            for y in range(0, height, side)
            for x in range(0, width, side)
        ]

    moved = []
    for before, after in zip(images, found, strict=True):
        assert sorted(blocks(before)) == sorted(blocks(after))
        moved.append([blocks(before).index(block) for block in blocks(after)])
        assert moved[-1] != sorted(moved[-1])
    assert moved[0] != moved[1] != moved[2]
    assert torch.equal(scrambled(images[1:2], chosen[1:2], 1), found[1:2])
    assert not torch.equal(scrambled(images, chosen, 2), found)
