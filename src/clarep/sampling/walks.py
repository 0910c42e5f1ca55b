"""From a clean image up to noise level sigma, and back down: the two walks of CLARID.

Both use one list of noise levels, so that a walk up can be undone by the walk down.
"""

from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError
from clarep.sampling.ode import Denoiser, Solver, integrate
from clarep.sampling.sigmas import karras_sigmas


def _levels(steps: int, sigma_min: float, sigma: float) -> Tensor:
    """Return the falling list of steps + 1 levels from sigma to sigma_min."""
    if steps < 1:
        raise UserError(f"{steps} steps are too few: give at least 1")
    if not 0 < sigma_min < sigma:
        raise UserError(
            f"sigma {sigma:g} is not above the lowest noise level {sigma_min:g}: "
            "choose a higher one"
        )
    return karras_sigmas(steps, sigma_min, sigma)


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
    """Walk clean x0 up to noise level sigma along the ODE.

    x0 is taken to lie at sigma_min already: that little noise is not added. The walk with
    `fixed_point` is the one that `decode` with `euler` undoes (Pan et al. 2023, arXiv
    2309.04907); plain `euler` is DDIM inversion (Song et al. 2021, arXiv 2010.02502).

    Args:
        denoise: the denoiser.
        x0: clean images or latents.
        sigma: noise level to reach, above sigma_min.
        sigma_min: lowest noise level of the model, above 0.
        steps: number of steps.
        solver: euler, heun or fixed_point.
        iterations: of fixed_point.

    Raises:
        UserError: if sigma does not exceed sigma_min, or steps is below 1.
    """
    levels = _levels(steps, sigma_min, sigma).flip(0)
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
    """Walk x at noise level sigma down to a clean estimate of x_0.

    Args:
        denoise: the denoiser.
        x: images or latents at noise level sigma.
        sigma: noise level of x, above sigma_min.
        sigma_min: lowest noise level of the model, above 0.
        steps: number of steps from sigma to sigma_min; the step from there to 0 comes on top.
        solver: euler or heun.
        to_sigma_min: stop at sigma_min, where `invert` started: this undoes an inversion.

    Raises:
        UserError: if sigma does not exceed sigma_min, or steps is below 1.
    """
    levels = _levels(steps, sigma_min, sigma).tolist()
    return integrate(denoise, x, levels if to_sigma_min else [*levels, 0.0], solver)


def psnr(
    a: Float[Tensor, "batch *shape"], b: Float[Tensor, "batch *shape"]
) -> Float[Tensor, " batch"]:
    """Return the peak signal-to-noise ratio of each pair in dB; images span [-1, 1].

    10 log10(4 / mean squared difference); infinite for equal images.
    """
    error = (a - b).double().square().flatten(1).mean(dim=1)
    return (10 * (4 / error).log10()).to(a.dtype)
