"""What a student's run must remember to go on: weights, averages, optimiser, the best epoch."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from clarep.distill.distill_config import DistillConfig
from clarep.distill.methods.base import Method
from clarep.students.student import Student


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
        self.history: list[dict[str, Any]] = []

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

    def as_dict(self) -> dict[str, Any]:
        """Return all of it: tensors and plain values."""
        return {
            "epoch": self.epoch,
            "method": self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
            "best": self.best,
            "history": self.history,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `as_dict` gave."""
        self.method.load_state_dict(saved["method"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.scaler.load_state_dict(saved["scaler"])
        self.epoch, self.best_epoch = saved["epoch"], saved["best_epoch"]
        self.best_accuracy, self.best = saved["best_accuracy"], saved["best"]
        self.history = saved["history"]
