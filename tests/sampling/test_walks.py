import math

import pytest
import torch

from clarep.errors import UserError
from clarep.sampling.ode import decode, integrate, invert, karras_sigmas, psnr

SCALE = 0.5


class Counted:
    """The denoiser of Gaussian data; remembers the levels it was asked at."""

    def __init__(self):
        self.levels = []

    def __call__(self, x, sigma):
        assert sigma.shape == (len(x),) and bool((sigma == sigma[0]).all())
        self.levels.append(float(sigma[0]))
        return x * (SCALE**2 / (SCALE**2 + sigma**2))[:, None, None, None]


def images():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_both_ways_on_one_list():
    up, down = Counted(), Counted()
    x_te = invert(up, images(), 2.0, 0.01, 12)
    decode(down, x_te, 2.0, 0.01, 12)
    levels = karras_sigmas(12, 0.01, 2.0).tolist()
    assert down.levels == levels  # the last evaluation, at sigma_min, steps to 0
    assert up.levels == levels[:0:-1]


def test_decode_ends_with_the_estimate_at_sigma_min():
    model = Counted()
    stopped = decode(model, images(), 2.0, 0.01, 12, to_sigma_min=True)
    assert torch.equal(stopped, integrate(model, images(), karras_sigmas(12, 0.01, 2.0)))
    estimate = model(stopped, torch.full((2,), 0.01, dtype=torch.float64))
    assert torch.allclose(decode(model, images(), 2.0, 0.01, 12), estimate, atol=1e-12)


def test_heun_inversion_approaches_the_exact_solution():
    exact = images() * math.sqrt((SCALE**2 + 4) / (SCALE**2 + 0.01**2))
    heun = invert(Counted(), images(), 2.0, 0.01, 50, solver="heun")
    euler = invert(Counted(), images(), 2.0, 0.01, 50)
    assert float((heun - exact).abs().max()) < 0.02 < float((euler - exact).abs().max())


@pytest.mark.parametrize("sigma", [0.01, 0.005])
@pytest.mark.parametrize("walk", [invert, decode])
def test_sigma_must_exceed_the_lowest(walk, sigma):
    with pytest.raises(UserError, match=r"not above the lowest noise level 0\.01"):
        walk(Counted(), images(), sigma, 0.01, 10)


@pytest.mark.parametrize("walk", [invert, decode])
def test_at_least_one_step(walk):
    with pytest.raises(UserError, match="0 steps are too few"):
        walk(Counted(), images(), 1.0, 0.01, 0)


def test_psnr_is_per_image_with_peak_to_peak_two():
    a = torch.zeros(3, 3, 4, 4)
    b = a.clone()
    b[0] += 0.2
    b[1, 0, 0, 0] += 2.0
    assert psnr(a, b).tolist() == pytest.approx([20.0, 10 * math.log10(48), math.inf])
