"""DiT, Peebles & Xie 2023 (arXiv 2212.09748), as a `DiTPipeline` of diffusers is saved."""

from typing import Any

import torch

from clarep.engine.hub import checkpoint_folder
from clarep.errors import UserError
from clarep.teachers.classes_by_name import Classes, choose_classes
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions, check_options
from clarep.teachers.parametrisation import DDPM
from clarep.teachers.pipeline_folder import load_part, load_schedule, maps_of, names_of, read_index

_TAKES = ("device", "bf16", "class_names", "guided_channels", "offload", "vae_slicing", "attention")
_PARTS = {
    # The authors' checkpoints were saved before diffusers gave DiT a class of its own.
    "transformer": ("DiTTransformer2DModel", "Transformer2DModel"),
    "vae": ("AutoencoderKL",),
}


def load(place: str, options: TeacherOptions) -> ForeignTeacher:
    """Load a `DiTPipeline` from a folder or the Hugging Face hub; raises UserError."""
    check_options(options, "dit", _TAKES)
    folder = checkpoint_folder(place)
    index = read_index(folder, "DiTPipeline", _PARTS)
    schedule = load_schedule(folder)
    transformer = load_part(folder / "transformer", "DiTTransformer2DModel")
    vae = load_part(folder / "vae", "AutoencoderKL")
    count, synonyms = transformer.config.num_embeds_ada_norm, list[list[str]]()
    if index.get("id2label") is not None:  # commas divide the names of a class
        names = names_of(index["id2label"], folder / "model_index.json", count)
        synonyms = [[part.strip() for part in name.split(",")] for name in names]
    classes = choose_classes(options, count, synonyms)
    return dit_teacher(transformer, vae, schedule, options, classes)


def dit_teacher(
    transformer: Any, vae: Any, schedule: DDPM, options: TeacherOptions, classes: Classes
) -> ForeignTeacher:
    """Return the teacher of diffusers' `DiTTransformer2DModel` and `AutoencoderKL`."""
    shape = _, side, _ = maps_of(transformer)
    grid, left = divmod(side, transformer.config.patch_size)
    if left:
        raise UserError(
            f"latents of {side} pixels do not divide into patches of "
            f"{transformer.config.patch_size}: give a checkpoint where they do"
        )
    blocks = {f"transformer_blocks.{i}": b for i, b in enumerate(transformer.transformer_blocks)}
    return ForeignTeacher(
        transformer,
        schedule,
        options,
        latent_shape=shape,
        class_names=classes.names,
        default_tap=list(blocks)[(len(blocks) - 1) // 2],
        tap_modules={"pos_embed": transformer.pos_embed, **blocks},
        # The row after the last class stands for none.
        conditions=torch.tensor([*classes.ids, transformer.config.num_embeds_ada_norm]),
        vae=vae,
        token_grid=(grid, grid),
    )
