"""DiT, Peebles & Xie 2023 (arXiv 2212.09748), as a `DiTPipeline` of diffusers is saved."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.extras import require_extra
from clarep.errors import UserError
from clarep.teachers.class_choice import choose_classes, numbered
from clarep.teachers.hub import checkpoint_folder
from clarep.teachers.latent import LatentTeacher, image_shape_of
from clarep.teachers.options import TeacherOptions, check_device, check_options
from clarep.teachers.parametrisation import DDPM
from clarep.teachers.pipeline_folder import EXTRA, load_part, load_schedule, read_index

_TAKES = ("device", "bf16", "class_names", "guided_channels", "offload", "vae_slicing", "attention")
_PARTS = {
    # The authors' checkpoints were saved before diffusers gave DiT a class of its own.
    "transformer": ("DiTTransformer2DModel", "Transformer2DModel"),
    "vae": ("AutoencoderKL",),
}


class DiTTeacher(LatentTeacher):
    """A diffusion transformer over classes, in the latent space of an autoencoder.

    Args:
        transformer, vae: diffusers' `DiTTransformer2DModel` and `AutoencoderKL`.
        schedule: that the transformer was trained with.
        options: device, precision, channels that guidance acts on.
        class_names: names of the classes.
        class_ids: the transformer's own label of each.

    Raises:
        UserError: if the parts do not fit each other.
    """

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        schedule: DDPM,
        options: TeacherOptions,
        *,
        class_names: tuple[str, ...],
        class_ids: Sequence[int],
    ) -> None:
        config = transformer.config
        _check_channels(config)
        shape = (config.in_channels, config.sample_size, config.sample_size)
        blocks = {
            f"transformer_blocks.{i}": block
            for i, block in enumerate(transformer.transformer_blocks)
        }
        super().__init__(
            transformer,
            schedule,
            options,
            latent_shape=shape,
            image_shape=image_shape_of(vae, shape),
            class_names=class_names,
            default_tap=list(blocks)[(len(blocks) - 1) // 2],
            tap_modules={"pos_embed": transformer.pos_embed, **blocks},
            own_labels=(*class_ids, config.num_embeds_ada_norm),  # the row after the last class
        )
        self.adopt_vae(vae)
        side = config.sample_size // config.patch_size
        self.token_grid = (side, side)

    def run(
        self, x: Float[Tensor, "batch c h w"], time: Float[Tensor, " batch"], cond: Tensor
    ) -> Float[Tensor, "batch c h w"]:
        output: Tensor = self.network(x, time, cond, return_dict=False)[0]
        return output[:, : x.shape[1]]  # the others are the learned variance, which no ODE needs

    def guide(
        self,
        null: Float[Tensor, "batch c h w"],
        given: Float[Tensor, "batch c h w"],
        guidance: float,
    ) -> Float[Tensor, "batch c h w"]:
        """Return the guided estimate, in all channels, or in three as the authors' code does.

        There (`forward_with_cfg` of facebookresearch/DiT) the other channels stay as they are
        given the class.
        """
        guided = super().guide(null, given, guidance)
        if self.options.guided_channels == "all":
            return guided
        return torch.cat([guided[:, :3], given[:, 3:]], dim=1)


def load_dit(place: str, options: TeacherOptions) -> DiTTeacher:
    """Load a `DiTPipeline` from a folder or the Hugging Face hub.

    Args:
        place: a folder that the pipeline was saved to, or an identifier of the hub.
        options: `class_names` may name fewer classes than the checkpoint has, each by its name
            there or its number: these are the teacher's then, in that order.

    Raises:
        UserError: if there is no such checkpoint, it is of another kind or damaged, or an
            option or class name does not fit it.
    """
    check_options(options, "dit", _TAKES)
    check_device(options.device)
    diffusers = require_extra("diffusers", EXTRA)
    folder = checkpoint_folder(place)
    index = read_index(folder, "DiTPipeline", _PARTS)
    schedule = load_schedule(folder)
    transformer = load_part(folder / "transformer", diffusers.DiTTransformer2DModel)
    vae = load_part(folder / "vae", diffusers.AutoencoderKL)
    synonyms = _synonyms(index.get("id2label"), transformer.config.num_embeds_ada_norm)
    names, ids = tuple(s[0] for s in synonyms), list(range(len(synonyms)))
    if options.class_names is not None:
        names, ids = choose_classes(options.class_names, synonyms)
    return DiTTeacher(transformer, vae, schedule, options, class_names=names, class_ids=ids)


def _check_channels(config: Any) -> None:
    channels = config.in_channels
    if config.out_channels not in (None, channels, 2 * channels):
        raise UserError(
            f"the transformer takes {channels} channels and gives {config.out_channels}: "
            "supported is as many, or twice as many where it learns the variance"
        )
    if config.sample_size % config.patch_size:
        raise UserError(
            f"latents of {config.sample_size} pixels do not divide into patches of "
            f"{config.patch_size}: give a checkpoint where they do"
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
