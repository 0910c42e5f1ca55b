"""Train the judge.

It measures samples, so it must not lean on backdrops: it is trained on garments before
photographs, plain colours and everything between, sharp and blurred, clean and noisy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clarep.data.backdrops import Backdrops, load_backdrops
from clarep.data.garments import garment_arrays
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.engine.bounds import Seed, Within, check_bounds
from clarep.errors import UserError
from clarep.teachers.judge import Judge

TEST_VARIANTS = ("original", "only_fg", "mixed_rand")


@dataclass(frozen=True)
class JudgeConfig:
    """How the judge is trained."""

    steps: Annotated[int, Within(1)] = 4_500
    """Optimiser steps."""
    batch_size: Annotated[int, Within(2)] = 128
    """Images a step."""
    learning_rate: Annotated[float, Within(0, ends="(]")] = 4e-3
    """Peak rate of AdamW's one cycle."""
    weight_decay: Annotated[float, Within(0, 1, "[)")] = 0.02
    """Of AdamW."""
    label_smoothing: Annotated[float, Within(0, 1, "[)")] = 0.05
    """Share of each target that is spread over all classes."""
    seed: Seed = 0
    """Seed of initial weights, batches, composition and augmentation."""


def unseen_by_teacher(garments_path: Path) -> NDArray[np.int64]:
    """Return the indices of training garments in an archive that the embedded subset lacks.

    Images are matched by their bytes. Raises UserError if the file is no garment archive.
    """
    embedded = {garment.tobytes() for garment in garment_arrays("train")[0]}
    garments, _ = garment_arrays("train", str(garments_path))
    kept = [i for i, garment in enumerate(garments) if garment.tobytes() not in embedded]
    return np.array(kept, dtype=np.int64)


def train_judge(
    judge: Judge, garments_path: Path, config: JudgeConfig
) -> Iterator[dict[str, float]]:
    """Train a freshly made judge in place, yielding a record every 50 steps.

    garments_path: the whole Fashion-MNIST archive. What the teacher saw is left out.
    Raises UserError if less than a batch is left, or for a setting that cannot be trained with.
    """
    check_bounds(config)
    usable = unseen_by_teacher(garments_path)
    if len(usable) < config.batch_size:
        raise UserError(
            f"{garments_path} holds {len(usable)} garments that the teacher has not seen: "
            "give the whole Fashion-MNIST archive"
        )
    judge.train()
    judge.to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(judge.parameters(), weight_decay=config.weight_decay, fused=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, config.learning_rate, config.steps)
    rng = np.random.default_rng(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    losses = []
    for step in range(1, config.steps + 1):
        indices = rng.choice(usable, size=config.batch_size, replace=False)
        seed = (config.seed + step) % 2**32
        composed = load_backdrops("train", seed, garments_path=str(garments_path))
        x = _augmented(composed, indices, generator)
        labels = torch.from_numpy(composed.labels[indices])
        logits = judge(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        adam.zero_grad()
        loss.backward()
        adam.step()
        cycle.step()
        losses.append(loss.item())
        if step % 50 == 0 or step == config.steps:
            yield {"step": step, "loss": round(float(np.mean(losses)), 4)}
            losses = []
    judge.eval().to(memory_format=torch.contiguous_format)


def _augmented(
    data: Backdrops, indices: NDArray[np.int64], generator: torch.Generator
) -> Float[Tensor, "batch 3 32 32"]:
    """Compose garments before all kinds of backgrounds, then disturb the whole image."""
    composed = [data.composition(int(i)) for i in indices]
    stack = torch.from_numpy(np.stack([c.image for c in composed])).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([c.mask for c in composed]))[:, None]  # (B, 1, 32, 32)
    images = to_unit_range(stack.contiguous())
    images = torch.where(masks, images, _weaken_backdrop(images, generator))
    return _disturb(images, generator)


def _uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, 1, 1, generator=generator)


def _weaken_backdrop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blend images with a plain colour: 60 % not at all, 20 % in part, 20 % wholly."""
    batch = len(images)
    kind = torch.rand(batch, 1, 1, 1, generator=generator)
    kept = torch.where(kind < 0.2, _uniform(0.0, 1.0, batch, 1, generator=generator), 1.0)
    kept = torch.where(kind > 0.8, 0.0, kept)
    colour = _uniform(-1.0, 1.0, batch, 3, generator=generator)
    grey = colour[:, :1].expand_as(colour)
    which = torch.rand(batch, 1, 1, 1, generator=generator)
    colour = torch.where(which < 0.45, grey, colour)
    colour = torch.where(which > 0.8, -1.0, colour)
    return kept * images + (1 - kept) * colour


def _disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift and zoom a little; change colour and contrast, blur and add noise to some."""
    batch = len(images)
    some = torch.rand(4, batch, 1, 1, 1, generator=generator) < 0.3  # which image gets what
    theta = torch.zeros(batch, 2, 3)
    theta[:, [0, 1], [0, 1]] = _uniform(0.9, 1.1, batch, 1, generator=generator).flatten(1)
    theta[:, :, 2] = _uniform(-0.1, 0.1, batch, 2, generator=generator).flatten(1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    images = torch.where(some[0], moved, images)
    gain = _uniform(0.4, 1.1, batch, 1, generator=generator)
    gain = gain * _uniform(0.85, 1.15, batch, 3, generator=generator)
    shift = _uniform(-0.3, 0.3, batch, 1, generator=generator)
    images = torch.where(some[1], gain * images + shift, images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = _uniform(0.0, 1.0, batch, 1, generator=generator)
    images = torch.where(some[2], images.lerp(blurred, blur.expand_as(images)), images)
    noise = torch.randn(images.shape, generator=generator)
    noise = noise * _uniform(0.0, 0.25, batch, 1, generator=generator)
    return torch.where(some[3], images + noise, images).clamp(-1, 1)


@torch.no_grad()
def judge_accuracy(judge: Judge, data: LabelledImages, batch_size: int = 250) -> float:
    """Return the share of all images of `data` that the judge names rightly."""
    right = 0
    for indices in np.array_split(np.arange(len(data)), max(1, len(data) // batch_size)):
        logits = judge(to_unit_range(data.images(indices)))
        right += int((logits.argmax(1).numpy() == data.labels[indices]).sum())
    return right / len(data)


def accuracy_by_variant(judge: Judge) -> dict[str, float]:
    """Return the accuracy on the 1,000 embedded test garments in each of TEST_VARIANTS."""
    return {
        variant: judge_accuracy(judge, load_backdrops("test", variant=variant))
        for variant in TEST_VARIANTS
    }
