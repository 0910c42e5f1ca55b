"""Mean corruption error against the formula of the paper."""

import pytest
import torch
from torch import Tensor

from clarep.errors import UserError
from clarep.robustness.corruptions import (
    ALEXNET,
    COMMON,
    Baseline,
    baseline_of,
    mean_accuracy,
    mean_corruption_error,
    relative_mean_corruption_error,
)
from clarep.robustness.evaluation import Evaluation, Measurement

RNG = torch.Generator().manual_seed(0)
CORRECT: dict[str, Tensor] = {
    name: torch.rand(5, 40, generator=RNG) < share
    for name, share in (("fog", 0.7), ("snow", 0.4), ("frost", 0.5))
}
CLEAN = torch.rand(40, generator=RNG) < 0.9
BASELINE = Baseline(
    "vanilla", 0.15, {"fog": 0.5, "snow": 0.6, "frost": 0.4, "jpeg_compression": 0.0}
)


def test_mce_is_the_mean_of_quotients_of_sums_over_severities():
    quotients = []
    for name, correct in CORRECT.items():
        errors = [1 - correct[s].double().mean().item() for s in range(5)]
        quotients.append(sum(errors) / (5 * BASELINE.errors[name]))
    expected = sum(quotients) / 3
    values = mean_corruption_error(CORRECT, BASELINE)
    assert values.shape == (40,)
    assert values.mean().item() == pytest.approx(expected)


def test_relative_mce_is_of_what_corruption_adds():
    clean_error = 1 - CLEAN.double().mean().item()
    quotients = []
    for name, correct in CORRECT.items():
        added = sum(1 - correct[s].double().mean().item() - clean_error for s in range(5))
        quotients.append(added / (5 * (BASELINE.errors[name] - BASELINE.clean_error)))
    values = relative_mean_corruption_error(CORRECT, CLEAN, BASELINE)
    assert values.mean().item() == pytest.approx(sum(quotients) / 3)


def test_the_baseline_s_own_mce_is_one():
    errors = {name: 1 - c.double().mean().item() for name, c in CORRECT.items()}
    own = Baseline("itself", 1 - CLEAN.double().mean().item(), errors)
    assert mean_corruption_error(CORRECT, own).mean().item() == pytest.approx(1)
    relative = relative_mean_corruption_error(CORRECT, CLEAN, own)
    assert relative.mean().item() == pytest.approx(1)


def test_every_corruption_counts_the_same_in_the_mean():
    correct = {**CORRECT, "fog": CORRECT["fog"][:1]}
    expected = sum(c.double().mean().item() for c in correct.values()) / 3
    assert mean_accuracy(correct).mean().item() == pytest.approx(expected)


def test_alexnet_is_the_published_one():
    assert tuple(ALEXNET.errors) == COMMON
    assert sum(ALEXNET.errors.values()) / 15 == pytest.approx(0.7890, abs=1e-4)


def test_an_evaluated_student_can_be_the_baseline():
    def measured(key: str, value: float) -> Measurement:
        return Measurement(key, value, (0.0, 1.0), 40)

    clean = measured("clean/accuracy", 0.85)
    fog = measured("corruption/fog/mean", 0.7)
    baseline = baseline_of(Evaluation({}, [clean, fog], {}), "vanilla")
    assert baseline.name == "vanilla"
    assert baseline.clean_error == pytest.approx(0.15)
    assert baseline.errors == {"fog": pytest.approx(0.3)}
    with pytest.raises(UserError, match=r"vanilla cannot be the baseline: it was not measured on"):
        baseline_of(Evaluation({}, [clean], {}), "vanilla")
    with pytest.raises(UserError, match=r"its clean accuracy was not measured"):
        baseline_of(Evaluation({}, [fog], {}), "vanilla")


def test_faults():
    with pytest.raises(UserError, match=r"vanilla was not measured on glass_blur"):
        mean_corruption_error({"glass_blur": CORRECT["fog"]}, BASELINE)
    with pytest.raises(UserError, match=r"vanilla makes no error on jpeg_compression"):
        mean_corruption_error({"jpeg_compression": CORRECT["fog"]}, BASELINE)
    with pytest.raises(UserError, match=r"snow was measured on 30 images and fog on 40"):
        mean_accuracy({"fog": CORRECT["fog"], "snow": CORRECT["snow"][:, :30]})
    with pytest.raises(UserError, match=r"no corruption was measured"):
        mean_accuracy({})
    easy = Baseline("easy", 0.5, {"fog": 0.5})
    with pytest.raises(UserError, match=r"fog adds nothing to the errors of easy"):
        relative_mean_corruption_error({"fog": CORRECT["fog"]}, CLEAN, easy)
