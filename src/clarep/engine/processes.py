"""The processes that train together: one, or as many as accelerate or torchrun launched."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from clarep.engine.extras import require_extra
from clarep.errors import UserError, refusing

_LAUNCH = "launch them by torchrun or accelerate launch, or unset WORLD_SIZE to train alone"


class _Alone:
    """What is asked of accelerate's Accelerator, for one process on one device."""

    process_index, num_processes, is_main_process = 0, 1, True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare_model(self, model: nn.Module) -> nn.Module:
        return model

    def main_process_first(self) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def reduce(self, value: Tensor, _: str) -> Tensor:
        return value

    def wait_for_everyone(self) -> None: ...


def launched_processes() -> int:
    """Return how many processes accelerate or torchrun launched, this one among them; else 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this process is the one that writes, before any is joined."""
    return os.environ.get("RANK", "0") == "0"


def has_gpu() -> bool:
    """Return whether accelerate would train on a GPU here, unless it is told to use the CPU."""
    told = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return not told and (torch.cuda.is_available() or torch.backends.mps.is_available())


def rows_of(rank: int, processes: int, rows: int) -> slice:
    """Return which rows of a batch are a process's, as `numpy.array_split` cuts them."""
    each, more = divmod(rows, processes)
    start = rank * each + min(rank, more)
    return slice(start, start + each + (rank < more))


def average_gradients(accelerator: Any, parameters: Iterable[nn.Parameter]) -> None:
    """Put the mean over the processes in place of each gradient, in one message."""
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = accelerator.reduce(torch.cat([one.flatten() for one in gradients]), "mean")
    for one, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        one.copy_(mean.view(one.shape))


def make_accelerator(mixed_precision: str, alone_on: torch.device | None = None) -> Any:
    """Return accelerate's view of the processes, or its like of one on a CPU, without accelerate.

    alone_on: where this process trains alone, though others were launched beside it.

    Mixed precision is ours (it leaves the losses alone), so accelerate is told none. Raises
    UserError if accelerate is needed and not installed, if it does not see all launched processes
    (each would train alone, into the same folder), or for fp16 without a GPU.
    """
    accelerator: Any = _Alone(alone_on or torch.device("cpu"))
    if alone_on is not None:
        return accelerator
    launched, on_gpu = launched_processes(), has_gpu()
    if launched > 1 or on_gpu:
        accelerate = require_extra("accelerate", "train")
        # Without being told, accelerate passes over what torchrun launched on a CPU.
        with refusing(
            f"{launched} processes cannot be joined", _LAUNCH, (ValueError, RuntimeError)
        ):
            accelerator = accelerate.Accelerator(mixed_precision="no", cpu=not on_gpu)
    if accelerator.num_processes != launched:
        raise UserError(
            f"{launched} processes were launched and accelerate joins {accelerator.num_processes}: "
            f"{_LAUNCH}"
        )
    if mixed_precision == "fp16" and accelerator.device.type != "cuda":
        raise UserError(
            f"`mixed_precision=fp16` needs a GPU and this runs on {accelerator.device.type}: "
            "give bf16 or no"
        )
    return accelerator
