"""Train our U-Net teacher: resumable, its randomness a function of seed and step alone."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clarep.data.fits import check_alike, kind_of
from clarep.data.labelled import LabelledImages
from clarep.engine.identity import in_full
from clarep.engine.training_folder import TrainingFolder
from clarep.errors import UserError
from clarep.teachers.batches import NoisyBatch, batches
from clarep.teachers.denoising import denoising_loss, held_out_losses
from clarep.teachers.options import check_device
from clarep.teachers.teacher_config import TrainConfig, check_train, unet_for
from clarep.teachers.unet import UNet

RECORD_EVERY = 50


@dataclass
class _State:
    """What a checkpoint holds: step, weights, their average, the optimiser, what was logged."""

    net: UNet
    ema: UNet
    optimizer: torch.optim.Adam
    step: int = 0
    losses: list[float] = field(default_factory=list)  # of the steps since the last record
    history: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "history": self.history,
        }

    def load(self, saved: dict[str, Any]) -> None:
        self.net.load_state_dict(saved["net"])
        self.ema.load_state_dict(saved["ema"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.losses, self.history = saved["step"], saved["losses"], saved["history"]


def _learning_rate(config: TrainConfig, step: int) -> float:
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _train_step(state: _State, batch: NoisyBatch, config: TrainConfig) -> float:
    """Take one step.

    Raises UserError, before any weight changes, if the loss or its gradient is not finite.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = _learning_rate(config, state.step)
    loss = denoising_loss(state.net, batch.x0, batch.labels, batch.sigma, batch.eps).mean()
    state.optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.net.parameters(), config.clip_norm)
    _require_finite(loss.item(), float(norm), state.step + 1)
    state.optimizer.step()

    state.step += 1
    # The half-life grows with the run, so that the average forgets the initial weights.
    halflife = min(config.ema_halflife_kimg * 1e3, 0.1 * state.step * config.batch_size)
    decay = 0.5 ** (config.batch_size / halflife)
    with torch.no_grad():
        torch._foreach_lerp_(list(state.ema.parameters()), list(state.net.parameters()), 1 - decay)
    return loss.item()


def _require_finite(loss: float, norm: float, step: int) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"the loss is {loss} and its gradient's norm {norm} at step {step}: "
            "lower `learning_rate` and give another `out`"
        )


def is_due(step: int, every: int) -> bool:
    """Say whether a multiple of `every` lies in the steps that the record at `step` covers."""
    recorded_before = (step - 1) // RECORD_EVERY * RECORD_EVERY
    return step // every > recorded_before // every


class TeacherRun:
    """A training run in a folder; made anew, it goes on where the killed one stopped.

    Under `out` it keeps `checkpoint.pt`, `config.json` and `history.jsonl` (a record a line).
    """

    def __init__(
        self,
        data: LabelledImages,
        held_out: LabelledImages,
        config: TrainConfig,
        out: Path,
        device: str = "cpu",
        *,
        data_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the folder, and up the run that is in it, whatever device it ran on before.

        data_options: how the data were read, where their name does not tell it: JSON values,
        stored in `config.json`, and the same whenever the run goes on.

        Raises UserError, before anything is written, for a setting that cannot be trained with,
        data that do not fit the network or each other, and if `out` holds a run of another
        configuration, a checkpoint that cannot be read, or files that are not a run's, or if
        another process writes there.
        """
        check_train(config)
        self._device = check_device(device)
        unet = unet_for(data, config.unet)
        check_alike(f"{data.name}'s", kind_of(data), held_out.name, kind_of(held_out))
        self.data, self.held_out = data, held_out
        self.config = replace(config, unet=unet)
        options = {} if data_options is None else {"data_options": dict(data_options)}
        described = {
            "data": data.name,
            **options,
            "data_sha256": data.sha256(),
            "held_out_sha256": held_out.sha256(),
            "train": asdict(self.config),
        }
        torch.manual_seed(config.seed)
        net, ema = UNet(unet), UNet(unet).requires_grad_(False)
        ema.load_state_dict(net.state_dict())
        net, ema = net.to(self._device), ema.to(self._device)
        net = net.to(memory_format=torch.channels_last)  # a sixth more images a second on a CPU
        adam = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=True)
        self._state = _State(net, ema, adam)
        self._folder = TrainingFolder(out, described, _whole)
        if self._folder.saved is not None:
            self._state.load(self._folder.saved)
        self._folder.start(data.noted(), self._state.history)

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

        Raises UserError if the loss or its gradient is not finite; the last checkpoint is whole.
        """
        config, state = self.config, self._state
        started, before = time.perf_counter(), self.step
        null_label = state.net.config.num_classes
        for batch in batches(self.data, config, null_label, self.step, self._device):
            state.losses.append(_train_step(state, batch, config))
            step, last = self.step, self.step == config.steps
            if step % RECORD_EVERY == 0 or last:
                record = self._record((step - before) / (time.perf_counter() - started))
                state.losses = []
                yield record
                started, before = time.perf_counter(), step
            if step % config.checkpoint_every == 0 or last:
                self._folder.save(state.as_dict())

    def _record(self, steps_per_s: float) -> dict[str, Any]:
        config, step = self.config, self.step
        record: dict[str, Any] = {
            "step": step,
            "loss": round(float(np.mean(self._state.losses)), 5),
            "images_per_s": round(steps_per_s * config.batch_size, 1),
        }
        if is_due(step, config.evaluate_every) or step == config.steps:
            record["held_out"] = held_out_losses(
                self.ema, self.held_out, config.sigma_min, config.sigma_max
            )
        self._state.history.append(record)
        self._folder.append(record)
        return record


def _whole(described: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the defaults of options that came after it was written."""
    return described | {"train": in_full(TrainConfig, described["train"])}
