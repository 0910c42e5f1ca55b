"""Our attacks against closed forms of linear classifiers, and what must hold on any network."""

import numpy as np
import pyautoattack
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clarep.errors import UserError
from clarep.robustness.attacks import (
    AttackConfig,
    Threat,
    apgd,
    auto_attack,
    cw_l2,
    masking_reasons,
    pgd,
    robust_accuracy,
    threats,
)
from clarep.robustness.attacks.apgd import checkpoints
from clarep.robustness.attacks.curves import WORST, threat_to_check
from clarep.robustness.attacks.masking import zero_gradients
from clarep.robustness.attacks.passes import cross_entropy, dlr, margin, still_right
from clarep.robustness.attacks.pgd import step_sizes

SHAPE = (1, 4, 4)
SIZE = 16


class Linear(nn.Module):
    """Logits W x + b."""

    def __init__(self, classes: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, SIZE, generator=generator))
        # Centred, so that a grey image is on no side.
        self.bias = nn.Parameter(-self.weight.detach().sum(dim=1) / 2)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


class Small(nn.Module):
    """An untrained network with dropout, whose answers differ in training mode."""

    def __init__(self, classes: int = 4, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Flatten(), nn.Linear(SIZE, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, classes)
            )
        with torch.no_grad():
            self.net[4].weight *= 5

    def forward(self, x):
        return self.net(x)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, *SHAPE, generator=rng(seed))


def labels_of(model, x):
    model.eval()
    with torch.no_grad():
        return model(x).argmax(dim=1)


def least_distance(model, x, y, norm):
    """Distance of each image to the nearest other class of a linear model, in float64.

    Margin over the dual norm of the weights' difference, the least over the other classes.
    """
    weight, bias = model.weight.detach().double().numpy(), model.bias.detach().double().numpy()
    flat = x.double().flatten(1).numpy()
    distances = np.full((len(x), len(bias)), np.inf)
    for i, own in enumerate(y.tolist()):
        for other in range(len(bias)):
            if other != own:
                direction = weight[own] - weight[other]
                gap = flat[i] @ direction + bias[own] - bias[other]
                dual = np.abs(direction).sum() if norm == "linf" else np.sqrt(direction @ direction)
                distances[i, other] = gap / dual
    return distances.min(axis=1)


