"""The ODE walks against diffusers' DDIM schedulers, and against an analytic solution."""

import math
import warnings
from itertools import pairwise

import pytest
import torch

from clarep.sampling.ode import decode, integrate, invert, karras_sigmas

SCALE = 0.5  # standard deviation of the analytic Gaussian data


def epsilon(x, sigma):
    """A smooth nonlinear noise estimate that mixes positions and depends on the level."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(6, 6, generator=generator, dtype=torch.float64) / 6**0.5
    level = torch.log(torch.as_tensor(sigma, dtype=torch.float64))
    return 0.8 * torch.tanh(x @ mix + 0.2 * level) + 0.1 * x.roll(1, dims=-1)


def denoise(x, sigma):
    """The denoiser of `epsilon`, which sees x as DDPM scales it."""
    sigma = sigma[:, None]
    return x - sigma * epsilon(x / torch.sqrt(1 + sigma**2), sigma)


def schedulers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own
        from diffusers import DDIMInverseScheduler, DDIMScheduler
    options = {"beta_schedule": "scaled_linear", "clip_sample": False}
    return (
        DDIMScheduler(**options, set_alpha_to_one=True),
        DDIMInverseScheduler(**options, set_alpha_to_one=False),
    )


def start():
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("steps", [10, 50])
def test_euler_is_diffusers_ddim(steps, ddim_sigmas):
    ddim, _ = schedulers()
    ddim.set_timesteps(steps)
    sigmas = ddim_sigmas(ddim.alphas_cumprod, ddim.timesteps)
    x = start()  # at DDPM's scale
    ours = integrate(denoise, x * torch.sqrt(1 + sigmas[0] ** 2), [*sigmas.tolist(), 0.0])
    for t, sigma in zip(ddim.timesteps, sigmas, strict=True):
        x = ddim.step(epsilon(x, sigma), t, x, eta=0.0).prev_sample
    assert float((ours - x).abs().max()) < 1e-5
    assert float((ours - start()).abs().max()) > 0.1  # something was walked


@pytest.mark.parametrize("steps", [10, 50])
def test_rising_euler_is_diffusers_inverse_ddim(steps, ddim_sigmas):
    _, inverse = schedulers()
    inverse.set_timesteps(steps)
    sigmas = ddim_sigmas(inverse.alphas_cumprod, inverse.timesteps)
    assert bool((sigmas.diff() > 0).all())
    first, last = float(sigmas[0]), float(sigmas[-1])
    x = start()
    ours = integrate(denoise, x * math.sqrt(1 + first**2), sigmas) / math.sqrt(1 + last**2)
    # The scheduler's step at timestep t goes from the level before t to t; its first stands still.
    for t, here in zip(inverse.timesteps, [first, *sigmas[:-1].tolist()], strict=True):
        x = inverse.step(epsilon(x, here), t, x).prev_sample
    assert float((ours - x).abs().max()) < 1e-5
    assert float((ours - start()).abs().max()) > 0.1


def gaussian(x, sigma):
    return x * (SCALE**2 / (SCALE**2 + sigma**2))[:, None]


def gaussian_error(solver, steps, sigmas):
    x = start()
    exact = x * math.sqrt((SCALE**2 + sigmas[-1] ** 2) / (SCALE**2 + sigmas[0] ** 2))
    return float((integrate(gaussian, x, sigmas, solver) - exact).abs().max())


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("fixed_point", 1), ("heun", 2)])
def test_order_of_convergence(solver, order, rising):
    errors = []
    for steps in (64, 128, 256):
        sigmas = karras_sigmas(steps, 0.01, 10.0)
        errors.append(gaussian_error(solver, steps, sigmas.flip(0) if rising else sigmas))
    assert errors[0] > 1e-7  # above rounding, or the ratios below mean nothing
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


def test_last_step_to_zero_returns_the_estimate():
    x = start()
    assert torch.allclose(
        integrate(denoise, x, [0.5, 0.0], "heun"), denoise(x, x.new_full((3,), 0.5))
    )


def test_a_walk_is_its_steps_one_after_another():
    sigmas = karras_sigmas(5, 0.1, 4.0).tolist()
    x = start()
    for step in pairwise(sigmas):
        x = integrate(denoise, x, step)
    assert torch.equal(x, integrate(denoise, start(), sigmas))
    assert torch.equal(integrate(denoise, start(), [1.0]), start())


@pytest.mark.parametrize("shape", [(6,), (2, 3, 6)])
def test_fixed_point_inversion_is_undone_by_euler(shape):
    x0 = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def model(x, sigma):
        return denoise(x.flatten(0, -2), sigma[:1].expand(x[..., 0].numel())).view_as(x)

    def round_trip(solver):
        x_te = invert(model, x0, 3.0, 0.01, 50, solver=solver, iterations=20)
        assert float((x_te - x0).abs().max()) > 0.1
        return float((decode(model, x_te, 3.0, 0.01, 50, to_sigma_min=True) - x0).abs().max())

    assert round_trip("fixed_point") < 1e-5
    assert round_trip("euler") > 1e-3
