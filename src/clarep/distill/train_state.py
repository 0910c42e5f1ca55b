"""What a student's run must remember to go on: weights, averages, optimiser, the best epoch."""

import copy
import io
import json
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clarep.distill.methods.base import Method
from clarep.distill.student import Student
from clarep.distill.train_config import DistillConfig
from clarep.engine.artefacts import as_read, atomic_path, differences
from clarep.errors import UserError

# What torch and json raise for a checkpoint that is cut short or of other contents.
_UNREADABLE = (
    *(OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError),
    pickle.UnpicklingError,
)


def learning_rate(config: DistillConfig, epoch: float) -> float:
    """Return the rate after that many epochs, a fraction within one."""
    peak, done = config.learning_rate, epoch / config.epochs
    if done < config.warmup_share:
        risen = done / config.warmup_share
        if config.schedule == "one-cycle":
            return peak * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * risen)))
        return peak * risen
    fallen = (done - config.warmup_share) / (1 - config.warmup_share)
    return peak * 0.5 * (1 + math.cos(math.pi * fallen))


def build_optimiser(module: nn.Module, config: DistillConfig) -> torch.optim.Optimizer:
    """Return the optimiser over a module's parameters; vectors and scalars do not decay."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    momentum = config.momentum
    return torch.optim.SGD(
        groups, config.learning_rate, momentum, nesterov=momentum > 0, fused=True
    )


class TrainState:
    """Everything that changes while a student is trained."""

    def __init__(self, method: Method, config: DistillConfig) -> None:
        self.method = method
        self.optimiser = build_optimiser(method, config)
        self.average: Student | None = None
        if config.ema:
            self.average = copy.deepcopy(method.student).requires_grad_(False)
        self.decay = config.ema
        fp16 = config.mixed_precision == "fp16"
        self.scaler = torch.amp.GradScaler(next(method.parameters()).device.type, enabled=fp16)
        self.epoch = 0
        self.best_epoch = 0
        self.best_accuracy = -1.0
        self.best: dict[str, Tensor] = {}

    @property
    def student(self) -> Student:
        """The student to validate and store: its average where one is kept."""
        return self.method.student if self.average is None else self.average

    def update_average(self) -> None:
        """Move the average towards the weights as they are; buffers are taken as they are."""
        if self.average is None:
            return
        own: list[Tensor] = list(self.average.parameters())
        other: list[Tensor] = list(self.method.student.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(own, other, 1 - self.decay)
            for mine, theirs in zip(
                self.average.buffers(), self.method.student.buffers(), strict=True
            ):
                mine.copy_(theirs)

    def note_accuracy(self, accuracy: float) -> None:
        """Keep the weights if no earlier epoch was better; of equals, the later one."""
        if accuracy >= self.best_accuracy:
            self.best_epoch, self.best_accuracy = self.epoch, accuracy
            self.best = {k: v.detach().cpu().clone() for k, v in self.student.state_dict().items()}

    def save(self, path: Path, described: dict[str, Any]) -> None:
        """Write all of it, atomically."""
        buffer = io.BytesIO()  # so that a full disk is an OSError, not one of torch's own
        torch.save(
            {
                "epoch": self.epoch,
                "method": self.method.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "scaler": self.scaler.state_dict(),
                "best_epoch": self.best_epoch,
                "best_accuracy": self.best_accuracy,
                "best": self.best,
                "config": json.dumps(described),
            },
            buffer,
        )
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        saved = _read(path)
        self.method.load_state_dict(saved["method"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.scaler.load_state_dict(saved["scaler"])
        self.epoch = int(saved["epoch"])
        self.best_epoch = int(saved["best_epoch"])
        self.best_accuracy = float(saved["best_accuracy"])
        self.best = saved["best"]


def check_checkpoint(path: Path, described: dict[str, Any]) -> int:
    """Return the epochs that a checkpoint's run has behind it.

    Raises UserError if it cannot be read, or is of another configuration.
    """
    saved = _read(path)
    difference = differences(json.loads(saved["config"]), as_read(described))
    if difference:
        raise UserError(
            f"{path.parent} holds a student of another configuration ({difference}): "
            "give another --out, or the options it was started with"
        )
    return int(saved["epoch"])


def _read(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        dict(json.loads(saved["config"]))
        int(saved["epoch"])
    except _UNREADABLE as error:
        raise UserError(
            f"cannot read the checkpoint {path}: delete it to begin anew, or give another --out"
        ) from error
    return saved
