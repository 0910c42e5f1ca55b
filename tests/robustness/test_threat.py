"""The threat set against SciPy's projection, its properties over random cases, and bad radii."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from clarep.errors import UserError
from clarep.robustness.attacks.attack_config import AttackConfig, check_attacks, unit_notes
from clarep.robustness.attacks.threat import Threat, steepest

SHAPE = (3, 32, 32)
TOLERANCE = 1e-6


def images(seed: int, count: int = 3, shape: tuple[int, ...] = (2, 3, 3)) -> torch.Tensor:
    """Random images, a third of whose values are exactly 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, *shape, generator=generator) * 1.5 - 0.25).clamp(0, 1)


@given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(0, 3),
    seed=st.integers(0, 1000),
    reach=st.floats(0, 10),
)
@settings(max_examples=80, deadline=None)
def test_projected_and_random_points_lie_in_the_set(norm, eps, seed, reach):
    threat, x = Threat(norm, min(eps, 1.0) if norm == "linf" else eps), images(seed)
    generator = torch.Generator().manual_seed(seed)
    moved = x + reach * torch.randn(x.shape, generator=generator)
    for inside in (threat.project(moved, x), threat.random_start(x, generator)):
        assert threat.size(inside, x).max() <= eps + TOLERANCE
        assert inside.min() >= 0
        assert inside.max() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.1, 0.6])
