"""Products in less than fp32: what is lost is measured, and made good where it is too much."""

from typing import get_args

import pytest
import torch
from torch import nn

from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import ClaridConfig, resolve_precision, stored_in_short
from clarep.clarid.directions import Kind
from clarep.engine.identity import plain
from clarep.errors import UserError
from clarep.geometry.dense import exact_spectrum
from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.geometry.precision import checked_in_full
from clarep.geometry.subspace import top_right_singular_subspace

K, TOLERANCE = 6, 0.01


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 4, 3, stride=2)]
    return nn.Sequential(*layers).requires_grad_(False)


class OffInHalf(nn.Module):
    """A network that weighs some pixels otherwise in bf16: an error that is none of rounding."""

    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        if torch.is_autocast_enabled("cpu"):
            x = torch.cat([3 * x[:, :, :1], x[:, :, 1:]], dim=2)
        return self.inner(x)


def point(batch=2):
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def missing(function, x, V):
    """The true share of the optimal energy that V lacks, the worst image, by dense float64."""
    J = Jacobian(function.double(), x.double()).dense()
    function.float()
    best = exact_spectrum(J)[:, :K].square().sum(1)
    return float((1 - (J @ V.double()).square().sum((1, 2)) / best).max())


def solve(function, x, precision):
    jacobian = Jacobian(function, x, precision=precision)
    return jacobian.top_subspace(K, torch.Generator().manual_seed(2), "energy", TOLERANCE)


def test_bf16_products_are_less_exact_and_of_the_same_type():
    x, function = point(), net()
    exact, half = Jacobian(function, x), Jacobian(function, x, precision="bf16")
    V, U = torch.randn(2, exact.n, 5), torch.randn(2, exact.m, 5)
    for got, want in ((half.matmat(V), exact.matmat(V)), (half.rmatmat(U), exact.rmatmat(U))):
        assert got.dtype == torch.float32
        assert 1e-4 < float((got - want).norm() / want.norm()) < 3e-2
    assert torch.equal(half.dense(), exact.dense())  # in full whatever the precision


def test_outer_autocast_does_not_reach_fp32_products():
    x, function = point(), net()
    exact = Jacobian(function, x)
    V = torch.randn(2, exact.n, 2)
    want = exact.matmat(V)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Jacobian(function, x).matmat(V), want)


@pytest.mark.parametrize("make", [net, OffInHalf])
def test_captured_energy_is_as_promised(make):
    function, x = make(), point()
    found = solve(function, x, "bf16")
    assert float(found.error.max()) <= TOLERANCE
    assert missing(function, x, found.V) <= TOLERANCE
    eye = torch.eye(K).expand(2, -1, -1)
    assert torch.allclose(found.V.mT @ found.V, eye, atol=1e-5)


def test_wrong_products_are_found_out_and_made_good_in_fp32():
    x = point()
    honest, found = solve(net(), x, "bf16"), solve(OffInHalf(), x, "bf16")
    assert found.products > honest.products + K  # it went on in fp32
    exact = solve(net(), x, "fp32")
    assert torch.allclose(found.singular_values, exact.singular_values, rtol=0.02)


def test_the_check_adds_what_is_lost_to_error_and_residuals():
    scale = torch.linspace(3, 1, 40)[None, :, None]

    class Diagonal:
        def __init__(self, factor):
            self.factor = factor

        def matmat(self, V):
            return self.factor * scale * V

        rmatmat = matmat

    low, full = Diagonal(1.1), Diagonal(1.0)
    found = top_right_singular_subspace(
        low.matmat, low.rmatmat, (40, 40), K, generator=torch.Generator().manual_seed(0)
    )
    checked = checked_in_full(found, low, full, torch.Generator().manual_seed(0))
    assert torch.allclose(checked.error, 1 - (1 - found.error) / 1.21)
    assert float(checked.residuals.min()) > 0.2 * 1.2**2  # J^T J is 1.21 times too large
    same = checked_in_full(found, full, full, torch.Generator().manual_seed(0))
    assert torch.allclose(same.error, found.error)
    assert torch.allclose(same.residuals, found.residuals)
    nothing = checked_in_full(found, Diagonal(0.0), Diagonal(0.0), torch.Generator().manual_seed(0))
    assert torch.allclose(nothing.error, found.error)  # and no 0 / 0


def test_refused(tiny_teacher_path):
    for precision in ("tf32", "bf16"):
        with pytest.raises(UserError, match=precision):
            Clarid(tiny_teacher_path, precision=precision)
    with pytest.raises(UserError, match=r"angle.*tf32"):
        resolve_precision("cuda", ClaridConfig(measure="angle", precision="tf32"))
    assert resolve_precision("cuda", ClaridConfig(measure="angle")) == "fp32"
    with pytest.raises(UserError, match="angle"):
        Jacobian(net(), point(), precision="bf16").top_subspace(
            K, torch.Generator(), "angle", TOLERANCE
        )


def test_a_network_without_products_in_bf16_is_refused():
    norm = nn.Sequential(net(), nn.GroupNorm(2, 4).requires_grad_(False))  # none on a processor
    assert probe_engine(norm, point())[0] == "forward"
    assert probe_engine(net(), point(), "bf16")[0] == "forward"
    with pytest.raises(UserError, match="bf16"):
        probe_engine(norm, point(), "bf16")


def test_precision_is_recorded_where_it_is_not_fp32(tiny_teacher_path):
    usual, named = (
        Clarid(tiny_teacher_path, t=0.5, k=2, precision=precision) for precision in (None, "fp32")
    )
    assert usual.config.precision == "fp32"
    assert usual.describe(0, 4) == named.describe(0, 4)
    assert "precision" not in usual.describe(0, 4)["clarid"]
    half = plain(usual.config) | {"precision": "bf16"}
    assert stored_in_short(half)["precision"] == "bf16"


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("precision", [None, "fp32", "tf32", "bf16"])
def test_on_a_gpu_what_takes_no_products_of_a_solver_is_in_full(kind, precision):
    """Else a set of random directions told of arithmetic that nothing was computed with."""
    config = ClaridConfig(kind=kind, precision=precision)
    solved = kind not in ("none", "random", "middle", "bottom")
    assert resolve_precision("cuda", config) == ((precision or "tf32") if solved else "fp32")


def test_finite_differences_are_in_full():
    x, function = point(), net()
    exact = Jacobian(function, x, "finite_difference")
    half = Jacobian(function, x, "finite_difference", precision="bf16")
    V = torch.randn(2, exact.n, 3)
    assert torch.equal(half.matmat(V), exact.matmat(V))
