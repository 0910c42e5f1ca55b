"""Mean corruption error against the formula of the paper."""

import pytest
import torch
from torch import Tensor

from clarep.errors import UserError
from clarep.robustness.corruptions.mce import (
    Baseline,
    baseline_of,
    mean_accuracy,
    mean_corruption_error,
)
from clarep.robustness.evaluation import Evaluation, Measurement

RNG = torch.Generator().manual_seed(0)
CORRECT: dict[str, Tensor] = {
    name: torch.rand(5, 40, generator=RNG) < share
    for name, share in (("fog", 0.7), ("snow", 0.4), ("frost", 0.5))
}
BASELINE = Baseline("vanilla", {"fog": 0.5, "snow": 0.6, "frost": 0.4, "jpeg_compression": 0.0})


def test_mce_is_the_mean_of_quotients_of_sums_over_severities():
    quotients = []
    for name, correct in CORRECT.items():
        errors = [1 - correct[s].double().mean().item() for s in range(5)]
        quotients.append(sum(errors) / (5 * BASELINE.errors[name]))
    expected = sum(quotients) / 3
    values = mean_corruption_error(CORRECT, BASELINE)
    assert values.shape == (40,)
    assert values.mean().item() == pytest.approx(expected)


def test_the_baseline_s_own_mce_is_one():
    errors = {name: 1 - c.double().mean().item() for name, c in CORRECT.items()}
    own = Baseline("itself", errors)
    assert mean_corruption_error(CORRECT, own).mean().item() == pytest.approx(1)


def test_every_corruption_counts_the_same_in_the_mean():
    correct = {**CORRECT, "fog": CORRECT["fog"][:1]}
    expected = sum(c.double().mean().item() for c in correct.values()) / 3
    assert mean_accuracy(correct).mean().item() == pytest.approx(expected)


def test_an_evaluated_student_can_be_the_baseline():
    def measured(key: str, value: float) -> Measurement:
        return Measurement(key, value, (0.0, 1.0), 40)

    clean = measured("clean/accuracy", 0.85)
    fog = measured("corruption/fog/mean", 0.7)
    baseline = baseline_of(Evaluation({}, [clean, fog], {}), "vanilla")
    assert baseline.name == "vanilla"
    assert baseline.errors == {"fog": pytest.approx(0.3)}
    with pytest.raises(UserError, match=r"vanilla cannot be the baseline: it was not measured on"):
        baseline_of(Evaluation({}, [clean], {}), "vanilla")


def test_faults():
    with pytest.raises(UserError, match=r"vanilla was not measured on glass_blur"):
        mean_corruption_error({"glass_blur": CORRECT["fog"]}, BASELINE)
    with pytest.raises(UserError, match=r"vanilla makes no error on jpeg_compression"):
        mean_corruption_error({"jpeg_compression": CORRECT["fog"]}, BASELINE)
    with pytest.raises(UserError, match=r"fog on 40, snow on 30 images"):
        mean_accuracy({"fog": CORRECT["fog"], "snow": CORRECT["snow"][:, :30]})
    with pytest.raises(UserError, match=r"no corruption was measured"):
        mean_accuracy({})
