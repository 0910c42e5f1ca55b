"""`sit:FILE`: SiT and other flow-matching transformers with its architecture."""

from dataclasses import replace

import torch

from clarep.errors import UserError
from clarep.teachers.checkpoint_files import read_checkpoint
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import Flow
from clarep.teachers.sit_net import FAMILY, SiT, sit_shape
from clarep.teachers.vit_teacher import SETTINGS, PatchTeacher, read_classes, vae_of

_SETTINGS = {**SETTINGS, "data_at": int}
_PROJECTORS = "projectors."
"""Heads that REPA trains beside the network (Yu et al. 2025, arXiv 2410.06940): not run."""


def load_sit(place: str, options: TeacherOptions) -> PatchTeacher:
    """Load a SiT that predicts the velocity of the straight path.

    Its time at the data is 1, as in SiT's own code, or 0, as in that of REPA, whose
    checkpoints are told by their projectors; the setting `data_at` says it of others.

    Args:
        place: FILE or FILE?vae=PLACE&heads=N&data_at=0&num_classes=N (docs/teachers/sit.md).
        options: device, bf16, class_names and attention; for latents offload and vae_slicing too.

    Raises:
        UserError: if the file is no SiT, or does not say enough.
    """
    checkpoint = read_checkpoint(place, _SETTINGS)
    is_repa = any(name.startswith(_PROJECTORS) for name in checkpoint)
    own = {n: v for n, v in checkpoint.weights.items() if not n.startswith(_PROJECTORS)}
    checkpoint = replace(checkpoint, weights=own)
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
