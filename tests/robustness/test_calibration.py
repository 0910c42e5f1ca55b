"""Calibration against naive loops and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor

from clarep.errors import UserError
from clarep.robustness.calibration import (
    adaptive_ece,
    brier_values,
    calibration,
    ece,
    nll_values,
    reliability,
)


def drawn(images: int, seed: int = 0, sharpness: float = 2.0) -> tuple[Tensor, Tensor]:
    """Probabilities, and labels drawn from them: perfectly calibrated."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (sharpness * torch.randn(images, 5, generator=generator)).softmax(1)
    return probabilities, torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def naive_ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    total = 0.0
    for b in range(bins):
        gaps = []
        for p, label in zip(probabilities.double().tolist(), labels.tolist(), strict=True):
            if b / bins < max(p) <= (b + 1) / bins:
                gaps.append((p.index(max(p)) == label) - max(p))
        total += abs(sum(gaps))
    return total / len(labels)


def naive_adaptive_ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    pairs = sorted(
        (max(p), (p.index(max(p)) == label) - max(p))
        for p, label in zip(probabilities.double().tolist(), labels.tolist(), strict=True)
    )
    share, more = divmod(len(pairs), bins)
    places = [b for b in range(bins) for _ in range(share + (b < more))]
    gaps = [0.0] * bins
    for confidence, gap in pairs:
        first = [other for other, _ in pairs].index(confidence)  # the first of equals
        gaps[places[first]] += gap
    return sum(map(abs, gaps)) / len(pairs)


@pytest.mark.parametrize("images", [15, 47, 200])
def test_errors_are_the_naive_ones(images: int):
    probabilities, labels = drawn(images)
    wrong = (probabilities * 3).softmax(1)  # badly calibrated too
    for p in (probabilities, wrong):
        assert ece(p, labels).value == pytest.approx(naive_ece(p, labels), abs=1e-12)
        assert adaptive_ece(p, labels).value == pytest.approx(
            naive_adaptive_ece(p, labels), abs=1e-12
        )
    assert ece(wrong, labels, bins=4).value == pytest.approx(naive_ece(wrong, labels, 4))


def test_a_known_case():
    """All of confidence 0.8, three of four right: 0.05 off."""
    probabilities = torch.tensor([[0.8, 0.2]] * 4, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1])
    assert ece(probabilities, labels).value == pytest.approx(0.05)
    assert adaptive_ece(probabilities, labels, bins=1).value == pytest.approx(0.05)


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    probabilities = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    bins = reliability(probabilities, torch.tensor([0, 0]), bins=2)
    assert bins == [(0.5, 1.0, 0.5), (1.0, 1.0, 0.5)]


def test_fewer_images_than_bins_have_a_bin_each():
    probabilities = torch.tensor([[0.9, 0.1], [0.7, 0.3]], dtype=torch.float64)
    found = adaptive_ece(probabilities, torch.tensor([0, 1]))
    assert found.value == pytest.approx((0.1 + 0.7) / 2)


@pytest.mark.parametrize("levels", [1, 3, 10])
def test_the_order_of_images_of_one_confidence_does_not_matter(levels: int):
    """One confidence has one error, |confidence - accuracy|; several are the naive ones."""
    generator = torch.Generator().manual_seed(levels)
    labels = torch.arange(60) // 20
    top = 0.4 + 0.05 * torch.randint(levels, (60,), generator=generator)
    probabilities = torch.stack([top, (1 - top) / 2, (1 - top) / 2], dim=1)
    expected = naive_adaptive_ece(probabilities, labels)
    if levels == 1:
        assert expected == pytest.approx(0.4 - 1 / 3)
    orders = [torch.arange(60), torch.arange(59, -1, -1), torch.arange(60).reshape(3, 20).T.ravel()]
    orders += [torch.randperm(60, generator=generator) for _ in range(3)]
    for order in orders:
        found = adaptive_ece(probabilities[order], labels[order]).value
        assert found == pytest.approx(expected, abs=1e-12)
        assert ece(probabilities[order], labels[order]).value == pytest.approx(
            naive_ece(probabilities, labels), abs=1e-12
        )


def test_brier_and_nll_are_scikit_learn_s():
    probabilities, labels = drawn(300)
    p, y = probabilities.double().numpy(), labels.numpy()
    p = p / p.sum(1, keepdims=True)
    classes = list(range(5))
    assert float(nll_values(probabilities, labels).mean()) == pytest.approx(
        log_loss(y, p, labels=classes), 1e-6
    )
    expected = brier_score_loss(y, p, labels=classes, scale_by_half=False)
    assert float(brier_values(probabilities, labels).mean()) == pytest.approx(expected, 1e-6)


