"""The probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma, walked both ways.

A denoiser D takes x (B, ...) and noise levels (B,) and returns its estimate of the clean
images. Euler steps are DDIM (Song et al. 2021, arXiv 2010.02502) in this parametrisation.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["euler", "heun", "fixed_point"]


def _slope(denoise: Denoiser, x: Tensor, sigma: float) -> Tensor:
    return (x - denoise(x, x.new_full((len(x),), sigma))) / sigma


def trajectory(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float] | Tensor,
    solver: Solver = "euler",
    iterations: int = 5,
) -> Iterator[Tensor]:
    """Yield x at sigmas[1], sigmas[2], ..., starting from x at sigmas[0].

    Args:
        denoise: the denoiser.
        x: (B, ...) at noise level sigmas[0].
        sigmas: falling to decode, rising to invert. The first must be positive; a last 0 is
            reached by an Euler step, which returns the denoiser's estimate.
        solver: `euler` (1 evaluation a step); `heun` (2; second order); `fixed_point`
            (`iterations` + 1; the implicit step that Euler's step in the other direction undoes).
        iterations: of `fixed_point`.
    """
    for sigma, target in pairwise(float(s) for s in sigmas):
        slope = _slope(denoise, x, sigma)
        ahead = x + (target - sigma) * slope
        if solver == "heun" and target > 0:
            slope = (slope + _slope(denoise, ahead, target)) / 2
            ahead = x + (target - sigma) * slope
        elif solver == "fixed_point" and target > 0:
            for _ in range(iterations):
                ahead = x + (target - sigma) * _slope(denoise, ahead, target)
        x = ahead
        yield x


def integrate(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float] | Tensor,
    solver: Solver = "euler",
    iterations: int = 5,
) -> Tensor:
    """Return x at sigmas[-1], starting from x at sigmas[0]; arguments as in `trajectory`."""
    for reached in trajectory(denoise, x, sigmas, solver, iterations):
        x = reached
    return x
