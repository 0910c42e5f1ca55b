"""Our attacks beside foolbox's and pyautoattack's on one trained network; AutoAttack stored."""

import logging
import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from clarep.data.garments import load_garments
from clarep.errors import UserError
from clarep.robustness.attacks import Threat, apgd, auto_attack, cw_l2, pgd
from clarep.robustness.attacks.passes import still_right

POINT = 0.01
COUNT = 200
LINF = Threat("linf", 12 / 255)
L2 = Threat("l2", 0.6)


def garments(split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Garments at 14 pixels."""
    data = load_garments(split)
    pixels = data.images(np.arange(count))[:, :1, 2:30, 2:30].float() / 255
    return nn.functional.avg_pool2d(pixels, 2), torch.from_numpy(data.labels[:count])


@pytest.fixture(scope="module")
def net() -> nn.Module:
    x, y = garments("train", 1500)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
        )
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(6):
            for part in torch.randperm(len(x)).split(50):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x[part]), y[part]).backward()
                optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def shown() -> tuple[torch.Tensor, torch.Tensor]:
    return garments("test", COUNT)


@pytest.fixture
def shorten(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], None]:
    """Give AutoAttack's slow parts fewer queries (of Square), iterations and target classes."""
    import pyautoattack

    def to(queries: int, iterations: int, targets: int) -> None:
        class Short(pyautoattack.AutoAttack):
            def run_standard_evaluation(self, *args, **kwargs):
                self.square.n_queries = queries
                for attack in (self.apgd, self.apgd_targeted, self.fab):
                    attack.n_iter = iterations
                self.apgd_targeted.n_target_classes = self.fab.n_target_classes = targets
                return super().run_standard_evaluation(*args, **kwargs)

        monkeypatch.setattr(pyautoattack, "AutoAttack", Short)

    return to


@pytest.fixture
def short(shorten) -> None:
    shorten(20, 5, 2)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def accuracy(net, x_adv, y) -> float:
    return float(still_right(net, x_adv, y).double().mean())


def foolbox_accuracies(net, x, y, attack, radii) -> list[float]:
    """Robust accuracy at each radius under an attack that is picked from foolbox.attacks."""
    import eagerpy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports from SciPy's old places
        import foolbox

        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        chosen = attack(foolbox.attacks)
        _, clipped, _ = chosen(model, eagerpy.astensor(x), eagerpy.astensor(y), epsilons=radii)
    return [accuracy(net, x_adv.raw, y) for x_adv in clipped]


def pyautoattack_accuracy(net, x, y, threat, name) -> float:
    from pyautoattack import AutoAttack

    with torch.random.fork_rng():
        attack = AutoAttack(
            net,
            norm={"linf": "Linf", "l2": "L2"}[threat.norm],
            eps=threat.eps,
            seed=0,
            version="custom",
            attacks=[name],
        )
        attack.apgd.n_restarts = 1
        x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=COUNT)
    return accuracy(net, x_adv, y)


@pytest.mark.parametrize(("threat", "name"), [(LINF, "LinfPGD"), (L2, "L2PGD")], ids=["linf", "l2"])
def test_pgd_is_within_a_point_of_foolbox(net, shown, threat, name):
    x, y = shown
    with torch.random.fork_rng():
        torch.manual_seed(0)  # foolbox draws from torch's own generator
        (theirs,) = foolbox_accuracies(
            net,
            x,
            y,
            lambda attacks: getattr(attacks, name)(steps=40, abs_stepsize=2.5 * threat.eps / 40),
            [threat.eps],
        )
    ours = accuracy(net, pgd(net, x, y, threat, 40, generator=rng()), y)
    assert 0.1 < ours < 0.7
    assert ours == pytest.approx(theirs, abs=POINT + 1e-9)


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_is_within_a_point_of_pyautoattack(net, shown, threat, loss):
    x, y = shown
    theirs = pyautoattack_accuracy(net, x, y, threat, f"apgd-{loss}")
    x_adv = apgd(net, x, y, threat, loss, steps=100, generator=rng())
    assert accuracy(net, x_adv, y) == pytest.approx(theirs, abs=POINT + 1e-9)


def test_cw_is_at_most_a_point_weaker_than_foolbox_and_apgd(net, shown):
    """Robust accuracy at the radius eps is the share of images whose nearest error is farther."""
    x, y = shown
    ours = cw_l2(net, x, y, searches=5).distance
    radii = [0.3, L2.eps, 1.2]
    theirs = foolbox_accuracies(
        net,
        x,
        y,
        lambda attacks: attacks.L2CarliniWagnerAttack(
            binary_search_steps=5, steps=100, stepsize=0.05, initial_const=0.1
        ),
        radii,
    )
    for eps, their in zip(radii, theirs, strict=True):
        assert 0.02 < their < 0.75
        assert float((ours > eps).double().mean()) < their + POINT + 1e-9, eps
    strong = apgd(net, x, y, L2, steps=100, generator=rng())
    assert float((ours > L2.eps).double().mean()) == pytest.approx(
        accuracy(net, strong, y), abs=POINT + 1e-9
    )


def test_ours_together_are_within_a_point_of_autoattack(net, shown, shorten):
    shorten(50, 40, 9)
    x, y = shown
    theirs = auto_attack(net, x, y, LINF, batch_size=COUNT)
    assert LINF.size(theirs.x_adv, x).max() <= LINF.eps + 1e-6
    assert torch.equal(still_right(net, theirs.x_adv, y), theirs.correct)
    assert theirs.reasons == []
    ours = torch.ones(COUNT, dtype=torch.bool)
    for loss in ("ce", "dlr"):
        ours &= still_right(net, apgd(net, x, y, LINF, loss, steps=100, generator=rng()), y)
    assert float(ours.double().mean()) == pytest.approx(
        float(theirs.correct.double().mean()), abs=POINT + 1e-9
    )


def test_autoattack_leaves_the_process_as_it_was(net, shown, short):
    def tracer(*_):
        return None

    before, handlers = torch.get_rng_state(), logging.getLogger("auto-attack").handlers[:]
    old = sys.gettrace()
    sys.settrace(tracer)
    try:
        auto_attack(net, shown[0][:4], shown[1][:4], Threat("linf", 1 / 255), seed=5)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(old)
    assert torch.equal(torch.get_rng_state(), before)
    assert logging.getLogger("auto-attack").handlers == handlers


def test_the_library_s_own_doubts_are_passed_on(net, shown, short):
    flat = lambda x: net(x.mul(255).round().div(255)) * 1  # noqa: E731  no gradient at all
    result = auto_attack(flat, shown[0][:4], shown[1][:4], Threat("linf", 1 / 255))
    assert any("zero gradient" in reason for reason in result.reasons)


def test_at_radius_zero_nothing_is_run(net, shown):
    x, y = shown
    result = auto_attack(net, x, y, Threat("linf", 0.0))
    assert torch.equal(result.correct, still_right(net, x, y))
    assert torch.equal(result.x_adv, x)


def test_what_autoattack_cannot_do_is_said(net, shown, monkeypatch):
    x, y = shown
    with pytest.raises(UserError, match="4 classes or more and the model has 3"):
        auto_attack(lambda x: net(x)[:, :3], x, y % 3, LINF)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UserError, match=r"pip install '\.\[attacks\]'"):
        auto_attack(net, x, y, LINF)
