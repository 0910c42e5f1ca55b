"""The probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma, walked both ways.

A denoiser D takes x (B, ...) and noise levels (B,) and returns its estimate of the clean
images. Euler steps are DDIM (Song et al. 2021, arXiv 2010.02502) in this parametrisation.
The two walks of CLARID, from a clean image up to noise level sigma and back down, use one list of
noise levels, so that a walk up can be undone by the walk down.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError

Denoiser = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["euler", "heun", "fixed_point"]


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Return `steps + 1` noise levels from sigma_max down to sigma_min, float64.

    Evenly spaced in sigma^(1/rho): Karras et al. 2022 (arXiv 2206.00364), equation 5.

    Raises:
        UserError: if sigma_max does not exceed sigma_min, or steps is below 1.
    """
    if steps < 1:
        raise UserError(f"{steps} steps are too few: give at least 1")
    if not 0 < sigma_min < sigma_max:
        raise UserError(
            f"sigma {sigma_max:g} is not above the lowest noise level {sigma_min:g}: "
            "choose a higher one"
        )
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas: Tensor = (high + ramp * (low - high)) ** rho
    sigmas[0], sigmas[-1] = sigma_max, sigma_min  # exact, not to rounding
    return sigmas


def integrate(
    denoise: Denoiser,
    x: Float[Tensor, "batch *shape"],
    sigmas: Sequence[float] | Tensor,
    solver: Solver = "euler",
    iterations: int = 5,
) -> Float[Tensor, "batch *shape"]:
    """Return x at sigmas[-1], starting from x at sigmas[0].

    Args:
        denoise: the denoiser.
        x: at noise level sigmas[0].
        sigmas: falling to decode, rising to invert. The first must be positive; a last 0 is
            reached by an Euler step, which returns the denoiser's estimate.
        solver: `euler` (1 evaluation a step); `heun` (2; second order); `fixed_point`
            (`iterations` + 1; the implicit step that Euler's step in the other direction undoes).
        iterations: of `fixed_point`.
    """

    def slope_at(x: Tensor, sigma: float) -> Tensor:
        return (x - denoise(x, x.new_full((len(x),), sigma))) / sigma

    for sigma, target in pairwise(float(s) for s in sigmas):
        slope = slope_at(x, sigma)
        ahead = x + (target - sigma) * slope
        if solver == "heun" and target > 0:
            ahead = x + (target - sigma) * ((slope + slope_at(ahead, target)) / 2)
        elif solver == "fixed_point" and target > 0:
            for _ in range(iterations):
                ahead = x + (target - sigma) * slope_at(ahead, target)
        x = ahead
    return x


def invert(
    denoise: Denoiser,
    x0: Float[Tensor, "batch *shape"],
    sigma: float,
    sigma_min: float,
    steps: int,
    *,
    solver: Solver = "euler",
    iterations: int = 5,
) -> Float[Tensor, "batch *shape"]:
    """Walk clean x0 up to noise level sigma in so many steps; raises as `karras_sigmas`.

    x0 is taken to lie at sigma_min already, the model's lowest level, above 0: that little noise is
    not added. The walk with `fixed_point` is the one that `decode` with `euler` undoes (Pan et al.
    2023, arXiv 2309.04907); plain `euler` is DDIM inversion.
    """
    levels = karras_sigmas(steps, sigma_min, sigma).flip(0)
    return integrate(denoise, x0, levels, solver, iterations)


def decode(
    denoise: Denoiser,
    x: Float[Tensor, "batch *shape"],
    sigma: float,
    sigma_min: float,
    steps: int,
    *,
    solver: Solver = "euler",
    to_sigma_min: bool = False,
) -> Float[Tensor, "batch *shape"]:
    """Walk x at noise level sigma down to a clean estimate of x_0; raises as `karras_sigmas`.

    Args:
        denoise: the denoiser.
        x: images or latents at noise level sigma.
        sigma: noise level of x, above sigma_min.
        sigma_min: lowest noise level of the model, above 0.
        steps: number of steps from sigma to sigma_min; the step from there to 0 comes on top.
        solver: euler or heun.
        to_sigma_min: stop at sigma_min, where `invert` started: this undoes an inversion.
    """
    levels = karras_sigmas(steps, sigma_min, sigma).tolist()
    return integrate(denoise, x, levels if to_sigma_min else [*levels, 0.0], solver)


def psnr(
    a: Float[Tensor, "batch *shape"], b: Float[Tensor, "batch *shape"]
) -> Float[Tensor, " batch"]:
    """Return the peak signal-to-noise ratio of each pair in dB; images span [-1, 1].

    10 log10(4 / mean squared difference); infinite for equal images.
    """
    error = (a - b).double().square().flatten(1).mean(dim=1)
    return (10 * (4 / error).log10()).to(a.dtype)
