"""Lists of noise levels sigma, from noisy to clean."""

from collections.abc import Sequence

import torch
from torch import Tensor


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Return `steps + 1` noise levels from sigma_max down to sigma_min, float64.

    Evenly spaced in sigma^(1/rho): Karras et al. 2022 (arXiv 2206.00364), equation 5.
    """
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas: Tensor = (high + ramp * (low - high)) ** rho
    sigmas[0], sigmas[-1] = sigma_max, sigma_min  # exact, not to rounding
    return sigmas


def ddim_sigmas(alphas_cumprod: Tensor, timesteps: Sequence[int] | Tensor) -> Tensor:
    """Return the noise levels that DDIM visits at `timesteps` of a DDPM schedule, float64.

    sigma = sqrt(1 / alpha_bar - 1), the level of x / sqrt(alpha_bar). `alphas_cumprod` is the
    schedule's alpha_bar, (T,), each in (0, 1].
    """
    alpha_bar = alphas_cumprod.double()[torch.as_tensor(timesteps).long()]
    return torch.sqrt(1 / alpha_bar - 1)