def test_the_four_have_their_keys_and_the_means_their_values():
    probabilities, labels = drawn(50)
    measurements, arrays, _ = calibration(probabilities, labels)
    names = ["ece", "adaptive_ece", "brier", "nll"]
    assert [m.key for m in measurements] == [f"calibration/{name}" for name in names]
    assert all(m.images == 50 for m in measurements)
    assert all(m.interval[0] <= m.value <= m.interval[1] for m in measurements)
    assert set(arrays) == {"calibration/brier", "calibration/nll"}
    for m in measurements[2:]:
        assert arrays[m.key].shape == (50,)
        assert arrays[m.key].mean().item() == pytest.approx(m.value)


def test_a_probability_of_zero_is_a_large_but_finite_loss():
    probabilities = torch.tensor([[1.0, 0.0]])
    value = nll_values(probabilities, torch.tensor([1]))[0].item()
    assert value == pytest.approx(-math.log(torch.finfo(torch.float32).tiny))
    assert brier_values(probabilities, torch.tensor([1]))[0].item() == 2


def naive_interval(p: Tensor, labels: Tensor, statistic) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    value = statistic(p, labels)
    picks = rng.integers(len(p), size=(1000, len(p)))
    found = np.array([statistic(p[i], labels[i]) for i in picks])
    low, high = np.quantile(found, [0.025, 0.975]) - found.mean() + value
    return max(low, 0), min(high, 1)


@pytest.mark.parametrize(
    ("figure", "naive"), [(ece, naive_ece), (adaptive_ece, naive_adaptive_ece)]
)
def test_the_interval_is_that_of_the_statistic_of_each_resample(figure, naive):
    probabilities, labels = drawn(25)
    found = figure(probabilities, labels).interval
    assert found == pytest.approx(naive_interval(probabilities, labels, naive), abs=1e-9)


def test_resamples_that_do_not_fit_in_memory_at_once_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
):
    probabilities, labels = drawn(60)
    whole = ece(probabilities, labels), adaptive_ece(probabilities, labels)
    monkeypatch.setattr("clarep.engine.statistics._PICKS_AT_ONCE", 60 * 7)
    assert (ece(probabilities, labels), adaptive_ece(probabilities, labels)) == whole


def test_intervals_shrink_with_more_images_and_hold_a_gross_error():
    few, many = drawn(100), drawn(2500, seed=1)
    widths = []
    for probabilities, labels in (few, many):
        overconfident = (probabilities * 8).softmax(1)
        found = ece(overconfident, labels)
        assert found.interval[0] > 0.05
        widths.append(found.interval[1] - found.interval[0])
    assert widths[1] < widths[0] / 3


def test_reliability_bins_add_up_to_the_ece():
    probabilities, labels = drawn(120)
    bins = reliability(probabilities, labels)
    assert sum(share for _, _, share in bins) == pytest.approx(1)
    gap = sum(abs(accuracy - confidence) * share for confidence, accuracy, share in bins)
    assert gap == pytest.approx(ece(probabilities, labels).value)
    assert bins == sorted(bins)


@pytest.mark.parametrize(
    "rows",
    [[[2.0, -1.0]], [[0.5, 0.4]], [[float("nan"), 1.0]], [[3.0, 4.0]]],
)
def test_what_is_no_distribution_is_refused(rows: list[list[float]]):
    with pytest.raises(UserError, match=r"no probabilities .* softmax"):
        ece(torch.tensor(rows), torch.tensor([0]))


@pytest.mark.parametrize("figure", [ece, adaptive_ece, brier_values, nll_values, reliability])
def test_other_counts_of_labels_are_refused(figure):
    probabilities, labels = drawn(5)
    for wrong in (labels[:1], labels[:4], labels[:, None], labels.float()):
        with pytest.raises(UserError, match="labels"):
            figure(probabilities, wrong)
    whole = figure(probabilities, labels)
    assert str(figure(probabilities.requires_grad_(), labels.numpy())) == str(whole)


def test_labels_outside_and_no_images_are_refused():
    with pytest.raises(UserError, match="bins 0"):
        ece(*drawn(5), bins=0)
    with pytest.raises(UserError, match=r"outside the 2 classes"):
        brier_values(torch.tensor([[0.5, 0.5]]), torch.tensor([2]))
    with pytest.raises(UserError, match=r"no images"):
        nll_values(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
