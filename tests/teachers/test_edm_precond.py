"""The columns of EDM's Table 1, against identities that the paper derives them from."""

import math

import pytest
import torch
from scipy.integrate import quad

from clarep.teachers.edm_precond import EDM, VE, VP

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


@pytest.mark.parametrize("precond", [VP(), VE()])
def test_the_older_preconditionings_predict_noise(precond):
    """D = x -/+ sigma F: with F the noise itself, D is the clean image."""
    x0 = torch.randn(30, 3, 2, 2, dtype=torch.float64)
    eps = torch.randn(30, 3, 2, 2, dtype=torch.float64)
    x = x0 + SIGMAS[:, None, None, None] * eps
    sign = 1 if isinstance(precond, VP) else -1
    assert torch.allclose(precond.denoised(x, SIGMAS, sign * eps), x0, atol=1e-10)


def test_vp_time_is_the_inverse_of_its_noise_levels():
    precond = VP()
    sigma = torch.tensor([precond.sigma_from_t(t) for t in (0.1, 0.5, 0.9)], dtype=torch.float64)
    scaled, time = precond.network_input(torch.ones(3, 1, 1, 1, dtype=torch.float64), sigma)
    assert torch.allclose(time / 999, torch.tensor([0.1, 0.5, 0.9]).double(), atol=1e-5)
    # the schedule of Song et al., by quadrature: ln alpha_bar = - integral of beta
    half = 1e-5 + 0.5 * (1 - 1e-5)
    alpha_bar = math.exp(-quad(lambda s: 0.1 + 19.9 * s, 0, half)[0])
    assert float(scaled[1]) == pytest.approx(math.sqrt(alpha_bar), rel=1e-9)
    assert precond.sigma_max == pytest.approx(math.sqrt(math.exp(10.05) - 1))


def test_ve_levels_are_geometric_and_its_time_is_half_the_level():
    precond = VE()
    assert precond.sigma_from_t(0.5) == pytest.approx(math.sqrt(0.02 * 100))
    x = torch.ones(1, 1, 1, 1)
    scaled, time = precond.network_input(x, torch.tensor([3.0]))
    assert torch.equal(scaled, x)
    assert float(time) == pytest.approx(math.log(1.5))
