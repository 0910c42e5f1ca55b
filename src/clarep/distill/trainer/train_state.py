"""A step of training, and what a run must remember to go on: weights, averages, the best epoch."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from clarep.distill.methods.base import Batch, Method
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.distill.trainer.whole_batch import Shares
from clarep.engine.arithmetic import CountedArithmetic
from clarep.errors import UserError
from clarep.students.student import Student

GIGAOPS = "gigaops"
"""Of an epoch and a run: counted operations of training, in 10^9."""
_SPENT = {"seconds": 2, GIGAOPS: 6}  # name -> decimals
_VALUES = ("epoch", "best_epoch", "best_accuracy", "best", "history")


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Return the rate after that many epochs, a fraction within one."""
    peak, done = config.learning_rate, epoch / config.epochs
    if done < config.warmup_share:
        risen = done / config.warmup_share
        if config.schedule == "one-cycle":
            return peak * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * risen)))
        return peak * risen
    fallen = (done - config.warmup_share) / (1 - config.warmup_share)
    return peak * 0.5 * (1 + math.cos(math.pi * fallen))


def _build_optimiser(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
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
    """Everything that changes while a student is trained.

    Args:
        method: what is trained, on its device.
        accelerator: whose processes train it together.
    """

    def __init__(self, method: Method, accelerator: Any) -> None:
        config = method.config
        self.method, self._accelerator = method, accelerator
        method.shares = Shares.among(accelerator)
        self.optimiser = _build_optimiser(method, config)
        self.average: Student | None = None
        if config.ema:
            self.average = copy.deepcopy(method.student).requires_grad_(False)
        fp16 = config.mixed_precision == "fp16"
        self.scaler = torch.amp.GradScaler(next(method.parameters()).device.type, enabled=fp16)
        self.epoch = 0
        self.best_epoch = 0
        self.best_accuracy = -1.0
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.operations = 0  # of the last step that was counted, of all processes

    @property
    def student(self) -> Student:
        """The student to validate and store: its average where one is kept."""
        return self.method.student if self.average is None else self.average

    def step(self, wrapped: nn.Module, batch: Batch, *, count: bool = False) -> dict[str, float]:
        """Take one step; returns the loss and its terms, means over the processes.

        wrapped: the method as accelerate prepared it. count: its `operations`, which takes time.
        Raises UserError, before any weight changes, if the loss or its gradient is not finite.
        """
        if not count:
            return self._step(wrapped, batch)
        with CountedArithmetic() as counted:
            losses = self._step(wrapped, batch)
        self.operations = counted.operations * self._accelerator.num_processes
        return losses

    def _step(self, wrapped: nn.Module, batch: Batch) -> dict[str, float]:
        config, accelerator = self.method.config, self._accelerator
        self.method.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, batch.epoch)
        terms = wrapped(batch)
        self.optimiser.zero_grad()
        accelerator.backward(self.scaler.scale(terms["loss"]))
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.method.parameters(), config.clip_norm)
        values = torch.stack([*(term.detach() for term in terms.values()), norm])
        *losses, size = accelerator.reduce(values, "mean").tolist()
        # A scaler meets infinite gradients by design, and skips their steps.
        if not (math.isfinite(losses[-1]) and (math.isfinite(size) or self.scaler.is_enabled())):
            raise UserError(
                f"the loss is {losses[-1]} and its gradient's norm {size} in epoch "
                f"{self.epoch + 1}: lower `learning_rate` and give another `out`"
            )
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self._update(self.average)
        return dict(zip(terms, losses, strict=True))

    @torch.no_grad()
    def _update(self, average: Student) -> None:
        """Move the average towards the weights as they are; buffers are taken as they are."""
        student = self.method.student
        own: list[Tensor] = list(average.parameters())
        torch._foreach_lerp_(own, list(student.parameters()), 1 - self.method.config.ema)
        for mine, theirs in zip(average.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)

    def note_accuracy(self, accuracy: float) -> None:
        """Keep the weights if no earlier epoch was better; of equals, the later one."""
        if accuracy >= self.best_accuracy:
            self.best_epoch, self.best_accuracy = self.epoch, accuracy
            self.best = {k: v.detach().cpu().clone() for k, v in self.student.state_dict().items()}

    def spent(self) -> dict[str, float | None]:
        """Return the seconds and operations of all epochs so far, and of students before them.

        None where an epoch, of an earlier version, has not counted it.
        """
        taken = [*self.history, *self.method.trained_before]
        return {
            name: round(sum(float(one[name]) for one in taken), decimals)
            if all(name in one for one in taken)
            else None
            for name, decimals in _SPENT.items()
        }

    def _parts(self) -> dict[str, Any]:
        parts = {"method": self.method, "optimiser": self.optimiser, "scaler": self.scaler}
        return parts | ({} if self.average is None else {"average": self.average})

    def as_dict(self) -> dict[str, Any]:
        """Return all of it: tensors and plain values."""
        state = {name: getattr(self, name) for name in _VALUES}
        return state | {name: part.state_dict() for name, part in self._parts().items()}

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `as_dict` gave."""
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        for name in _VALUES:
            setattr(self, name, saved[name])
