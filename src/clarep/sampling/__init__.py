"""Lists of noise levels, and the sampling ODE walked down (decode) and up (invert)."""

from clarep.sampling.ode import Denoiser, Solver, integrate, trajectory
from clarep.sampling.sigmas import ddim_sigmas, karras_sigmas
from clarep.sampling.walks import decode, invert, psnr

__all__ = [
    "Denoiser",
    "Solver",
    "ddim_sigmas",
    "decode",
    "integrate",
    "invert",
    "karras_sigmas",
    "psnr",
    "trajectory",
]
