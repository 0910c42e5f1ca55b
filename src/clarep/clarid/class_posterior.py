"""A teacher's own posterior over classes, of a latent at any noise level.

A latent at noise level sigma is a sample of the smoothed density p(x | c): images of class c and
noise. With more noise, y = x + s eps, its posterior mean is x^ = y + w (D(y; c) - y),
w = s^2 / (sigma^2 + s^2), and by the I-MMSE relation (Guo, Shamai & Verdu 2005, IEEE Trans. Inf.
Theory 51) -log p(x | c) is, up to a constant of x, the integral of E|x^ - x|^2 / s^2 over log s.
At sigma = 0 that is the diffusion classifier (Li et al. 2023, arXiv 2303.16203).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.diffusion_classifier import drawn_errors
from clarep.clarid.noise_draws import EVIDENCE, noise_of
from clarep.teachers.teacher import Teacher

_SCALE = 1.0  # about the standard deviation of a class's latents: where the classes differ most


@dataclass(frozen=True)
class ClassPosterior:
    """What a teacher says of the first label tried with each latent."""

    nats: Float64[Tensor, " batch"]
    """log p(label | x) - log(1 / labels), all labels tried equally likely beforehand."""
    right: Bool[Tensor, " batch"]
    """Whether the label is likelier than every other; False where the label changes nothing."""
    denoiser_evaluations: int
    """What it cost: passes of one image through the network."""


def class_posterior(
    teacher: Teacher,
    latents: Float[Tensor, "batch c h w"],
    labels: Int64[Tensor, "batch labels"],
    sigma: float,
    indices: NDArray[np.int64],
    *,
    levels: int,
    seed: int = 0,
    batch_size: int = 25,
) -> ClassPosterior:
    """Return the posterior of each latent's first label among its labels, at noise level sigma.

    The integral over log s is taken in w = s^2 / (a^2 + s^2), a^2 = sigma^2 + 1, in equal steps:
    where a class is one Gaussian of that scale, what is integrated is the same at all w. It ends at
    sigma_max, from where the teacher starts alike for all classes. Every noise is taken with both
    signs, which cancels the part that is linear in it. All labels share it.

    Args:
        teacher: with or without a null class.
        latents: at sigma.
        labels: those to try with each latent, classes of the teacher.
        sigma: noise level of the latents; 0 of clean ones.
        indices: of the images: with seed and level they tell the noise.
        levels: at how many w, two denoiser evaluations of each label.
        seed: of the noise.
        batch_size: images that go through the teacher at once.

    Raises:
        UserError: if an estimate of the teacher is not finite.
    """
    scale = sigma**2 + _SCALE**2
    added = [max(0.0, end**2 - sigma**2) for end in (teacher.sigma_min, teacher.sigma_max)]
    low, high = (s2 / (scale + s2) for s2 in added)
    w = low + (high - low) * (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    if high == low:  # at sigma_max already: every class starts from there alike
        w = w[:0]

    def both_signs(level: int, draw: int) -> Tensor:
        eps = noise_of(indices, teacher.latent_shape, seed=seed, purpose=EVIDENCE, level=level)
        return -eps if draw else eps

    errors = drawn_errors(
        teacher,
        latents,
        labels,
        (scale * w / (1 - w)).sqrt().tolist(),  # s
        both_signs,
        draws=2,
        batch_size=batch_size,
        sigma_held=sigma,
    )
    # d log s = dw / (2 w (1 - w)), and s^2 = scale w / (1 - w).
    weights = (high - low) / levels / (2 * scale * w**2)
    against = (errors.mean(1) * weights[:, None, None]).sum(0)
    over_own = against[:, :1] - against  # log p(x | label) - log p(x | own): exactly 0 for the own
    top = over_own.amax(1)
    nats = -(top + (over_own - top[:, None]).exp().mean(1).log())
    right = (over_own[:, 1:] < 0).all(1)
    return ClassPosterior(nats, right, errors.numel())
