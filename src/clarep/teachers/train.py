"""Train our U-Net teacher: resumable, its randomness a function of seed and step alone."""

import io
import json
import math
import pickle
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.engine.artefacts import atomic_path, write_json
from clarep.errors import UserError
from clarep.teachers.unet import UNet, UNetConfig, sigma_from_t

HISTORY_NAME = "history.jsonl"
RECORD_EVERY = 50
SIGMA_BANDS = ((0.01, 0.1), (0.1, 0.5), (0.5, 2.0), (2.0, 10.0), (10.0, 80.0))


@dataclass(frozen=True)
class TrainConfig:
    """How a teacher is trained."""

    steps: int = 10_000
    """Optimiser steps."""
    batch_size: int = 96
    """Images a step."""
    learning_rate: float = 1e-3
    """Peak rate of Adam; it falls to 0 along a half cosine."""
    warmup_steps: int = 300
    """Steps over which the rate rises linearly to its peak."""
    label_dropout: float = 0.15
    """Share of labels replaced by the null label, for classifier-free guidance."""
    ema_halflife_kimg: float = 15.0
    """Half-life of the weights' moving average, in thousands of images."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    sigma_min: float = 0.01
    """Lowest noise level trained on."""
    sigma_max: float = 80.0
    """Highest noise level trained on."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    evaluate_every: int = 1_000
    """Steps between held-out losses."""
    seed: int = 0
    """Seed of initial weights, batches, labels dropped and noise."""
    unet: UNetConfig = field(
        default_factory=lambda: UNetConfig(widths=(48, 96, 160), encoder_blocks=1, decoder_blocks=1)
    )
    """Shape of the network."""


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
    net: UNet, data: LabelledImages, seed: int = 0, num_images: int = 1_000, batch_size: int = 250
) -> dict[str, float]:
    """Return the mean denoising loss in each of SIGMA_BANDS, labels given, log-uniform sigma."""
    rng = np.random.default_rng(seed)
    indices = rng.permutation(len(data))[:num_images]
    images, labels = to_unit_range(data.images(indices)), torch.from_numpy(data.labels[indices])
    generator = torch.Generator().manual_seed(seed)
    losses = {}
    for low, high in SIGMA_BANDS:
        share = torch.rand(len(images), generator=generator)
        sigma = low * (high / low) ** share
        eps = torch.randn(images.shape, generator=generator)
        parts = zip(
            *(tensor.split(batch_size) for tensor in (images, labels, sigma, eps)), strict=True
        )
        each = torch.cat([denoising_loss(net, *part) for part in parts])
        losses[f"{low:g}-{high:g}"] = round(float(each.mean()), 5)
    return losses


