"""Checks against gradient masking: silent on a plain network, loud on ones that hide gradients."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from clarep.data.garments import load_garments
from clarep.robustness.attacks import AttackConfig, Threat, masking_reasons, robust_accuracy
from clarep.robustness.attacks.curves import WORST
from clarep.robustness.attacks.masking import (
    exceeds,
    stronger_attack,
    transfer_attack,
    unbounded_attack,
    zero_gradients,
)
from clarep.robustness.attacks.passes import still_right

CONFIG = AttackConfig(pgd_steps=10, apgd_steps=10, check_images=60, attacks_l2=("pgd",))
PGD_ONLY = AttackConfig(attacks=("pgd",), pgd_steps=10)
THREAT = Threat("linf", 10 / 255)


def garments(split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Garments at 14 pixels."""
    data = load_garments(split)
    pixels = data.images(np.arange(count))[:, :1, 2:30, 2:30].float() / 255
    return nn.functional.avg_pool2d(pixels, 2), torch.from_numpy(data.labels[:count])


def trained(seed: int) -> nn.Module:
    x, y = garments("train", 1500)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(196, 32), nn.ReLU(), nn.Linear(32, 10))
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(6):
            for part in torch.randperm(len(x)).split(50):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x[part]), y[part]).backward()
                optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return trained(0)


@pytest.fixture(scope="module")
def other() -> nn.Module:
    return trained(1)


@pytest.fixture(scope="module")
def shown() -> tuple[torch.Tensor, torch.Tensor]:
    return garments("test", 60)


class Saturated(nn.Module):
    """Logits so large that the softmax is exactly 0 or 1."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) * 1e4


class Quantised(Saturated):
    """Pixels of few levels: the gradient is zero nearly everywhere."""

    def forward(self, x):
        return self.net((x * 32).round() / 32)


def reported(model, x, y, threat=THREAT, config=CONFIG):
    return robust_accuracy(model, x, y, threat, config)[WORST]


@pytest.mark.parametrize("threat", [THREAT, Threat("l2", 0.5)], ids=["linf", "l2"])
def test_a_plain_network_passes_every_check(plain, other, shown, threat):
    x, y = shown
    correct = reported(plain, x, y, threat)
    assert 0.1 < correct.double().mean() < 0.8
    found = masking_reasons(plain, x, y, threat, correct=correct, config=CONFIG, reference=other)
    assert found == []
    assert stronger_attack(plain, x, y, threat, correct=correct, config=CONFIG) == ""


@pytest.mark.parametrize("hide", [Saturated, Quantised])
def test_hidden_gradients_are_found(plain, shown, hide):
    model, (x, y) = hide(plain), shown
    assert "exactly zero" in zero_gradients(model, x, y, CONFIG)
    correct = reported(model, x, y)
    reasons = masking_reasons(model, x, y, THREAT, correct=correct, config=CONFIG)
    assert reasons
    right = int(still_right(model, x, y).sum())
    assert any(f"of {right} images" in reason for reason in reasons)


def test_attacks_on_a_saturated_model_fail_at_any_radius(plain, shown):
    x, y = shown
    assert "pgd leaves" in unbounded_attack(Saturated(plain), x, y, THREAT, PGD_ONLY)
    assert unbounded_attack(plain, x, y, THREAT, PGD_ONLY) == ""
    # The DLR loss does not see the scale of the logits: it is not blamed.
    assert "apgd-dlr" not in unbounded_attack(Saturated(plain), x, y, THREAT, CONFIG)


def test_a_weak_attack_is_found(plain, shown):
    x, y = shown
    weak = AttackConfig(attacks=("pgd",), pgd_steps=1)
    correct = robust_accuracy(plain, x, y, Threat("linf", 0.0), weak)[WORST]  # reports too much
    reason = stronger_attack(plain, x, y, THREAT, correct=correct, config=weak)
    assert "5 times the steps" in reason
    assert "of 60 images" in reason
    assert "eps_255=10" in reason
    assert stronger_attack(plain, x, y, THREAT, correct=~(correct | True), config=weak) == ""


def test_transfer_stronger_than_the_white_box_is_found(plain, shown):
    x, y = shown
    model = Quantised(plain)
    correct = reported(model, x, y, config=PGD_ONLY)
    reason = transfer_attack(model, plain, x, y, threat=THREAT, correct=correct, config=PGD_ONLY)
    assert "stronger than attacks on this one" in reason


@pytest.mark.parametrize(
    ("count", "images", "found"),
    [
        (0, 50, False), (1, 1, False), (1, 49, False), (1, 50, False), (2, 50, False),
        (4, 50, False), (5, 50, True), (6, 100, False), (7, 100, True), (18, 500, False),
        (19, 500, True), (2, 10, False), (3, 10, True),
    ],
)  # fmt: skip
def test_few_images_of_many_are_chance(count, images, found):
    """One image of fifty that falls to more steps branded a row of the demo."""
    terms = (math.comb(images, k) * 0.02**k * 0.98 ** (images - k) for k in range(count))
    assert exceeds(count, images, 0.02) == found == (1 - sum(terms) < 0.01)


def test_without_a_margin_one_image_is_enough():
    assert exceeds(1, 10_000, 0.0)
    assert not exceeds(0, 10_000, 0.0)


@pytest.mark.parametrize(("marked", "found"), [(1, False), (5, True)])
def test_a_flat_image_of_fifty_brands_nothing(plain, marked, found):
    x, _ = garments("test", 50)
    x[:marked, 0, 0, 0] = 1.0
    x[marked:, 0, 0, 0] = 0.0
    y = plain(x).argmax(dim=1)

    def model(x):
        bright = x[:, 0, 0, 0] == 1.0
        return plain(torch.where(bright[:, None, None, None], x.detach(), x))

    assert bool(zero_gradients(model, x, y, CONFIG)) == found


def test_the_margin_is_kept(plain, shown):
    """One image more that falls is chance at a margin of 2 % of 60; five are not."""
    x, y = shown
    correct = reported(plain, x, y)
    fallen = (~correct).nonzero().flatten()
    for more, flagged in ((1, False), (5, True)):
        claimed = correct.clone()
        claimed[fallen[:more]] = True
        reason = stronger_attack(plain, x, y, THREAT, correct=claimed, config=CONFIG)
        assert bool(reason) == flagged


def test_no_images_no_checks(plain, shown):
    x, y = shown
    off = AttackConfig(check_images=0)
    correct = torch.ones(60, dtype=torch.bool)
    assert masking_reasons(plain, x, y, THREAT, correct=correct, config=off) == []
    assert stronger_attack(plain, x, y, THREAT, correct=correct, config=off) == ""


def test_nothing_right_nothing_flat(plain, shown):
    x, _ = shown
    wrong = (plain(x).argmax(dim=1) + 1) % 10
    assert zero_gradients(plain, x, wrong, CONFIG) == ""
