"""AUROC against scikit-learn; scores against their formulas."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from clarep.errors import UserError
from clarep.robustness.calibration import auroc, max_softmax


@pytest.mark.parametrize("is_tied", [False, True])
def test_auroc_is_scikit_learn_s(is_tied: bool):
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(80, generator=generator) + 1
    outside = torch.randn(130, generator=generator)
    if is_tied:
        inside, outside = inside.round(), outside.round()
    found = auroc("noise", inside, outside)
    truth = np.r_[np.ones(80), np.zeros(130)]
    assert found.value == pytest.approx(roc_auc_score(truth, torch.cat([inside, outside])))
    assert found.key == "ood/noise/auroc"
    assert found.images == 210
    assert 0.5 < found.interval[0] < found.value < found.interval[1] < 1


def test_the_interval_is_about_that_of_hanley_and_mcneil():
    generator = torch.Generator().manual_seed(1)
    inside = torch.randn(300, generator=generator) + 1
    outside = torch.randn(200, generator=generator)
    found = auroc("x", inside, outside)
    a = found.value
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = a * (1 - a) + 299 * (q1 - a * a) + 199 * (q2 - a * a)
    half = 1.96 * (variance / (300 * 200)) ** 0.5
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * half, rel=0.2)


def test_extremes():
    high, low = torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])
    assert auroc("x", high, low).value == 1
    assert auroc("x", low, high).value == 0
    assert auroc("x", low, low).value == 0.5
    assert auroc("x", torch.tensor([float("inf")]), low).value == 1


def test_scores():
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    weights = logits.double().exp()
    expected = (weights / weights.sum(1, keepdim=True)).amax(1)
    torch.testing.assert_close(max_softmax(logits), expected)


def test_faults():
    scores = torch.ones(3)
    with pytest.raises(UserError, match=r"scores of the other images of svhn are missing"):
        auroc("svhn", scores, torch.ones(0))
    with pytest.raises(UserError, match=r"scores of the own images of svhn are missing or NaN"):
        auroc("svhn", torch.tensor([float("nan")]), scores)