@dataclass
class _State:
    """What a checkpoint holds: step, weights, their average, the optimiser."""

    net: UNet
    ema: UNet
    optimizer: torch.optim.Adam
    step: int = 0

    def save(self, path: Path, config: dict[str, Any]) -> None:
        buffer = io.BytesIO()  # so that a full disk is an OSError, not one of torch's own
        torch.save(
            {
                "step": self.step,
                "net": self.net.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "config": json.dumps(config),
            },
            buffer,
        )
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load(self, path: Path, config: dict[str, Any]) -> None:
        try:
            saved = torch.load(path, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise UserError(
                f"cannot read the checkpoint {path}: delete it to begin anew, or give another --out"
            ) from error
        if json.loads(saved["config"]) != json.loads(json.dumps(config)):
            raise UserError(
                f"{path.parent} holds a teacher of another configuration: "
                "give another --out, or the options it was started with"
            )
        self.net.load_state_dict(saved["net"])
        self.ema.load_state_dict(saved["ema"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = int(saved["step"])


def _learning_rate(config: TrainConfig, step: int) -> float:
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _train_step(state: _State, data: LabelledImages, config: TrainConfig) -> float:
    """Take one step; every random number comes from (seed, step), so a resumed run repeats it."""
    rng = np.random.default_rng([config.seed, state.step])
    indices = rng.integers(len(data), size=config.batch_size)
    x0 = to_unit_range(data.draw(indices, rng))
    labels = torch.from_numpy(data.labels[indices])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    dropped = torch.rand(len(x0), generator=generator) < config.label_dropout
    labels = labels.masked_fill(dropped, config.unet.num_classes)
    t_low, t_high = (2 / math.pi * math.atan(s) for s in (config.sigma_min, config.sigma_max))
    sigma = sigma_from_t(t_low + (t_high - t_low) * torch.rand(len(x0), generator=generator))
    eps = torch.randn(x0.shape, generator=generator)

    for group in state.optimizer.param_groups:
        group["lr"] = _learning_rate(config, state.step)
    loss = denoising_loss(state.net, x0, labels, sigma, eps).mean()
    state.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.net.parameters(), config.clip_norm)
    state.optimizer.step()

    state.step += 1
    # The half-life grows with the run, so that the average forgets the initial weights.
    halflife = min(config.ema_halflife_kimg * 1e3, 0.1 * state.step * config.batch_size)
    decay = 0.5 ** (config.batch_size / halflife)
    with torch.no_grad():
        torch._foreach_lerp_(list(state.ema.parameters()), list(state.net.parameters()), 1 - decay)
    return loss.item()


def _check_shape(unet: UNetConfig) -> None:
    multiple = unet.patch * 2 ** (len(unet.widths) - 1)
    if unet.image_size % multiple:
        raise UserError(
            f"image size {unet.image_size} is not a multiple of {multiple}, which "
            f"{len(unet.widths)} levels need: resize the data (--image-size)"
        )
    if any(width < 1 or width % 8 for width in unet.widths):
        raise UserError(
            f"widths {unet.widths} are not all multiples of 8: change --train.unet.widths"
        )


class TeacherRun:
    """A training run in a folder; made anew, it goes on where the killed one stopped.

    Under `out` it keeps `checkpoint.pt`, `config.json` and `history.jsonl` (a record a line).
    """

    def __init__(
        self, data: LabelledImages, held_out: LabelledImages, config: TrainConfig, out: Path
    ) -> None:
        """Take the folder, and up the run that is in it.

        Raises UserError if `out` holds a run of another configuration or a checkpoint that
        cannot be read, or if the data do not fit the network.
        """
        unet = config.unet
        if len(data.class_names) != unet.num_classes:
            raise UserError(
                f"{data.name} has {len(data.class_names)} classes and the network "
                f"{unet.num_classes}: set --train.unet.num-classes"
            )
        _check_shape(unet)
        self.data, self.held_out, self.config, self.out = data, held_out, config, out
        torch.manual_seed(config.seed)
        net, ema = UNet(unet), UNet(unet).requires_grad_(False)
        ema.load_state_dict(net.state_dict())
        adam = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=True)
        self._state = _State(net, ema, adam)
        self._described = {"data": data.name, "train": asdict(config)}
        if self._checkpoint.exists():
            self._state.load(self._checkpoint, self._described)
        write_json(out / "config.json", self._described)
        _truncate_history(out / HISTORY_NAME, self.step)
        for leftover in out.glob(".*.tmp"):  # of a run that was killed while it saved
            leftover.unlink()

    @property
    def _checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return self._state.step

    @property
    def ema(self) -> UNet:
        """The moving average of the weights: the network to sample from."""
        return self._state.ema

    def records(self) -> Iterator[dict[str, Any]]:
        """Train to the end, yielding what is logged: a record every 50 steps and the last.

        Raises UserError if the loss is not finite.
        """
        config = self.config
        losses: list[float] = []
        started = time.perf_counter()
        while self.step < config.steps:
            losses.append(_train_step(self._state, self.data, config))
            step, last = self.step, self.step == config.steps
            if step % RECORD_EVERY == 0 or last:
                yield self._record(losses, time.perf_counter() - started)
                losses, started = [], time.perf_counter()
            if step % config.checkpoint_every == 0 or last:
                self._state.save(self._checkpoint, self._described)

    def _record(self, losses: list[float], seconds: float) -> dict[str, Any]:
        config, step = self.config, self.step
        record: dict[str, Any] = {
            "step": step,
            "loss": round(float(np.mean(losses)), 5),
            "images_per_s": round(len(losses) * config.batch_size / seconds, 1),
        }
        if not math.isfinite(record["loss"]):
            raise UserError(
                f"the loss is {record['loss']} at step {step}: lower --train.learning-rate"
            )
        if step % config.evaluate_every == 0 or step == config.steps:
            record["held_out"] = held_out_losses(self.ema, self.held_out)
        with open(self.out / HISTORY_NAME, "a") as history:
            history.write(json.dumps(record) + "\n")
        return record


def train_teacher(
    data: LabelledImages, held_out: LabelledImages, config: TrainConfig, out: Path
) -> Iterator[dict[str, Any]]:
    """Train a teacher in the folder `out`, yielding the records of a `TeacherRun`."""
    yield from TeacherRun(data, held_out, config, out).records()


def _truncate_history(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint, so that the resumed curve has no step twice."""
    if not path.exists():
        return
    complete = [line for line in path.read_text().splitlines(True) if line.endswith("\n")]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line for line in complete if json.loads(line)["step"] <= step))
