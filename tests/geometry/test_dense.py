"""Exact spectra and singular vectors against the dense SVD of operators built to a spectrum."""

import pytest
import torch

from clarep.errors import UserError
from clarep.geometry.dense import exact_right_singular_vectors, exact_spectrum
from clarep.geometry.subspace import subspace_of_dense


def operator(m, n, rank=None, batch=2):
    """Dense J (B, m, n), float64, of singular values (B, min(m, n))."""
    generator = torch.Generator().manual_seed(4)
    count = min(m, n)
    values = 0.9 ** torch.arange(count, dtype=torch.float64)
    if rank is not None:
        values[rank:] = 0
    sides = (
        torch.linalg.qr(torch.randn(batch, side, count, generator=generator).double())[0]
        for side in (m, n)
    )
    left, right = sides
    return left * values @ right.mT, values


@pytest.mark.parametrize(("m", "n"), [(20, 30), (30, 20), (25, 25)])
def test_spectrum(m, n):
    jacobian, values = operator(m, n)
    assert torch.allclose(exact_spectrum(jacobian), values.expand(2, -1))
    assert torch.allclose(exact_spectrum(jacobian[0]), values)
    assert exact_spectrum(jacobian.float()).dtype == torch.float64


@pytest.mark.parametrize("rank", [None, 7])
@pytest.mark.parametrize("k", [1, 6, 20])
@pytest.mark.parametrize(("m", "n"), [(20, 30), (30, 20), (25, 25)])
@pytest.mark.parametrize("part", ["top", "middle", "bottom"])
def test_parts(part, m, n, k, rank):
    jacobian, values = operator(m, n, rank)
    V = exact_right_singular_vectors(jacobian, k, part)
    whole = torch.nn.functional.pad(values, (0, n - len(values)))
    first = {"top": 0, "middle": (min(m, n) - k) // 2, "bottom": n - k}[part]
    found = subspace_of_dense(jacobian, V)
    assert V.shape == (2, n, k)
    assert (V.mT @ V - torch.eye(k)).abs().max() < 1e-12
    assert torch.allclose(found.singular_values, whole[first : first + k].expand(2, -1))
    assert found.residuals.max() < 1e-12
    assert found.error.eq(0).all()
    assert found.products == min(m, n)


def test_a_middle_wider_than_the_features_is_of_all_directions():
    jacobian, values = operator(20, 30)
    V = exact_right_singular_vectors(jacobian, 24, "middle")
    whole = torch.nn.functional.pad(values, (0, 10))
    assert torch.allclose((jacobian @ V).norm(dim=1), whole[3:27].expand(2, -1), atol=1e-7)


def test_mistakes():
    jacobian, _ = operator(4, 5)
    for k in (0, 6):
        with pytest.raises(UserError, match=f"k = {k} is outside 1 to 5"):
            exact_right_singular_vectors(jacobian, k)
    spoilt = jacobian * float("nan")
    for function in (exact_spectrum, lambda J: exact_right_singular_vectors(J, 2)):
        with pytest.raises(UserError, match="not finite"):
            function(spoilt)
