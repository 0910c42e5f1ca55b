"""The column EDM of Table 1, against identities that the paper derives it from."""

import pytest
import torch

from clarep.teachers.families.edm_precond import EDM

SIGMAS = torch.logspace(-2.5, 1.8, 30, dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
def test_edm_preconditioning_has_unit_variance_and_least_amplification(sigma_data):
    """What the paper's appendix B.6 derives the scalings from, checked as identities."""
    c_skip, c_out, c_in, c_noise = EDM(sigma_data=sigma_data).scalings(SIGMAS)
    assert torch.allclose(c_in**2 * (SIGMAS**2 + sigma_data**2), torch.ones_like(SIGMAS))

    def variance(skip):  # of the target y - c_skip (y + n), to which c_out F is fitted
        return (1 - skip) ** 2 * sigma_data**2 + skip**2 * SIGMAS**2

    assert torch.allclose(c_out**2, variance(c_skip))
    for step in (-1e-3, 1e-3):
        assert (variance(c_skip + step) > c_out**2).all()
    assert torch.allclose((4 * c_noise).exp(), SIGMAS)


@pytest.mark.parametrize("sigma", [1e-6, 1e-4])
def test_a_clean_image_stays_as_it_is(sigma):
    """D(x; 0) = x whatever the network says, and the change is of first order in sigma."""
    x, output = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    kept = EDM().denoised(x, torch.full((5,), sigma, dtype=torch.float64), output)
    assert torch.allclose(kept - x, sigma * output, atol=100 * sigma**2)
