"""What a Krylov space holds at every step, against the dense operator."""

import pytest
import torch

from clarep.geometry.krylov import Krylov

M, N, WIDTH = 50, 70, 4


def grown(steps, rank=M, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(2, M, rank, generator=generator, dtype=dtype)
    right = torch.randn(2, rank, N, generator=generator, dtype=dtype)
    scale = torch.arange(1, rank + 1, dtype=dtype) ** -0.5
    jacobian = left * scale @ right
    first = torch.randn(2, N, WIDTH, generator=generator, dtype=dtype)
    krylov = Krylov(lambda V: jacobian @ V, lambda U: jacobian.mT @ U, first, WIDTH, generator)
    for _ in range(steps):
        krylov.expand()
    return jacobian, krylov


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_bases_and_the_small_matrix(steps):
    jacobian, krylov = grown(steps)
    assert krylov.Q.shape == (2, N, WIDTH * steps)
    assert krylov.P.shape == (2, M, WIDTH * (steps + 1))
    for basis in (krylov.Q, krylov.P):
        assert (basis.mT @ basis - torch.eye(basis.shape[2])).abs().max() < 1e-12
    assert torch.allclose(jacobian @ krylov.Q, krylov.P @ krylov.T, atol=1e-10)
    assert torch.allclose(krylov.JtP, jacobian.mT @ krylov.P, atol=1e-10)
    assert krylov.products == WIDTH * 2 * (steps + 1)


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 9])
def test_what_lies_ahead_is_the_energy_of_left(steps):
    jacobian, krylov = grown(steps)
    want = torch.linalg.svdvals(jacobian.mT @ krylov.P)
    assert krylov.T_ahead.shape == (2, WIDTH * (steps + 1), WIDTH * (steps + 1))
    assert torch.allclose(torch.linalg.svdvals(krylov.T_ahead), want, atol=1e-10)


def test_a_closed_space_has_nothing_ahead():
    jacobian, krylov = grown(4, rank=6)
    assert krylov.exact.all()
    want = torch.linalg.svdvals(jacobian)[:, :6]
    assert torch.allclose(torch.linalg.svdvals(krylov.T_ahead)[:, :6], want, atol=1e-10)
    assert torch.linalg.svdvals(krylov.T_ahead)[:, 6:].max() < 1e-10


def test_blocks_that_are_nearly_dependent_are_orthonormal_all_the_same():
    """Columns that agree to 1e-5 need the third round against the basis."""
    generator = torch.Generator().manual_seed(1)
    scales = 10.0 ** -torch.arange(40, dtype=torch.float64).div(4)
    jacobian = torch.diag(scales).expand(1, -1, -1).float()
    first = torch.randn(1, 40, 1, generator=generator)
    first = first + 1e-5 * torch.randn(1, 40, WIDTH, generator=generator)
    krylov = Krylov(lambda V: jacobian @ V, lambda U: jacobian.mT @ U, first, WIDTH, generator)
    for _ in range(6):
        krylov.expand()
        for basis in (krylov.Q, krylov.P):
            assert (basis.mT @ basis - torch.eye(basis.shape[2])).abs().max() < 1e-5
