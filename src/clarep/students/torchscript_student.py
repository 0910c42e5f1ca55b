"""TorchScript files as classifiers. Such a file is a program: loading it trusts its author."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.artefacts import sha256_file
from clarep.errors import UserError, said_by
from clarep.students.foreign_model import ForeignModel, ForeignNet
from clarep.students.module_student import LOGITS
from clarep.students.student import logits_of

TORCHSCRIPT = "torchscript"


class ScriptNet(ForeignNet):
    """A TorchScript module; it normalises images itself, and has no layer to tap but its logits."""

    layer = LOGITS

    def __init__(self, script: Any) -> None:
        super().__init__()
        # In a tuple, it is no submodule: modes and gradients of a frozen one cannot be set.
        self._held = (script,)

    def both(self, x: Float[Tensor, "batch c h w"]) -> tuple[Tensor, Tensor]:
        logits = logits_of(self._held[0](x))
        return logits, logits


def load_torchscript(place: str) -> ForeignModel:
    """Load a file that torch.jit.save wrote; on the CPU, in evaluation mode.

    Its classes have no names, and its images' size is not known. Raises UserError if it cannot
    be read.
    """
    path, spec = Path(os.path.expanduser(place)), f"{TORCHSCRIPT}:{place}"
    if not path.is_file():
        raise UserError(f"there is no file {place}: give one that torch.jit.save wrote")
    try:
        with warnings.catch_warnings():
            # torch calls TorchScript deprecated; people have such files all the same.
            warnings.filterwarnings("ignore", "`torch.jit.load` is", FutureWarning)
            script = torch.jit.load(path, map_location="cpu")
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"cannot read TorchScript from {path} ({said_by(error)}): give a whole file that "
            "torch.jit.save wrote; weights alone are for timm:NAME, with `weights=FILE`"
        ) from error
    if hasattr(script, "training"):  # a frozen one is in evaluation mode for good
        script.eval()
    for parameter in script.parameters():
        parameter.requires_grad_(False)
    # The code counts, and it is in no state dict: the file's bytes stand for all of it.
    return ForeignModel(spec, ScriptNet(script), sha256_file(path), None, None)
