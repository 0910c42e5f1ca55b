"""The batches that a teacher is trained on: each a function of seed and step alone."""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.teachers.teacher_config import TrainConfig
from clarep.teachers.unet import sigma_from_t

_AHEAD = 8  # batches that threads draw while a GPU, which is quicker, works on one


@dataclass(frozen=True)
class NoisyBatch:
    """What one step trains on."""

    images: Tensor
    """uint8, (B, C, H, W)."""
    labels: Tensor
    """(B,), some of them the null label."""
    sigma: Tensor
    """Noise levels, (B,)."""
    eps: Tensor
    """Standard normal noise, (B, C, H, W)."""

    def to(self, device: torch.device) -> "NoisyBatch":
        """Return it on a device."""
        parts = (self.images, self.labels, self.sigma, self.eps)
        return NoisyBatch(*(part.to(device) for part in parts))

    @property
    def x0(self) -> Tensor:
        """The images in [-1, 1]."""
        return to_unit_range(self.images)


def draw_batch(data: LabelledImages, config: TrainConfig, null_label: int, step: int) -> NoisyBatch:
    """Draw the batch of a step, on the CPU whatever the device, so that it is the same there."""
    rng = np.random.default_rng([config.seed, step])
    indices = rng.integers(len(data), size=config.batch_size)
    images = data.draw(indices, rng)
    labels = torch.from_numpy(data.labels[indices])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    dropped = torch.rand(len(images), generator=generator) < config.label_dropout
    labels = labels.masked_fill(dropped, null_label)
    t_low, t_high = (2 / math.pi * math.atan(s) for s in (config.sigma_min, config.sigma_max))
    sigma = sigma_from_t(t_low + (t_high - t_low) * torch.rand(len(images), generator=generator))
    eps = torch.randn(images.shape, generator=generator)
    return NoisyBatch(images, labels, sigma, eps)


def batches(
    data: LabelledImages, config: TrainConfig, null_label: int, start: int, device: torch.device
) -> Iterator[NoisyBatch]:
    """Yield the batches of the steps from `start` to the last, on the device.

    For a GPU threads draw some ahead, in the same order.
    """
    draw = partial(draw_batch, data, config, null_label)
    steps = iter(range(start, config.steps))
    if device.type == "cpu":
        yield from map(draw, steps)
        return
    with ThreadPoolExecutor(_AHEAD) as pool:
        drawn = deque(pool.submit(draw, step) for step in islice(steps, _AHEAD))
        while drawn:
            batch = drawn.popleft().result()
            drawn.extend(pool.submit(draw, step) for step in islice(steps, 1))
            yield batch.to(device)
