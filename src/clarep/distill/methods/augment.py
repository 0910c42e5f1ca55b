"""AugMix: mixtures of augmentation chains, and answers that must agree on them.

"AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", Hendrycks et al.
2020, arXiv 1912.02781. Images are float (B, C, H, W) in [0, 1]. The operations and their ranges
at severity 1 to 10 are the paper's; those that ImageNet-C holds (contrast, colour, brightness,
sharpness) are left out there and here.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clarep.distill.methods.base import Batch, Method
from clarep.engine.bounds import Within

_CHAINS = 3
_DEPTH = 3
_OPERATIONS = 9  # 4 on values, 5 on places


@dataclass(frozen=True)
class AugmentConfig:
    """Options of augment."""

    augmix_severity: Annotated[float, Within(0, 10, "(]")] = 3.0
    """augment: strength of each operation, above 0 up to 10."""
    augmix_weight: Annotated[float, Within(0)] = 12.0
    """augment: weight of the consistency term."""


class Augment(Method):
    """CE + weight * Jensen-Shannon divergence of the answers on an image and two views of it."""

    name, Config = "augment", AugmentConfig
    options: AugmentConfig

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        severity, weight = self.options.augmix_severity, self.options.augmix_weight
        views = [augmix(batch.images, severity, batch.generator) for _ in range(2)]
        logits = self.both(torch.cat([batch.images, *views]))[1].chunk(3)
        return {
            "ce": self.cross_entropy(logits[0], batch.labels),
            "consistency": weight * jensen_shannon(torch.stack(logits)),
        }


METHODS = (Augment,)


def jensen_shannon(logits: Float[Tensor, "views batch classes"]) -> Float[Tensor, ""]:
    """Return the mean KL of each view's probabilities to their average over views, in nats."""
    log_p = F.log_softmax(logits, dim=2)
    log_mean = log_p.logsumexp(0) - math.log(len(logits))
    return (log_p.exp() * (log_p - log_mean)).sum(2).mean()


def augmix(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Return a view of each image: three chains of one to three operations, mixed at random.

    Chains are mixed with Dirichlet(1, 1, 1) weights, and their mixture with the image itself
    with a Beta(1, 1) one. The generator is the CPU's.
    """
    batch, device = len(images), images.device
    chains = images.repeat(_CHAINS, 1, 1, 1)  # (3 B, C, H, W)
    depth = torch.randint(1, _DEPTH + 1, (len(chains), 1, 1, 1), generator=generator)
    for i in range(_DEPTH):
        changed = apply_operations(
            chains,
            torch.randint(_OPERATIONS, (len(chains),), generator=generator).to(device),
            _levels(len(chains), severity, generator).to(device),
        )
        chains = torch.where((depth > i).to(device), changed, chains)
    weights = -torch.rand(_CHAINS, batch, generator=generator).clamp(min=1e-30).log()
    weights = (weights / weights.sum(0)).to(device)[:, :, None, None, None]
    mixture = (weights * chains.unflatten(0, (_CHAINS, batch))).sum(0)
    kept = torch.rand(batch, 1, 1, 1, generator=generator).to(device)
    mixed: Tensor = kept * images + (1 - kept) * mixture
    return mixed


def _levels(count: int, severity: float, generator: torch.Generator) -> Tensor:
    """Return signed strengths as shares of the largest, uniform from 0.1 to severity of 10."""
    low = min(0.1, severity)
    sizes = low + (severity - low) * torch.rand(count, generator=generator)
    signs = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    return sizes * signs / 10


def apply_operations(images: Tensor, which: Tensor, levels: Tensor) -> Tensor:
    """Apply to each image one operation, (B,) in 0 to 8, at a signed strength in [-1, 1].

    0 auto-contrast, 1 equalise, 2 posterise, 3 solarise, 4 rotate, 5 and 6 shear, 7 and 8
    translate along x and y.
    """
    out = images.clone()
    for number, operation in enumerate((auto_contrast, equalise, posterise, solarise)):
        rows = torch.nonzero(which == number).squeeze(1)
        if len(rows):
            out[rows] = operation(images[rows], levels[rows].abs())
    rows = torch.nonzero(which > 3).squeeze(1)
    if len(rows):
        out[rows] = _move(images[rows], which[rows], levels[rows])
    return out


def auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]; a channel of one value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-12), images)


def equalise(images: Tensor, _: Tensor) -> Tensor:
    """Flatten each channel's histogram of 256 values; Pillow's rule."""
    values = (images * 255).round().long().flatten(2)  # (B, C, H W)
    histogram = torch.zeros(*values.shape[:2], 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    last = histogram.gather(2, values.amax(2, keepdim=True))  # of the highest value present
    step = (values.shape[2] - last).div(255, rounding_mode="floor")  # (B, C, 1)
    before = histogram.cumsum(2) - histogram
    table = (before + step.div(2, rounding_mode="floor")) // step.clamp(min=1)
    mapped = table.clamp(max=255).gather(2, values)
    return torch.where(step > 0, mapped, values).view_as(images).to(images.dtype) / 255


def posterise(images: Tensor, levels: Tensor) -> Tensor:
    """Keep the four highest bits of each value, or fewer."""
    bits = 4 - (levels * 4).floor()
    size = (2.0 ** (8 - bits))[:, None, None, None]
    return (images * 255).round().div(size).floor() * size / 255


def solarise(images: Tensor, levels: Tensor) -> Tensor:
    """Invert what is at least as bright as a threshold that falls with the strength."""
    threshold = (1 - levels)[:, None, None, None]
    return torch.where(images >= threshold, 1 - images, images)


def _move(images: Tensor, which: Tensor, levels: Tensor) -> Tensor:
    """Rotate by up to 30 degrees, shear by up to 0.3, translate by up to a third; black enters."""
    theta = images.new_zeros(len(images), 2, 3)
    angle = torch.where(which == 4, levels * math.pi / 6, 0.0)
    theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
    theta[:, 0, 1] = torch.where(which == 5, 0.3 * levels, -angle.sin())
    theta[:, 1, 0] = torch.where(which == 6, 0.3 * levels, angle.sin())
    # affine_grid's unit is half a side.
    theta[:, 0, 2] = torch.where(which == 7, 2 / 3 * levels, 0.0)
    theta[:, 1, 2] = torch.where(which == 8, 2 / 3 * levels, 0.0)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
