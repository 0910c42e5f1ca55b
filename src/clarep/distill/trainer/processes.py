"""The processes that train together: one, or as many as accelerate or torchrun launched."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from clarep.engine.extras import require_extra
from clarep.errors import UserError


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


def make_accelerator(mixed_precision: str, alone_on: torch.device | None = None) -> Any:
    """Return accelerate's view of the processes, or its like of one on a CPU, without accelerate.

    alone_on: where this process trains alone, though others were launched beside it.

    Mixed precision is ours (it leaves the losses alone), so accelerate is told none. Raises
    UserError if accelerate is needed and not installed, if it does not see all launched processes
    (each would train alone, into the same folder), or for fp16 without a GPU.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator: Any = _Alone(alone_on or torch.device("cpu"))
    if alone_on is not None:
        return accelerator
    if launched > 1 or torch.cuda.is_available() or torch.backends.mps.is_available():
        accelerator = require_extra("accelerate", "train").Accelerator(mixed_precision="no")
    if accelerator.num_processes != launched:
        raise UserError(
            f"{launched} processes were launched and accelerate joins {accelerator.num_processes}: "
            "without GPUs, set ACCELERATE_USE_CPU=true"
        )
    if mixed_precision == "fp16" and accelerator.device.type != "cuda":
        raise UserError(
            f"`mixed_precision=fp16` needs a GPU and this runs on {accelerator.device.type}: "
            "give bf16 or no"
        )
    return accelerator
