"""Compiled Jacobian products against eager ones: the same numbers, or none of them."""

import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn

from clarep.geometry import compiled as module
from clarep.geometry.compiled import CompiledJacobian, CompiledProducts
from clarep.geometry.jacobian import Jacobian

BATCH, WIDTH = 3, 6


def as_traced(graph):
    """What is recorded, run as it is: it tells what an input is, at no compile."""
    return graph


class Net(nn.Module):
    """Features that depend on a noise level and on a label beside x."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8)
        self.embed = nn.Embedding(5, 8)
        self.out = nn.Conv2d(8, 2, 3, stride=2)
        self.requires_grad_(False)

    def forward(self, x, sigma, labels):
        h = self.norm(self.conv(x / (1 + sigma[:, None, None, None])))
        h = nn.functional.silu(h + self.embed(labels)[:, :, None, None])
        return self.out(h * sigma.sqrt()[:, None, None, None])


def point(seed, batch=BATCH):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, 6, 6, generator=generator)
    sigma = 0.5 + 3 * torch.rand(batch, generator=generator)
    return x, sigma, torch.randint(5, (batch,), generator=generator)


def blocks(jacobian, r=WIDTH, seed=5):
    generator = torch.Generator().manual_seed(seed)
    V = torch.randn(jacobian.batch, jacobian.n, r, generator=generator)
    return V, torch.randn(jacobian.batch, jacobian.m, r, generator=generator)


def eager(net, at):
    x, *given = at
    return Jacobian(lambda y: net(y, *given), x)


def close(got, want, tolerance=1e-5):
    assert got.shape == want.shape
    assert float((got - want).norm()) <= tolerance * float(want.norm())


def assert_same(products, net, at, r=WIDTH):
    """Its products at a point are the eager ones."""
    jacobian, plain = CompiledJacobian(products, at[0], at[1:]), eager(net, at)
    V, U = blocks(plain, r)
    close(jacobian.matmat(V), plain.matmat(V))
    close(jacobian.rmatmat(U), plain.rmatmat(U))


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def counted():
    """A compiler that counts what it is given, and how often that is run."""
    seen = {"graphs": 0, "runs": 0}

    def compiler(graph):
        seen["graphs"] += 1

        def run(*args):
            seen["runs"] += 1
            return graph(*args)

        return run

    return seen, compiler


def test_one_trace_serves_other_images_levels_and_labels(net, counted):
    seen, compiler = counted
    products = CompiledProducts(net, BATCH, compiler)
    for seed in range(4):
        assert_same(products, net, point(seed))
        assert not products.failure
    assert seen == {"graphs": 2, "runs": 2 * 4}


def test_changed_weights_are_seen(net):
    products = CompiledProducts(net, BATCH, as_traced)
    assert_same(products, net, point(0))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5).add_(0.1)
    assert_same(products, net, point(0))


@pytest.mark.parametrize("r", [4, 5, 6, 7, 13, 15])
def test_blocks_of_other_widths_are_filled_up_or_cut(net, counted, r):
    seen, compiler = counted
    products = CompiledProducts(net, BATCH, compiler)
    assert_same(products, net, point(0))
    seen["runs"] = 0
    assert_same(products, net, point(1), r)
    rest = r % WIDTH
    assert seen == {"graphs": 2, "runs": 2 * (r // WIDTH + (2 * rest >= WIDTH))}


def test_other_batches_and_narrow_blocks_are_eager(net, counted):
    seen, compiler = counted
    products = CompiledProducts(net, BATCH, compiler)
    assert_same(products, net, point(0, batch=2))
    assert_same(products, net, point(0), r=3)
    assert seen["graphs"] == 0
    assert products.width is None


def test_other_kinds_of_argument_are_eager(net, counted):
    seen, compiler = counted
    products = CompiledProducts(net, BATCH, compiler)
    assert_same(products, net, point(0))
    seen["runs"] = 0
    x, sigma, labels = point(1)
    assert_same(products, net, (x, torch.stack([sigma, sigma], 1)[:, 0], labels))
    assert seen["runs"] == 0


def test_the_top_directions_are_the_eager_ones(net):
    products = CompiledProducts(net, BATCH, as_traced)
    at = point(2)
    bases = [
        jacobian.top_subspace(5, torch.Generator().manual_seed(0), "energy", 1e-4)
        for jacobian in (eager(net, at), CompiledJacobian(products, at[0], at[1:]))
    ]
    assert products.width == 8
    close(bases[1].singular_values, bases[0].singular_values, 1e-4)
    cosines = torch.linalg.svdvals(bases[0].V.mT @ bases[1].V)
    assert float(cosines.min()) > 1 - 1e-4


def test_a_projection_of_steps_is_multiplied_with(net):
    products, at = CompiledProducts(net, BATCH, as_traced), point(3)
    axes, _ = torch.linalg.qr(
        torch.randn(BATCH, 108, 9, generator=torch.Generator().manual_seed(1))
    )

    def across(step):
        flat = step.flatten(1)[:, :, None]
        return (flat - axes @ (axes.mT @ flat)).reshape(step.shape)

    x, *given = at
    plain = Jacobian(lambda y: net(x + across(y - x), *given), x)
    jacobian = CompiledJacobian(products, x, tuple(given), across=across)
    V, U = blocks(plain)
    close(jacobian.matmat(V), plain.matmat(V))
    close(jacobian.rmatmat(U), plain.rmatmat(U))
    assert jacobian.adjoint_error() < 1e-5


def test_what_takes_a_number_out_of_a_tensor_is_eager(counted):
    """Recorded, the number would be that of the first batch."""
    seen, compiler = counted

    def features(x, sigma, labels):
        return torch.sin(x * float(sigma[0]))

    products = CompiledProducts(features, BATCH, compiler)
    for seed in range(2):
        assert_same(products, features, point(seed))
    assert products.failure
    assert seen["graphs"] == 0


@pytest.mark.parametrize("wrong", ["forward", "backward"])
def test_a_wrong_compiler_is_found_out(net, capsys, wrong):
    made = []

    def compiler(graph):
        made.append(graph)
        if len(made) == 1 + (wrong == "backward"):
            return lambda *args: 1.01 * graph(*args)
        return graph

    products = CompiledProducts(net, BATCH, compiler)
    for seed in range(2):
        assert_same(products, net, point(seed))
    assert "1.0e-02" in products.failure
    assert capsys.readouterr().err.count("not compiled") == 1


def test_both_wrong_alike_are_found_out_by_the_adjoint_test(net, monkeypatch):
    """J V and J^T U that agree with wrong eager ones."""
    products, (x, *given) = CompiledProducts(net, BATCH, as_traced), point(0)
    jacobian = CompiledJacobian(products, x, tuple(given))
    V, U = blocks(eager(net, (x, *given)))
    jacobian.matmat(V)
    true, true_eager = module._backward, Jacobian._backward
    monkeypatch.setattr(module, "_backward", lambda f, x, u: 2 * true(f, x, u))
    monkeypatch.setattr(Jacobian, "_backward", lambda self, u: 2 * true_eager(self, u))
    jacobian.rmatmat(U)
    assert "adjoint" in products.failure


def test_whatever_the_compiler_raises_is_said_once(net, capsys):
    def compiler(graph):
        raise AssertionError("no such\ninstruction")

    products = CompiledProducts(net, BATCH, compiler)
    assert_same(products, net, point(0))
    assert_same(products, net, point(1))
    said = [line for line in capsys.readouterr().err.splitlines() if "no such" in line]
    assert len(said) == 1


def test_out_of_memory_in_a_compiler_is_no_fault_of_it(net):
    tried = []

    def compiler(graph):
        tried.append(graph)
        if len(tried) == 1:
            raise MemoryError
        return graph

    products, at = CompiledProducts(net, BATCH, compiler), point(0)
    assert_same(products, net, at, r=12)
    assert products.width == 6
    assert not products.failure


def test_features_that_do_not_depend_on_x_have_products_of_zero():
    def features(x, sigma):
        return sigma[:, None] * torch.ones(1, 4)

    products, (x, sigma, _) = CompiledProducts(features, BATCH, as_traced), point(0)
    jacobian = CompiledJacobian(products, x, (sigma,))
    V, U = blocks(jacobian)
    assert not jacobian.matmat(V).any()
    assert not jacobian.rmatmat(U).any()


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_one_way_alone(net, counted, way):
    seen, compiler = counted
    products = CompiledProducts(net, BATCH, compiler, ways=(way,))
    for seed in range(3):
        assert_same(products, net, point(seed))
    assert seen == {"graphs": 1, "runs": 3}


def test_what_is_compiled_does_not_travel(net):
    products = CompiledProducts(net, BATCH, as_traced)
    assert_same(products, net, point(0))
    copy = pickle.loads(pickle.dumps(products))
    assert copy.width == WIDTH
    assert_same(copy, net, point(1))


ON_ITS_OWN = """
import os, warnings
import torch
from torch import nn
warnings.simplefilter("error")
from clarep.geometry.compiled import CompiledJacobian, CompiledProducts
from clarep.geometry.jacobian import Jacobian

