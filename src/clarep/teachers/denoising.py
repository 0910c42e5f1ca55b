"""The loss that a teacher is trained with, and what it is on images held out."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.teachers.unet import UNet

_BAND_EDGES = (0.1, 0.5, 2.0, 10.0)


def denoising_loss(net: UNet, x0: Tensor, labels: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
    """Return EDM's weighted denoising loss of each image, (B,); about 1 for a network of zeros.

    Karras et al. 2022 (arXiv 2206.00364), Table 1: weight (sigma^2 + s^2) / (sigma s)^2 on the
    squared error, s the standard deviation of the data. x0 and eps are (B, C, H, W).
    """
    s = net.config.sigma_data
    weight = (sigma**2 + s**2) / (sigma * s) ** 2
    denoised: Tensor = net(x0 + sigma[:, None, None, None] * eps, sigma, labels)
    return weight * (denoised - x0).square().mean(dim=(1, 2, 3))


@torch.no_grad()
def held_out_losses(
    net: UNet,
    data: LabelledImages,
    sigma_min: float,
    sigma_max: float,
    *,
    seed: int = 0,
    num_images: int = 1_000,
    batch_size: int = 250,
) -> dict[str, float]:
    """Return the mean denoising loss in each band of sigma, labels given, log-uniform sigma.

    The bands divide the trained range [sigma_min, sigma_max] at 0.1, 0.5, 2 and 10, as far as
    these lie inside it. Keys are "LOW-HIGH".
    """
    rng = np.random.default_rng(seed)
    indices = rng.permutation(len(data))[:num_images]
    images, labels = to_unit_range(data.images(indices)), torch.from_numpy(data.labels[indices])
    generator = torch.Generator().manual_seed(seed)
    losses = {}
    edges = (sigma_min, *(e for e in _BAND_EDGES if sigma_min < e < sigma_max), sigma_max)
    for low, high in pairwise(edges):
        share = torch.rand(len(images), generator=generator)
        sigma = low * (high / low) ** share
        eps = torch.randn(images.shape, generator=generator)
        parts = zip(
            *(tensor.split(batch_size) for tensor in (images, labels, sigma, eps)), strict=True
        )
        device = next(net.parameters()).device
        each = torch.cat([denoising_loss(net, *(p.to(device) for p in part)) for part in parts])
        losses[f"{low:g}-{high:g}"] = round(float(each.mean()), 5)
    return losses
