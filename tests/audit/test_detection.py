"""AUC, precision and recall against scikit-learn and counting."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from clarep.audit.detection import confident_learning, detection, jtt_errors
from clarep.errors import UserError


def drawn(seed=0, n=300):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.2
    return rng.normal(size=n) + 1.5 * truth, truth


def test_figures_are_those_of_counting():
    scores, truth = drawn()
    found = detection(scores, truth, 0.1)
    top = np.argsort(-scores)[:30]
    assert found.auc == pytest.approx(roc_auc_score(truth, scores))
    assert found.precision == pytest.approx(truth[top].mean())
    assert found.recall == pytest.approx(truth[top].sum() / truth.sum())
    assert (found.images, found.found) == (300, truth.sum())
    assert detection(-scores, truth).auc == pytest.approx(1 - found.auc)
    assert detection(torch.from_numpy(scores), truth) == found


def test_equal_scores_count_as_in_a_random_order():
    scores, truth = drawn()
    coarse = np.round(scores)
    found = detection(coarse, truth, 0.3)
    assert found.auc == pytest.approx(roc_auc_score(truth, coarse))
    rng = np.random.default_rng(1)
    precisions = []
    for _ in range(4000):
        order = np.lexsort([rng.random(len(coarse)), -coarse])[:90]
        precisions.append(truth[order].mean())
    assert found.precision == pytest.approx(np.mean(precisions), abs=0.002)
    nothing = detection(np.zeros(300), truth, 0.1)
    assert (nothing.auc, nothing.precision) == (0.5, pytest.approx(truth.mean()))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of a binormal score the AUC is known: Phi(1.5 / sqrt(2))."""
    from scipy.stats import norm

    expected, inside = norm.cdf(1.5 / 2**0.5), 0
    for seed in range(60):
        low, high = detection(*drawn(seed, 150)).auc_interval
        inside += low <= expected <= high
    assert 50 <= inside <= 60


def test_what_is_no_question_is_refused():
    scores, truth = drawn()
    for given, word in (
        ((scores[1:], truth), "give a finite score"),
        ((np.full(300, np.nan), truth), "give a finite score"),
        ((scores, np.ones(300, bool)), "300 of 300 images"),
        ((scores, truth, 0.0), "outside"),
    ):
        with pytest.raises(UserError, match=word):
            detection(*given)


def test_scores_of_a_classifier():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.0, 0.0, 1.0]])
    labels = torch.tensor([0, 2, 2])
    expected = torch.tensor([0.2 - 0.7, 0.5 - 0.4, 0.0 - 1.0])
    assert torch.allclose(confident_learning(probabilities, labels), expected)
    assert jtt_errors(probabilities, labels).tolist() == [0, 1, 0]
