"""Gaussian noise on the images: the cheap rival for robustness to small perturbations.

"A simple way to make neural networks robust against diverse image corruptions", Rusak et al. 2020,
arXiv 2001.06057.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from clarep.distill.methods.base import Batch
from clarep.distill.methods.vanilla import Vanilla
from clarep.engine.bounds import Within


@dataclass(frozen=True)
class NoiseConfig:
    """Options of noise."""

    noise_std: Annotated[float, Within(0, 1, "(]")] = 0.1
    """noise: standard deviation of the noise, of pixels in [0, 1]."""


class Noise(Vanilla):
    """Cross-entropy on images with Gaussian noise, drawn anew each time and cut off at [0, 1]."""

    name, Config = "noise", NoiseConfig
    options: NoiseConfig

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        noise = torch.randn(batch.images.shape, generator=batch.generator).to(batch.images.device)
        noisy = (batch.images + self.options.noise_std * noise).clamp(0, 1)
        return super().terms(replace(batch, images=noisy))


METHODS = (Noise,)
