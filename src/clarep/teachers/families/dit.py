"""DiT, Peebles & Xie 2023 (arXiv 2212.09748), as a `DiTPipeline` of diffusers is saved."""

from collections.abc import Mapping
from typing import Any

import torch

from clarep.errors import UserError
from clarep.teachers.class_choice import Classes, choose_classes, numbered
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.hub import checkpoint_folder
from clarep.teachers.options import TeacherOptions, check_options
from clarep.teachers.parametrisation import DDPM
from clarep.teachers.pipeline_folder import load_part, load_schedule, read_index

_TAKES = ("device", "bf16", "class_names", "guided_channels", "offload", "vae_slicing", "attention")
_PARTS = {
    # The authors' checkpoints were saved before diffusers gave DiT a class of its own.
    "transformer": ("DiTTransformer2DModel", "Transformer2DModel"),
    "vae": ("AutoencoderKL",),
}


def load(place: str, options: TeacherOptions) -> ForeignTeacher:
    """Load a `DiTPipeline` from a folder or the Hugging Face hub.

    Args:
        place: a folder that the pipeline was saved to, or an identifier of the hub.
        options: `class_names` may name fewer classes than the checkpoint has, each by its name
            there or its number: these are the teacher's then, in that order.

    Raises:
        UserError: if there is no such checkpoint, it is of another kind or damaged, its parts do
            not fit each other, or an option or class name does not fit it.
    """
    check_options(options, "dit", _TAKES)
    folder = checkpoint_folder(place)
    index = read_index(folder, "DiTPipeline", _PARTS)
    schedule = load_schedule(folder)
    transformer = load_part(folder / "transformer", "DiTTransformer2DModel")
    vae = load_part(folder / "vae", "AutoencoderKL")
    synonyms = _synonyms(index.get("id2label"), transformer.config.num_embeds_ada_norm)
    return dit_teacher(transformer, vae, schedule, options, choose_classes(options, synonyms))


def dit_teacher(
    transformer: Any, vae: Any, schedule: DDPM, options: TeacherOptions, classes: Classes
) -> ForeignTeacher:
    """Return the teacher of diffusers' `DiTTransformer2DModel` and `AutoencoderKL`.

    Raises UserError if these do not fit each other.
    """
    config = transformer.config
    channels, size, patch = config.in_channels, config.sample_size, config.patch_size
    if config.out_channels not in (None, channels, 2 * channels):
        raise UserError(
            f"the transformer takes {channels} channels and gives {config.out_channels}: "
            "supported is as many, or twice as many where it learns the variance"
        )
    if size % patch:
        raise UserError(
            f"latents of {size} pixels do not divide into patches of {patch}: give a checkpoint "
            "where they do"
        )
    blocks = {f"transformer_blocks.{i}": b for i, b in enumerate(transformer.transformer_blocks)}
    return ForeignTeacher(
        transformer,
        schedule,
        options,
        latent_shape=(channels, size, size),
        class_names=classes.names,
        default_tap=list(blocks)[(len(blocks) - 1) // 2],
        tap_modules={"pos_embed": transformer.pos_embed, **blocks},
        # The row after the last class stands for none.
        conditions=torch.tensor([*classes.ids, config.num_embeds_ada_norm]),
        vae=vae,
        token_grid=(size // patch, size // patch),
    )


def _synonyms(id2label: object, count: int) -> list[list[str]]:
    """Return the names of each class, which commas divide; without any, its number."""
    if id2label is None:
        return numbered(count)
    if not isinstance(id2label, Mapping) or set(id2label) != {str(i) for i in range(count)}:
        raise UserError(
            f"id2label in model_index.json does not name the {count} classes of the transformer, "
            f"0 to {count - 1}: mend it, or leave it out and name them with `class_names`"
        )
    return [[name.strip() for name in id2label[str(i)].split(",")] for i in range(count)]