torch.manual_seed(0)
layers = [nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.SiLU(), nn.Conv2d(8, 2, 3)]
net = nn.Sequential(*layers).requires_grad_(False)
features = lambda x, sigma: net(x * sigma[:, None, None, None])
products = CompiledProducts(features, 3)
for seed in range(2):
    x, sigma = torch.randn(3, 3, 6, 6), 1 + torch.rand(3)
    J, plain = CompiledJacobian(products, x, (sigma,)), Jacobian(lambda y: features(y, sigma), x)
    for V in (torch.randn(3, 108, 8), torch.randn(3, 108, 5)):
        assert torch.allclose(J.matmat(V), plain.matmat(V), rtol=1e-4, atol=1e-5)
    for U in (torch.randn(3, 32, 8), torch.randn(3, 32, 5)):
        assert torch.allclose(J.rmatmat(U), plain.rmatmat(U), rtol=1e-4, atol=1e-5)
print("failed" if products.failure else "compiled")
"""


def of_its_own(tmp_path, **environment):
    known = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    known |= {"TORCHINDUCTOR_VEC_ISA_OK": "1"}  # no trial compile of each set of instructions
    return subprocess.run(
        [sys.executable, "-c", ON_ITS_OWN],
        env=os.environ | known | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )


HEADERS = Path(sysconfig.get_path("include")) / "Python.h"


@pytest.mark.skipif(
    shutil.which("g++") is None or not HEADERS.exists(), reason="no C++ compiler here"
)
def test_compiled_by_torch(tmp_path):
    """Really, in a process of its own, where every warning is an error."""
    assert of_its_own(tmp_path).stdout == "compiled\n"


def test_without_a_compiler_products_are_eager_and_it_is_said_once(tmp_path):
    done = of_its_own(tmp_path, CXX="/no/such/compiler")
    assert done.stdout == "failed\n"
    assert done.stderr.count("not compiled") == 1
    assert len(done.stderr.splitlines()) == 2  # what was begun, and that it failed


def test_precision_is_traced_too_and_what_is_checked_is_in_full(counted):
    seen, compiler = counted
    x, *given = point(0)
    plain = Net()
    plain.norm = nn.Identity()  # group norms have no bf16 products on a processor

    def net(x, *given):
        return plain(x, *given)

    products = CompiledProducts(net, BATCH, compiler, "bf16")

    def across(step):
        return step - step.mean((1, 2, 3), keepdim=True)

    jacobian = CompiledJacobian(products, x, tuple(given), across=across)
    projected = Jacobian(lambda y: net(x + across(y - x), *given), x, precision="bf16")
    exact = eager(net, (x, *given))
    V, U = blocks(exact)
    close(jacobian.matmat(V), projected.matmat(V), 2e-2)
    close(jacobian.rmatmat(U), projected.rmatmat(U), 2e-2)
    assert seen["graphs"] == 2 and not products.failure
    steps = V.mT.reshape(-1, *x.shape[1:])
    flat = across(steps).reshape(V.mT.shape).mT
    assert float((jacobian.matmat(V) - exact.matmat(flat)).norm()) > 1e-4  # less than fp32
    close(jacobian.dense() @ V, exact.matmat(flat))