def test_projection_is_the_nearest_point(norm, eps):
    x = images(5, count=2, shape=(1, 2, 2))
    moved = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    projected = Threat(norm, eps).project(moved, x)
    flat = (part.double().flatten(1).numpy() for part in (x, moved, projected))
    for centre, target, found in zip(*flat, strict=True):
        low, high = np.zeros(4), np.ones(4)
        constraints = []
        if norm == "linf":
            low, high = np.maximum(low, centre - eps), np.minimum(high, centre + eps)
        else:
            constraints = [
                {"type": "ineq", "fun": lambda u, c=centre: eps**2 - ((u - c) ** 2).sum()}
            ]
        oracle = minimize(
            lambda u, t=target: ((u - t) ** 2).sum(),
            centre,
            bounds=list(zip(low, high, strict=True)),
            constraints=constraints,
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(found, oracle.x, atol=2e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_of_the_set_stay_where_they_are(norm):
    threat, x = Threat(norm, 0.4), images(2)
    inside = threat.random_start(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(threat.project(inside, x), inside, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_steepest_step_attains_the_dual_norm(scale):
    grad = scale * torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    flat = grad.double().flatten(1)
    for norm, dual in (("linf", flat.abs().sum(1)), ("l2", flat.norm(dim=1))):
        step = steepest(grad, norm).double().flatten(1)
        torch.testing.assert_close((step * flat).sum(1) / scale, dual / scale, rtol=1e-5, atol=0)
        size = step.abs().amax(1) if norm == "linf" else step.norm(dim=1)
        torch.testing.assert_close(size, torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_a_gradient_there_is_no_step(norm):
    assert not steepest(torch.zeros(2, 1, 3, 3), norm).any()


def test_random_starts_fill_the_ball():
    x = torch.full((400, 1, 2, 2), 0.5)
    generator = torch.Generator().manual_seed(0)
    radii = Threat("l2", 0.3).random_start(x, generator).sub(x).flatten(1).norm(dim=1) / 0.3
    # Uniform in a ball of four dimensions: the radius has the mean 4/5.
    assert radii.mean() == pytest.approx(0.8, abs=0.03)
    changes = Threat("linf", 0.3).random_start(x, generator) - x
    assert changes.abs().mean() == pytest.approx(0.15, abs=0.01)
    assert changes.mean() == pytest.approx(0, abs=0.01)


def test_settings_name_the_unit():
    assert Threat.of_eps_255(0.25).setting == "eps_255=0.25"
    assert Threat.of_eps_255(8.0).setting == "eps_255=8"
    assert Threat.of_eps_l2(0.05, SHAPE).setting == "eps_l2=0.05"
    assert Threat.of_eps_255(8.0).eps == 8 / 255


@pytest.mark.parametrize("eps", [1e-9, 0.0, 0.25, 255.0])
def test_legal_radii_are_taken(eps):
    assert Threat.of_eps_255(eps).eps == eps / 255


@pytest.mark.parametrize("eps", [-1.0, math.nan, math.inf, -1e-9])
def test_what_is_no_radius_is_refused(eps):
    for build in (Threat.of_eps_255, lambda value: Threat.of_eps_l2(value, SHAPE)):
        with pytest.raises(UserError, match=r"eps_\w+=.* is no radius: give a finite number"):
            build(eps)
    with pytest.raises(UserError, match="is no radius"):
        Threat("l2", eps)


def test_a_largest_change_counted_in_steps_of_255_is_refused():
    with pytest.raises(UserError, match=r"eps 8 is above 1.*8/255"):
        Threat("linf", 8.0)
    assert Threat("linf", 1.0).eps == 1
    assert Threat("l2", 8.0).eps == 8


def test_radii_in_the_wrong_unit_are_refused():
    with pytest.raises(UserError, match=r"`eps_255=300` .* one step of 0-255"):
        Threat.of_eps_255(300.0)
    with pytest.raises(UserError, match=r"`eps_l2=56` is above 55.4.*3x32x32.*\[0, 1\]"):
        Threat.of_eps_l2(56.0, SHAPE)
    Threat.of_eps_l2(55.0, SHAPE)


def unit_note(eps_255: float) -> str:
    return "".join(unit_notes(AttackConfig(eps_255=(eps_255,), eps_l2=()), SHAPE))


def l2_unit_note(eps_l2: float, shape: tuple[int, ...]) -> str:
    return "".join(unit_notes(AttackConfig(eps_255=(), eps_l2=(eps_l2,)), shape))


def test_large_radii_get_a_note_on_their_unit():
    assert unit_note(64.0) == unit_note(0.25) == unit_note(0.0) == ""
    assert "50% of its range" in unit_note(128.0)
    assert "0-255" in unit_note(128.0)
    assert "0.03 of the range 0-1 is 7.65" in unit_note(0.03)


def test_an_l2_radius_in_steps_of_255_is_noted_by_the_size_of_the_image():
    shape = (3, 32, 32)
    assert l2_unit_note(1.0, shape) == l2_unit_note(2.0, shape) == l2_unit_note(0.0, shape) == ""
    found = l2_unit_note(8.0, shape)
    assert "`eps_l2=8` is room to change every value of a 3x32x32 image by 14%" in found
    assert "not steps of 1/255" in found
    assert l2_unit_note(8.0, (3, 224, 224)) == ""  # the same share of a larger image is longer
    assert l2_unit_note(56.0, (3, 224, 224)) != ""


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"eps_255": (1.0, -2.0)}, "`eps_255=-2.0` is no radius"),
        ({"eps_255": (256.0,)}, "`eps_255=256` is above 255"),
        ({"autoattack_eps_255": (math.nan,)}, "`autoattack_eps_255=nan` is not finite"),
        ({"eps_l2": (128.0,)}, "`eps_l2=128` is above 55.4"),
        ({"attacks": ("pdg",)}, "unknown attack 'pdg': did you mean pgd"),
        ({"attacks": ()}, "`attacks` names none"),
        ({"attacks_l2": (), "cw": False}, "`attacks_l2` names none"),
        ({"pgd_steps": 0}, "`pgd_steps=0` is below 1"),
        ({"batch_size": -1}, "`batch_size=-1` is below 1"),
        ({"check_images": -1}, "`check_images=-1` is below 0"),
        ({"check_margin": 1.0}, "`check_margin=1.0` is outside"),
        ({"seed": -1}, "`seed=-1` is below 0"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(settings_, sentence):
    with pytest.raises(UserError, match=sentence):
        check_attacks(AttackConfig(**settings_), SHAPE)


def test_the_defaults_are_good_settings():
    check_attacks(AttackConfig(), SHAPE)
