"""Train our U-Net teacher: resumable, its randomness a function of seed and step alone."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clarep.data.fits import check_alike, kind_of
from clarep.data.labelled import LabelledImages
from clarep.engine.devices import Device, check_device
from clarep.engine.processes import average_gradients, launched_processes, make_accelerator, rows_of
from clarep.engine.tracker import Draw, Tracker, curves
from clarep.engine.training_folder import TrainingFolder
from clarep.errors import UserError
from clarep.teachers.denoising import Batch, batches, denoising_loss, held_out_losses
from clarep.teachers.teacher_config import TrainConfig, check_train, unet_for
from clarep.teachers.unet import UNet

RECORD_EVERY = 50


def is_due(step: int, every: int) -> bool:
    """Say whether a multiple of `every` lies in the steps that the record at `step` covers."""
    recorded_before = (step - 1) // RECORD_EVERY * RECORD_EVERY
    return step // every > recorded_before // every


class TeacherRun:
    """A training run in a folder; made anew, it goes on where the killed one stopped.

    Under `out` it keeps `checkpoint.pt`, `config.json` and `history.jsonl` (a record a line).
    Under `accelerate launch` or torchrun every process makes the same run, takes its share of each
    batch, and the main one writes.
    """

    net: UNet
    """The network as it is trained."""
    ema: UNet
    """The moving average of its weights: the network to sample from."""
    step: int
    """Steps taken so far."""

    def __init__(
        self,
        data: LabelledImages,
        held_out: LabelledImages,
        config: TrainConfig,
        out: Path,
        device: Device = "cpu",
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
        alone_on = check_device(device) if launched_processes() == 1 else None
        self._accelerator = make_accelerator("no", alone_on)
        self._device = self._accelerator.device
        if config.batch_size < self._accelerator.num_processes:
            raise UserError(
                f"`batch_size={config.batch_size}` leaves some of "
                f"{self._accelerator.num_processes} processes without an image: raise it"
            )
        unet = unet_for(data, config.unet)
        check_alike(f"{data.name}'s", kind_of(data), held_out.name, kind_of(held_out))
        self.data, self.held_out = data, held_out
        self.config = replace(config, unet=unet)
        options = {} if data_options is None else {"data_options": dict(data_options)}
        self.out = out
        self.described = {
            "data": data.name,
            **options,
            "data_sha256": data.sha256(),
            "held_out_sha256": held_out.sha256(),
            "train": asdict(self.config),
        }
        torch.manual_seed(config.seed)
        net, self.ema = UNet(unet), UNet(unet).requires_grad_(False)
        self.ema.load_state_dict(net.state_dict())
        self.ema = self.ema.to(self._device)
        # Channels last: a sixth more images a second on a CPU.
        self.net = net.to(self._device).to(memory_format=torch.channels_last)
        self._adam = torch.optim.Adam(self.net.parameters(), betas=(0.9, 0.99), fused=True)
        self._stored: dict[str, Any] = {"net": self.net, "ema": self.ema, "optimizer": self._adam}
        self.step = 0
        self._losses: list[float] = []  # of the steps since the last record
        self._history: list[dict[str, Any]] = []
        self._folder = TrainingFolder(out, self.described, writes=self.is_main)
        if (saved := self._folder.saved) is not None:
            for name, part in self._stored.items():
                part.load_state_dict(saved[name])
            self.step, self._losses = saved["step"], saved["losses"]
            self._history = saved["history"]
        self._accelerator.wait_for_everyone()  # before there is a folder that others take for old
        if self.is_main:
            self._folder.start(data.noted(), self._history)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self._accelerator.is_main_process)

    def records(self, tracker: Tracker | None = None) -> Iterator[dict[str, Any]]:
        """Train to the end, yielding what is logged: a record every 50 steps and the last.

        tracker: of curves; None is TensorBoard where it is installed, in `tensorboard/`.
        Raises UserError if the loss or its gradient is not finite; the last checkpoint is whole.
        """
        is_drawn = self.is_main and self.step < self.config.steps
        tracker = tracker if is_drawn else "none"
        with curves(self.out, self.step, tracker, self.described, unit="step") as draw:
            yield from self._walk(draw)

    def _walk(self, draw: Draw) -> Iterator[dict[str, Any]]:
        config = self.config
        started, before = time.perf_counter(), self.step
        null_label, accelerator = self.net.config.num_classes, self._accelerator
        rank, processes = accelerator.process_index, accelerator.num_processes
        rows = rows_of(rank, processes, config.batch_size)
        for batch in batches(self.data, config, null_label, self.step, self._device, rows=rows):
            self._losses.append(self._train_step(batch))
            last = self.step == config.steps
            if self.step % RECORD_EVERY == 0 or last:
                record = self._record((self.step - before) / (time.perf_counter() - started))
                self._losses = []
                draw(record)
                yield record
                started, before = time.perf_counter(), self.step
            if self.is_main and (self.step % config.checkpoint_every == 0 or last):
                state = {name: part.state_dict() for name, part in self._stored.items()}
                logged = {"losses": self._losses, "history": self._history}
                self._folder.save({"step": self.step, **state, **logged})
        accelerator.wait_for_everyone()

    def _train_step(self, batch: Batch) -> float:
        """Take one step and return its loss.

        Raises UserError, before any weight changes, if the loss or its gradient is not finite.
        """
        config = self.config
        warmup = min(1.0, (self.step + 1) / max(1, config.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / config.steps))
        for group in self._adam.param_groups:
            group["lr"] = config.learning_rate * warmup * cosine
        accelerator, parameters = self._accelerator, list(self.net.parameters())
        each = denoising_loss(self.net, *batch)  # of this process's images
        share = each.mean() * (len(each) * accelerator.num_processes / config.batch_size)
        self._adam.zero_grad()
        share.backward()
        average_gradients(accelerator, parameters)
        loss = float(accelerator.reduce(share.detach(), "mean"))
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise UserError(
                f"the loss is {loss} and its gradient's norm {norm} at step "
                f"{self.step + 1}: lower `learning_rate` and give another `out`"
            )
        self._adam.step()

        self.step += 1
        # The half-life grows with the run, so that the average forgets the initial weights.
        halflife = min(config.ema_halflife_kimg * 1e3, 0.1 * self.step * config.batch_size)
        decay = 0.5 ** (config.batch_size / halflife)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.ema.parameters()), list(self.net.parameters()), 1 - decay
            )
        return loss

    def _record(self, steps_per_s: float) -> dict[str, Any]:
        config, step = self.config, self.step
        record: dict[str, Any] = {
            "step": step,
            "loss": round(float(np.mean(self._losses)), 5),
            "images_per_s": round(steps_per_s * config.batch_size, 1),
        }
        if is_due(step, config.evaluate_every) or step == config.steps:
            record["held_out"] = held_out_losses(
                self.ema, self.held_out, config.sigma_min, config.sigma_max
            )
        self._history.append(record)
        if self.is_main:
            self._folder.append(record)
        return record
