"""The field's scheme, the benchmark's reference, against dense float64 SVD."""

import itertools

import pytest
import torch
from torch import nn

from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian
from clarep.geometry.reference import field_products, subspace_iteration

N, M = 24, 30


def network():
    """A network whose singular values halve from one to the next, at a point, and its J."""
    torch.manual_seed(0)
    first = nn.Linear(N, N)
    with torch.no_grad():
        basis, _ = torch.linalg.qr(torch.randn(N, N))
        first.weight.copy_(torch.diag(0.5 ** torch.arange(N)) @ basis.mT)
    net = nn.Sequential(first, nn.Tanh(), nn.Linear(N, M)).double().requires_grad_(False)
    x = torch.randn(1, N, dtype=torch.float64)
    return net, x, torch.func.jacrev(net)(x).reshape(1, M, N)


def walk(products, k=4, **options):
    generator = torch.Generator().manual_seed(1)
    return subspace_iteration(products, N, k, generator=generator, dtype=torch.float64, **options)


def test_the_field_s_products_are_the_jacobians():
    net, x, dense = network()
    matmat, rmatmat = field_products(net, x)
    V, U = torch.randn(1, N, 60).double(), torch.randn(1, M, 3).double()
    assert torch.allclose(matmat(V), dense @ V)  # three chunks
    assert torch.allclose(rmatmat(U), dense.mT @ U)


def test_the_field_s_products_of_images():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU()).requires_grad_(False)
    x = torch.randn(1, 3, 6, 6)
    ours = Jacobian(net, x)
    V, U = torch.randn(1, ours.n, 5), torch.randn(1, ours.m, 5)
    matmat, rmatmat = field_products(net, x)
    assert torch.allclose(matmat(V), ours.matmat(V), atol=1e-5)
    assert torch.allclose(rmatmat(U), ours.rmatmat(U), atol=1e-5)


@pytest.mark.parametrize("whose", ["field", "ours"])
def test_it_converges_to_the_dense_svd(whose):
    net, x, dense = network()
    if whose == "field":
        products = field_products(net, x)
    else:
        jacobian = Jacobian(net, x)
        products = jacobian.matmat, jacobian.rmatmat
    _, values, rows = torch.linalg.svd(dense)
    *_, (V, found, used) = walk(products, max_iterations=30)
    assert torch.allclose(found, values[:, :4])
    assert (V.mT @ V - torch.eye(4)).abs().max() < 1e-12
    overlap = torch.linalg.svdvals(rows[:, :4] @ V)
    assert overlap.min() > 1 - 1e-9
    assert used % 8 == 0
    if whose == "ours":
        assert used == jacobian.products


def test_it_is_an_iteration_at_a_time_and_counts_products():
    net, x, _ = network()
    steps = list(itertools.islice(walk(field_products(net, x)), 3))
    assert [used for _, _, used in steps] == [8, 16, 24]


def test_it_ends_at_its_own_stop_or_the_limit():
    _, _, dense = network()
    products = (lambda V: dense @ V), (lambda U: dense.mT @ U)
    assert 10 <= len(list(walk(products))) <= 100
    assert len(list(walk(products, max_iterations=5))) == 5


def test_k_outside_the_dimension():
    with pytest.raises(UserError, match="k = 25 is outside 1 to 24"):
        next(walk((torch.clone, torch.clone), k=25))
