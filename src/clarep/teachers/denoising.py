"""What a teacher is trained on, step by step; the loss, there and on images held out."""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, pairwise

import numpy as np
import torch
from torch import Tensor

from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.teachers.teacher_config import TrainConfig
from clarep.teachers.unet import UNet, sigma_from_t

_BAND_EDGES = (0.1, 0.5, 2.0, 10.0)
_AHEAD = 8  # batches that threads draw while a GPU, which is quicker, works on one

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""uint8 images (B, C, H, W), labels (B,), some of them the null label, noise levels (B,), noise."""


def batches(
    data: LabelledImages,
    config: TrainConfig,
    null_label: int,
    start: int,
    device: torch.device,
    *,
    rows: slice = slice(None),
) -> Iterator[Batch]:
    """Yield the batches of the steps from `start` to the last, on the device.

    Each is a function of seed and step alone, drawn on the CPU. For a GPU threads draw some ahead.
    rows: of each batch, those that are read and yielded.
    """
    draw = partial(_draw_batch, data, config, null_label, rows)
    steps = iter(range(start, config.steps))
    if device.type == "cpu":
        yield from map(draw, steps)
        return
    with ThreadPoolExecutor(_AHEAD) as pool:
        drawn = deque(pool.submit(draw, step) for step in islice(steps, _AHEAD))
        while drawn:
            images, labels, sigma, eps = (part.to(device) for part in drawn.popleft().result())
            drawn.extend(pool.submit(draw, step) for step in islice(steps, 1))
            yield images, labels, sigma, eps


def _draw_batch(
    data: LabelledImages, config: TrainConfig, null_label: int, rows: slice, step: int
) -> Batch:
    rng = np.random.default_rng([config.seed, step])
    count = config.batch_size
    indices = rng.integers(len(data), size=count)
    images = data.draw(indices, rng, rows)
    labels = torch.from_numpy(data.labels[indices])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    dropped = torch.rand(count, generator=generator) < config.label_dropout
    labels = labels.masked_fill(dropped, null_label)
    t_low, t_high = (2 / math.pi * math.atan(s) for s in (config.sigma_min, config.sigma_max))
    sigma = sigma_from_t(t_low + (t_high - t_low) * torch.rand(count, generator=generator))
    eps = torch.randn((count, *images.shape[1:]), generator=generator)
    return images, labels[rows], sigma[rows], eps[rows]


def denoising_loss(net: UNet, images: Tensor, labels: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
    """Return EDM's weighted denoising loss of each image, (B,); about 1 for a network of zeros.

    Karras et al. 2022 (arXiv 2206.00364), Table 1: weight (sigma^2 + s^2) / (sigma s)^2 on the
    squared error, s the standard deviation of the data. The rest is a Batch.
    """
    x0 = to_unit_range(images)
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
    images, labels = data.images(indices), torch.from_numpy(data.labels[indices])
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