ATTACKS = {
    "pgd": lambda m, x, y, t, g: pgd(m, x, y, t, 20, generator=g),
    "pgd-cosine": lambda m, x, y, t, g: pgd(m, x, y, t, 20, rule="cosine", generator=g),
    "apgd-ce": lambda m, x, y, t, g: apgd(m, x, y, t, "ce", steps=20, generator=g),
    "apgd-dlr": lambda m, x, y, t, g: apgd(m, x, y, t, "dlr", steps=20, generator=g),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_models_fall_exactly_where_margin_over_dual_norm_says(attack, norm):
    # Along the cross-entropy an image of three classes may walk towards the wrong one of two.
    model = Linear(3 if attack == "apgd-dlr" else 2)
    x = images(400, 0.35, 0.65)
    y = labels_of(model, x)
    distance = least_distance(model, x, y, norm)
    # Within half the images' reach, and far from the walls of [0, 1].
    eps = float(np.median(distance))
    assert eps < 0.3
    x_adv = ATTACKS[attack](model, x, y, Threat(norm, eps), rng())
    right = still_right(model, x_adv, y).numpy()
    clear = np.abs(distance / eps - 1) > 0.02  # closer, twenty steps may end on either side
    assert clear.sum() > 350
    np.testing.assert_array_equal(right[clear], distance[clear] > eps)


@pytest.mark.parametrize("attack", ["pgd", "apgd-ce"])
def test_walls_of_the_pixel_range_are_used_and_kept(attack):
    model = Linear(2)
    x = images(300).mul(1.4).sub(0.2).clamp(0, 1)  # a quarter of the values are 0 or 1
    y = labels_of(model, x)
    eps = 0.1
    direction = (model.weight[0] - model.weight[1]).detach().double()
    sign = torch.where(y == 0, 1.0, -1.0).double()[:, None] * direction
    flat = x.double().flatten(1)
    # The worst change of each value on its own: as far down as eps and the wall let it go.
    worst = torch.where(sign > 0, -flat.clamp_max(eps), (1 - flat).clamp_max(eps))
    bias = (model.bias[0] - model.bias[1]).detach().double()
    gap = ((flat + worst) * sign).sum(1) + torch.where(y == 0, 1.0, -1.0).double() * bias
    x_adv = ATTACKS[attack](model, x, y, Threat("linf", eps), rng())
    right = still_right(model, x_adv, y)
    clear = gap.abs() > 0.05
    assert 0.2 < right.double().mean() < 0.8
    assert torch.equal(right[clear], gap[clear] > 0)


def test_cw_finds_the_closed_form_distance():
    model = Linear(3)
    x = images(60, 0.35, 0.65)
    y = labels_of(model, x)
    expected = least_distance(model, x, y, "l2")
    nearest = cw_l2(model, x, y)
    ratio = nearest.distance.numpy() / expected
    assert ratio.min() > 1 - 1e-3  # nothing can be nearer
    assert np.median(ratio) < 1.01
    assert np.quantile(ratio, 0.9) < 1.1
    assert not still_right(model, nearest.x_adv, y).any()


def test_cw_on_images_that_are_wrong_and_on_a_model_without_errors():
    model = Linear(3)
    x = images(8)
    y = labels_of(model, x)
    wrong = cw_l2(model, x, (y + 1) % 3, steps=2, searches=1)
    assert not wrong.distance.any()
    assert torch.equal(wrong.x_adv, x)
    never = cw_l2(
        lambda x: torch.tensor([[0.0, 2.0]]) + 0 * x.sum((1, 2, 3))[:, None],
        x,
        torch.ones_like(y),
        steps=3,
        searches=2,
    )
    assert torch.isinf(never.distance).all()
    assert torch.equal(never.x_adv, x)


@given(
    attack=st.sampled_from(list(ATTACKS)),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.one_of(st.floats(0, 2), st.floats(0, 1e-4)),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_no_attack_leaves_the_threat_or_the_pixel_range(attack, norm, eps, seed):
    model, threat = Small(), Threat(norm, min(eps, 1.0) if norm == "linf" else eps)
    x = images(12, seed=seed).mul(1.4).sub(0.2).clamp(0, 1)
    x_adv = ATTACKS[attack](model, x, labels_of(model, x), threat, rng(seed))
    assert threat.size(x_adv, x).max() <= eps + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


def test_cw_stays_in_the_pixel_range_and_measures_its_distance():
    model = Small()
    x = images(30).round()
    y = labels_of(model, x)
    nearest = cw_l2(model, x, y, searches=4)
    found = nearest.distance.isfinite()
    assert found.sum() > 20
    assert nearest.x_adv.min() >= 0
    assert nearest.x_adv.max() <= 1
    size = Threat("l2", 0.0).size(nearest.x_adv, x).float()
    torch.testing.assert_close(size[found], nearest.distance[found], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attack", ATTACKS)
def test_same_seed_same_images_whatever_the_global_generator(attack):
    model = Small()
    x = images(20)
    y = labels_of(model, x)
    threat = Threat("linf", 0.02)
    before = torch.get_rng_state()
    first = ATTACKS[attack](model, x, y, threat, rng(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(ATTACKS[attack](model, x, y, threat, rng(3)), first)
    assert not torch.equal(ATTACKS[attack](model, x, y, threat, rng(4)), first)


@pytest.mark.parametrize("loss", ["pgd", "ce", "dlr"])
def test_restarts_never_help_the_defender(loss):
    model = Small()
    x = images(200)
    y = labels_of(model, x)
    threat = Threat("linf", 0.05)
    right = []
    for restarts in (1, 2, 5):
        if loss == "pgd":
            x_adv = pgd(model, x, y, threat, 2, restarts=restarts, generator=rng(1))
        else:
            x_adv = apgd(model, x, y, threat, loss, steps=2, restarts=restarts, generator=rng(1))
        right.append(still_right(model, x_adv, y))
    assert not (right[1] & ~right[0]).any()
    assert not (right[2] & ~right[1]).any()
    assert right[2].sum() < right[0].sum()


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_the_batch_size_does_not_matter(attack):
    model = Small()
    x = images(50)
    y = labels_of(model, x)
    run = {"pgd": pgd, "apgd": apgd}[attack]
    one, many = (
        run(model, x, y, Threat("linf", 0.03), steps=5, generator=rng(), batch_size=size)
        for size in (50, 7)
    )
    torch.testing.assert_close(one, many)


def test_the_model_comes_back_as_it_was():
    model = Small().train()
    model.net[3].eval()  # a mixture of modes
    model.net[1].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    x = images(10)
    y = torch.zeros(10, dtype=torch.long)
    pgd(model, x, y, Threat("linf", 0.1), 2, generator=rng())
    apgd(model, x, y, Threat("linf", 0.1), steps=2, generator=rng())
    cw_l2(model, x, y, steps=2, searches=1)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_is_off_while_attacked():
    model = Small().train()
    x = images(30)
    y = labels_of(Small(), x)
    x_adv = pgd(model.train(), x, y, Threat("linf", 0.0), generator=rng())
    assert torch.equal(x_adv, x)
    assert still_right(model.train(), x, y).all()


def test_wrong_images_are_not_touched_and_walking_on_goes_deeper():
    model = Small()
    x = images(60)
    y = labels_of(model, x)
    y[:10] = (y[:10] + 1) % 4
    threat = Threat("linf", 0.15)
    quick = pgd(model, x, y, threat, generator=rng())
    assert torch.equal(quick[:10], x[:10])
    deep = pgd(model, x, y, threat, generator=rng(), drop_fooled=False)
    both = ~still_right(model, quick, y) & ~still_right(model, deep, y)
    assert both[10:].sum() > 10
    with torch.no_grad():
        assert (
            margin(model(deep[both]), y[both]).mean() < margin(model(quick[both]), y[both]).mean()
        )


def test_apgd_halves_its_steps_where_pgd_overshoots():
    """A step of 2 eps jumps over the narrow valley between; halved steps end inside it."""

    def model(x):
        away = (x.flatten(1) - 0.53).square().sum(dim=1) / SIZE
        return torch.stack([10 * away.sqrt() + 0.002, torch.zeros_like(away), away - 1], dim=1)

    x = torch.full((6, *SHAPE), 0.5)
    y = torch.zeros(6, dtype=torch.long)
    threat = Threat("linf", 0.1)

    def end(steps):
        x_adv = apgd(model, x, y, threat, "dlr", steps=steps, generator=rng())
        return margin(model(x_adv), y).max()

    assert end(100) < 0.1 * end(4)


def test_checkpoints_are_those_of_the_paper():
    # p: 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_step_sizes():
    threat = Threat("linf", 0.1)
    assert step_sizes(threat, 5) == pytest.approx([0.05] * 5)
    cosine = step_sizes(threat, 5, rule="cosine")
    assert sum(cosine) == pytest.approx(0.25)
    assert cosine == sorted(cosine, reverse=True)
    assert step_sizes(threat, 2, 0.3) == [0.3, 0.3]


def test_losses_against_naive_loops():
    logits = torch.randn(20, 5, generator=rng()).double()
    y = torch.arange(20) % 5
    for row, label, ce, ratio, gap in zip(
        logits.numpy(),
        y.tolist(),
        cross_entropy(logits, y).numpy(),
        dlr(logits, y).numpy(),
        margin(logits, y).numpy(),
        strict=True,
    ):
        other = max(value for i, value in enumerate(row) if i != label)
        ranked = sorted(row, reverse=True)
        assert gap == pytest.approx(row[label] - other)
        assert ratio == pytest.approx(-(row[label] - other) / (ranked[0] - ranked[2]))
        assert ce == pytest.approx(np.log(np.exp(row).sum()) - row[label])


def test_curves_fall_and_the_worst_case_is_worst():
    model = Small()
    x = images(80)
    y = labels_of(model, x)
    y[:5] = (y[:5] + 1) % 4
    config = AttackConfig(
        eps_255=(16.0, 0.0, 4.0), attacks=("pgd", "apgd-ce", "apgd-dlr"), apgd_steps=5, pgd_steps=5
    )
    curve, before = {}, None
    for threat in threats("linf", config, SHAPE):
        before = curve[threat] = robust_accuracy(model, x, y, threat, config, before=before)
    assert [threat.setting for threat in curve] == ["eps_255=0", "eps_255=4", "eps_255=16"]
    last = None
    for correct in curve.values():
        assert list(correct) == ["pgd", "apgd-ce", "apgd-dlr", WORST]
        both = correct["pgd"] & correct["apgd-ce"] & correct["apgd-dlr"]
        assert torch.equal(correct[WORST], both)
        for name, right in correct.items():
            assert last is None or not (right & ~last[name]).any()
        last = correct
    at_zero = next(iter(curve.values()))
    assert all(torch.equal(right, still_right(model, x, y)) for right in at_zero.values())
    assert 0 < last[WORST].sum() < 75
    assert threat_to_check(curve).eps > 0


def test_what_fell_before_is_not_attacked():
    model = Small()
    x = images(40)
    y = labels_of(model, x)
    config = AttackConfig(eps_l2=(0.2,), attacks_l2=("pgd",), pgd_steps=5)
    (threat,) = threats("l2", config, SHAPE)
    alone = robust_accuracy(model, x, y, threat, config)
    assert alone["pgd"].any()
    skipped = robust_accuracy(model, x, y, threat, config, before={"pgd": torch.zeros(40) > 0})
    assert not skipped["pgd"].any()


def test_there_is_nothing_to_check_without_attacks():
    assert threat_to_check({}) is None


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (lambda m, x, y, t: pgd(m, x, y, t, 0, generator=rng()), "`steps=0` is below 1"),
        (lambda m, x, y, t: pgd(m, x, y, t, restarts=0, generator=rng()), "`restarts=0` is below"),
        (lambda m, x, y, t: pgd(m, x, y, t, step_size=-1.0, generator=rng()), "step_size=-1.0"),
        (lambda m, x, y, t: apgd(m, x, y, t, steps=0, generator=rng()), "`steps=0` is below 1"),
        (lambda m, x, y, t: apgd(m, x, y, t, "dlr", generator=rng()), "three classes .* has 2"),
        (lambda m, x, y, t: cw_l2(m, x, y, searches=0), "`searches=0` is below 1"),
        (lambda m, x, y, t: pgd(lambda x: m(x) / 0, x, y, t, generator=rng()), "not finite"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(run, sentence):
    model = Linear(2)
    x = images(4)
    with pytest.raises(UserError, match=sentence):
        run(model, x, labels_of(model, x), Threat("linf", 0.1))


EVERY = {
    **ATTACKS,
    "cw": lambda m, x, y, t, g: cw_l2(m, x, y, steps=3, searches=2).x_adv,
    "accuracy": lambda m, x, y, t, g: robust_accuracy(m, x, y, t, BRIEF),
    "autoattack": lambda m, x, y, t, g: auto_attack(m, x, y, t),
    "masking": lambda m, x, y, t, g: masking_reasons(
        m, x, y, t, correct=torch.ones(len(x)) > 0, config=BRIEF
    ),
}
BRIEF = AttackConfig(eps_255=(8.0,), attacks=("pgd", "apgd-ce"), pgd_steps=3, apgd_steps=3)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda m, x, y: (m, x * 255, y), r"in \[0, 1\]"),
        (lambda m, x, y: (m, (x * 255).byte(), y), "uint8"),
        (lambda m, x, y: (m, list(x), y), "list"),
        (lambda m, x, y: (m, x[:0], y[:0]), "no images"),
        (lambda m, x, y: (m, x[0], y[:1]), "3 dimensions"),
        (lambda m, x, y: (m, x, y - 1), "label -1 is outside the 4 classes"),
        (lambda m, x, y: (m, x, y + 7), "outside the 4 classes"),
        (lambda m, x, y: (m, x, y[:-1]), r"labels of shape \(5,\)"),
        (lambda m, x, y: (m, x, y[:, None]), r"labels of shape \(6, 1\)"),
        (lambda m, x, y: (m, x, y.float()), "float32"),
        (lambda m, x, y: (lambda z: {"scores": m(z)}, x, y), "its logits cannot be told"),
        (lambda m, x, y: (lambda z: m(z)[:-1], x, y), "must give "),
        (lambda m, x, y: (lambda z: m(z).softmax(1), x, y), "probabilities"),
        (lambda m, x, y: (m.double(), x, y), "takes no images of float32"),
        (lambda m, x, y: (m, x[:, :, :3], y), r"takes no images .* \(1, 3, 4\)"),
    ],
)
@pytest.mark.parametrize("attack", EVERY)
def test_every_attack_refuses_what_it_cannot_take(attack, spoil, sentence):
    model, x, y = spoil(Small(), images(6), torch.arange(6) % 4)
    with pytest.raises(UserError, match=sentence):
        EVERY[attack](model, x, y, Threat("linf", 0.1), rng())


def in_place(model):
    def answer(x):
        x -= 0.5
        return model(x.mul_(1.0))

    return answer


@pytest.mark.parametrize("attack", [*ATTACKS, "cw", "autoattack"])
@pytest.mark.parametrize(
    "turn",
    [
        lambda m, x, y: (m, x, y.numpy()),
        lambda m, x, y: (m, x, y.to(torch.uint8)),
        lambda m, x, y: (m, x.numpy(), y.tolist()),
        lambda m, x, y: (m, x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), y),
        lambda m, x, y: (lambda z: (m(z), z), x, y),
        lambda m, x, y: (lambda z: {"logits": m(z)}, x, y),
        lambda m, x, y: (in_place(lambda z: m(z + 0.5)), x, y),
    ],
    ids=["numpy", "uint8", "array", "layout", "tuple", "dict", "in-place"],
)
def test_attacks_take_other_makes_of_the_same_as_the_same(attack, turn, monkeypatch):
    shorten_autoattack(monkeypatch)
    shape = (2, 5, 5)
    x = torch.rand(6, *shape, generator=rng())
    linear = nn.Linear(50, 5)
    model = nn.Sequential(nn.Flatten(), linear)
    y = labels_of(model, x)
    run = EVERY[attack]
    threat = Threat("linf", 0.1)
    before = x.clone()
    changed = run(*turn(model, x, y), threat, rng())
    same = run(model, x, y, threat, rng())
    assert torch.equal(x, before)
    for one, other in zip(tensors(changed), tensors(same), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attack", [*ATTACKS, "cw", "autoattack"])
def test_double_precision_is_attacked_in_double_precision(attack, monkeypatch):
    shorten_autoattack(monkeypatch)
    model, x = Small().double(), images(6).double()
    found = EVERY[attack](model, x, labels_of(model, x), Threat("linf", 0.1), rng())
    assert tensors(found)[0].dtype == torch.float64


def tensors(found):
    return [found] if isinstance(found, torch.Tensor) else [found.x_adv, found.correct]


def shorten_autoattack(monkeypatch):
    class Short(pyautoattack.AutoAttack):
        def run_standard_evaluation(self, *args, **kwargs):
            self.square.n_queries = 5
            for attack in (self.apgd, self.apgd_targeted, self.fab):
                attack.n_iter = 2
            return super().run_standard_evaluation(*args, **kwargs)

    monkeypatch.setattr(pyautoattack, "AutoAttack", Short)


@pytest.mark.parametrize(
    "cut",
    [
        lambda m: lambda x: m(x.detach()),
        lambda m: lambda x: m((x * 255).byte() / 255),
        lambda m: lambda x: m(overwritten(x)),
        lambda m: lambda x: m(x) + (x * 0).sum().sqrt(),
    ],
    ids=["detached", "cast", "overwritten", "not finite"],
)
@pytest.mark.parametrize("attack", EVERY)
def test_a_model_that_lets_no_gradient_through_is_named(attack, cut):
    model, x = Small(), images(6)
    y = labels_of(model, x)
    with pytest.raises(UserError, match=r"no .*gradient .*reaches the image"):
        EVERY[attack](cut(model), x, y, Threat("linf", 0.1), rng())


def overwritten(x):
    """Return x; autograd finds what it needs for the way back changed."""
    root = x.exp()
    same = root.log()
    root.mul_(2)
    return same


def test_an_image_without_a_finite_gradient_is_counted_by_the_check():
    net, x = Small(), images(40)
    x[8:] = 0.5

    def model(z):  # the gradient of a root is NaN where it is 0
        return net(z) + 0 * (z - 0.5).square().flatten(1).sum(dim=1, keepdim=True).sqrt()

    y = labels_of(net, x)
    assert "not finite, on 32 of 40" in zero_gradients(model, x, y, AttackConfig())
    assert torch.isfinite(pgd(model, x, y, Threat("linf", 0.1), 3, generator=rng())).all()


def test_marks_of_other_images_are_refused(programs):
    """In a process without the tests' import hook, which refuses the shapes before clarep does."""
    code = """
import torch
from clarep import UserError
from clarep.robustness.attacks import *
net, x, y = torch.nn.Flatten(), torch.rand(6, 1, 2, 2), torch.arange(6) % 4
threat, config = Threat("linf", 0.1), AttackConfig(attacks=("pgd", "apgd-ce"))
right = torch.ones(6) > 0
for marks in (right[:5], right[:1], right[:, None], right.float()):
    for run in (
        lambda: robust_accuracy(net, x, y, threat, config, before={"pgd": marks, "apgd-ce": right}),
        lambda: masking_reasons(net, x, y, threat, correct=marks, config=config),
        lambda: stronger_attack(net, x, y, threat, correct=marks, config=config),
    ):
        try:
            print(run())
        except UserError as error:
            assert "for each of the 6 images" in str(error), error
try:
    print(robust_accuracy(net, x, y, threat, config, before={"pgd": right}))
except UserError as error:
    assert "before['apgd-ce'] is missing" in str(error)
"""
    done = programs.run(code)
    assert done.stdout + done.stderr == ""
