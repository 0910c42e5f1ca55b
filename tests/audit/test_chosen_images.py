"""A share of each class, random or as an audit says."""

import numpy as np
import pytest
import torch

import clarep
from clarep.audit.audit_config import AuditConfig
from clarep.audit.chosen_images import ChoiceConfig, chosen_images
from clarep.data.class_balance import class_balanced_choice
from clarep.errors import UserError

ERRORS_ALONE = AuditConfig(mask_draws=0, target_share=0.0)


@pytest.fixture
def planted(make_teacher, make_data, tmp_path):
    """Thirty images of three classes, of which the images 3, 4 and 5 look like another class."""
    labels = np.arange(30) % 3
    shown = labels.copy()
    shown[3:6] = (labels[3:6] + 1) % 3
    data = make_data(labels, shown, classes=3)
    audit = clarep.audit(make_teacher(3), data, tmp_path / "audit", ERRORS_ALONE)
    return data, audit


def test_doubted_are_the_planted_ones_and_typical_none_of_them(planted):
    data, audit = planted
    config = ChoiceConfig("doubted", audit.folder)
    found, told = chosen_images(data, config, 0.1, 0)
    assert found.tolist() == [3, 4, 5]
    assert told == {
        "fraction": 0.1,
        "choose": "doubted",
        "audit_sha256": audit.sha256_of(("errors",)),
    }
    typical, _ = chosen_images(data, ChoiceConfig("typical", audit.folder), 0.9, 0)
    assert np.setdiff1d(np.arange(30), typical).tolist() == [3, 4, 5]
    for share in (0.3, 0.5):
        some, _ = chosen_images(data, config, share, 0)
        by_class = [
            sorted(range(label, 30, 3), key=lambda i: -float(audit.doubts[i]))[: round(10 * share)]
            for label in range(3)
        ]
        assert some.tolist() == sorted(i for members in by_class for i in members)
        assert torch.equal(
            torch.from_numpy(data.labels[some]).bincount(), torch.full((3,), 10 * share).long()
        )


def test_random_and_named_ones_are_as_ever(planted):
    data, _ = planted
    found, told = chosen_images(data, ChoiceConfig(), 0.2, 5)
    assert np.array_equal(found, class_balanced_choice(data.labels, 0.2, 5))
    assert told == {"fraction": 0.2}
    named, told = chosen_images(data, ChoiceConfig(), 0.2, 5, (7, 2))
    assert named.tolist() == [7, 2] and told == {}


def test_mistakes_are_told(planted, make_data, make_teacher, tmp_path):
    data, audit = planted
    few = clarep.audit(make_teacher(3), data, tmp_path / "few", ERRORS_ALONE, range(9))
    for config, only, words in (
        (ChoiceConfig("doubted"), (), "`choose=doubted`"),
        (ChoiceConfig("random", audit.folder), (), "random takes no"),
        (ChoiceConfig("typical", audit.folder), (1,), "no `only`"),
        (ChoiceConfig("typical", few.folder), (), "audit of 3 images of"),
    ):
        with pytest.raises(UserError, match=words):
            chosen_images(data, config, 0.5, 0, only)
    other = make_data(np.arange(30) % 3, classes=3)
    with pytest.raises(UserError, match="other images"):
        chosen_images(other, ChoiceConfig("doubted", audit.folder), 0.5, 0)
