"""`sit:FILE`: SiT and other flow-matching transformers with its architecture."""

import re
from dataclasses import replace

import torch
from torch import Tensor

from clarep.errors import UserError
from clarep.teachers.checkpoint_files import Checkpoint, read_checkpoint
from clarep.teachers.families.sit_net import FAMILY, SiT, sit_shape
from clarep.teachers.families.vit_teacher import SETTINGS, PatchTeacher, read_classes, vae_of
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import Flow

_SETTINGS = {**SETTINGS, "data_at": int}
_PROJECTORS = "projectors."
"""Heads that REPA trains beside the network (Yu et al. 2025, arXiv 2410.06940): not run."""
_LATER_BLOCKS = re.compile(r"^decoder_blocks\.(\d+)")
"""Where older checkpoints of REPA have the blocks behind the one that its projectors read."""
_SUPPORTED = {"path_type": ("Linear", "linear"), "prediction": ("velocity", "v")}
"""Arguments of the training scripts of SiT and REPA, and what they may be here."""


def load_sit(place: str, options: TeacherOptions) -> PatchTeacher:
    """Load a SiT that predicts the velocity of the straight path.

    Its time at the data is 1, as in SiT's own code, or 0, as in that of REPA, whose
    checkpoints are told by their projectors; the setting `data_at` says it of others.

    Args:
        place: FILE or FILE?vae=PLACE&heads=N&data_at=0&num_classes=N (docs/teachers/sit.md).
        options: device, bf16, class_names and attention; for latents offload and vae_slicing too.

    Raises:
        UserError: if the file is no SiT, was trained on another path or prediction, or does not
            say enough.
    """
    checkpoint = read_checkpoint(place, _SETTINGS)
    _check_training(checkpoint)
    is_repa = any(n.startswith(_PROJECTORS) or _LATER_BLOCKS.match(n) for n in checkpoint)
    checkpoint = replace(checkpoint, weights=_own_weights(checkpoint))
    shape = sit_shape(checkpoint)
    data_at = checkpoint.settings.get("data_at", 0 if is_repa else 1)
    if data_at not in (0, 1):
        raise UserError(f"data_at {data_at} is no end of the time axis: give 0 or 1")
    classes = read_classes(checkpoint, shape.label_rows, options, guess=shape.label_rows - 1)
    vae = vae_of(checkpoint, shape.channels, "sit", options, takes=("attention",))
    with torch.device("meta"):
        network = SiT(shape)
    checkpoint.fill(network, FAMILY)
    return PatchTeacher(
        network,
        Flow(data_at),
        options,
        channels=shape.channels,
        grid=shape.grid,
        patch=shape.patch,
        classes=classes,
        tap_modules={f"blocks.{i}": block for i, block in enumerate(network.blocks)},
        default_tap=f"blocks.{(shape.depth - 1) // 2}",
        vae=vae,
        settings={"heads": shape.heads, "data_at": data_at},
    )


def _check_training(checkpoint: Checkpoint) -> None:
    """Raise UserError if the file says that the network predicts something else, or on a curve."""
    for name, supported in _SUPPORTED.items():
        value = checkpoint.arguments.get(name, supported[0])
        if value not in supported:
            raise UserError(
                f"{checkpoint.path} was trained with {name} {value}: a sit: teacher takes "
                f"{' or '.join(supported)}, the velocity of the straight path"
            )


def _own_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the network's own weights, under the names that they have today."""
    first = checkpoint.count("blocks")
    return {
        _LATER_BLOCKS.sub(lambda block: f"blocks.{first + int(block[1])}", name): value
        for name, value in checkpoint.weights.items()
        if not name.startswith(_PROJECTORS)
    }
