"""Stable Diffusion 1.x and 2.x, Rombach et al. 2022 (arXiv 2112.10752): classes as prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clarep.engine.extras import require_extra
from clarep.engine.tensors import sha256_state
from clarep.errors import UserError
from clarep.teachers.hub import checkpoint_folder
from clarep.teachers.latent import LatentTeacher, image_shape_of
from clarep.teachers.options import (
    TeacherOptions,
    check_device,
    check_options,
    joint_fingerprint,
    read_class_names,
)
from clarep.teachers.parametrisation import DDPM
from clarep.teachers.pipeline_folder import EXTRA, load_part, load_schedule, read_index

_TAKES = ("device", "bf16", "class_names", "template", "offload", "vae_slicing", "attention")
_PARTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_OTHER_CONDITIONS = (
    "class_embed_type",
    "num_class_embeds",
    "addition_embed_type",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
"""Settings of a U-Net that takes more than a noisy latent, a time and a text."""
_PROMPTS_AT_ONCE = 32


class StableDiffusionTeacher(LatentTeacher):
    """A text-conditional U-Net in the latent space of an autoencoder; a class is a prompt.

    Args:
        unet, vae: diffusers' `UNet2DConditionModel` and `AutoencoderKL`.
        schedule: that the U-Net was trained with.
        options: device and precision.
        class_names: names of the classes.
        prompts: embeddings of the classes' prompts and, last, of the empty one.
        prompts_fingerprint: a text that changes with the prompts and the text encoder.

    Raises:
        UserError: if the parts do not fit each other, or the U-Net takes other conditions too.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        schedule: DDPM,
        options: TeacherOptions,
        *,
        class_names: tuple[str, ...],
        prompts: Float[Tensor, "classes_and_none tokens width"],
        prompts_fingerprint: str,
    ) -> None:
        _check_unet(unet.config, prompts.shape[-1])
        shape = (unet.config.in_channels, *_sides(unet.config.sample_size))
        taps = _tap_modules(unet)
        super().__init__(
            unet,
            schedule,
            options,
            latent_shape=shape,
            image_shape=image_shape_of(vae, shape),
            class_names=class_names,
            default_tap="mid_block" if "mid_block" in taps else _last_down_block(unet),
            tap_modules=taps,
        )
        self.adopt_vae(vae)
        self.fingerprint = joint_fingerprint(self.fingerprint, prompts_fingerprint)
        self._prompts = prompts.float().to(self.device)

    def condition(self, labels: Int64[Tensor, " batch"]) -> Float[Tensor, "batch tokens width"]:
        """Return the embedded prompt of each class; the null label's is the empty one's."""
        return self._prompts[labels.to(self.device)]

    def run(
        self, x: Float[Tensor, "batch c h w"], time: Float[Tensor, " batch"], cond: Tensor
    ) -> Float[Tensor, "batch c h w"]:
        output: Tensor = self.network(x, time, cond, return_dict=False)[0]
        return output


def load_stable_diffusion(place: str, options: TeacherOptions) -> StableDiffusionTeacher:
    """Load a `StableDiffusionPipeline` from a folder or the Hugging Face hub.

    The text encoder embeds the prompts and is dropped; the safety checker is not loaded.

    Args:
        place: a folder that the pipeline was saved to, or an identifier of the hub.
        options: `class_names` is needed, since a text model knows no classes.

    Raises:
        UserError: if there is no such checkpoint, it is of another kind or damaged, there are
            no class names, or the template or a prompt does not fit.
    """
    check_options(options, "sd", _TAKES)
    check_device(options.device)
    names = _class_names(options)
    diffusers = require_extra("diffusers", EXTRA)
    folder = checkpoint_folder(place)
    read_index(folder, "StableDiffusionPipeline", _PARTS)
    schedule = load_schedule(folder)
    texts = [*(options.template.replace("{name}", name) for name in names), ""]
    prompts, fingerprint = _embed(folder, texts, options)
    unet = load_part(folder / "unet", diffusers.UNet2DConditionModel)
    vae = load_part(folder / "vae", diffusers.AutoencoderKL)
    return StableDiffusionTeacher(
        unet,
        vae,
        schedule,
        options,
        class_names=names,
        prompts=prompts,
        prompts_fingerprint=fingerprint,
    )


def _class_names(options: TeacherOptions) -> tuple[str, ...]:
    if "{name}" not in options.template:
        raise UserError(
            f"the template '{options.template}' has no {{name}} for the class's name to stand in: "
            "give one such as 'a photo of a {name}'"
        )
    if options.class_names is None:
        raise UserError(
            "an sd: teacher makes its prompts of class names and none are given: give "
            "`class_names=FILE`, a name a line in the order of the data's labels"
        )
    return read_class_names(options.class_names)


def _check_unet(config: Any, text_width: int) -> None:
    if config.in_channels != config.out_channels:
        raise UserError(
            f"the U-Net takes {config.in_channels} channels and gives {config.out_channels}: "
            "supported is text-to-image, where they are the same, and no inpainting or editing"
        )
    for name in _OTHER_CONDITIONS:
        if config.get(name) is not None:
            raise UserError(
                f"the U-Net has {name} {config[name]}: supported is Stable Diffusion 1.x and 2.x, "
                "whose only condition is a text"
            )
    if config.cross_attention_dim != text_width:
        raise UserError(
            f"the text encoder gives {text_width} channels and the U-Net takes "
            f"{config.cross_attention_dim}: give a checkpoint whose parts belong together"
        )


def _sides(sample_size: object) -> tuple[int, int]:
    sides = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    match sides:
        case [int(height), int(width)] if height == width:
            return height, width
    raise UserError(
        f"the U-Net's sample_size is {sample_size}: supported is one side of square latents"
    )


def _tap_modules(unet: Any) -> dict[str, nn.Module]:
    """Return the U-Net's blocks and, inside them, its residual and attention layers, by name."""
    blocks = ("down_blocks", "mid_block", "up_blocks")
    layers = ("resnets", "attentions")
    found: dict[str, nn.Module] = {}
    for name, module in unet.named_modules():
        parts = name.split(".")
        is_block = parts[0] in blocks and len(parts) == 1 + (parts[0] != "mid_block")
        is_layer = parts[0] in blocks and len(parts) > 2 and parts[-2] in layers
        if name == "conv_in" or is_block or is_layer:
            found[name] = module
    return found


def _last_down_block(unet: Any) -> str:
    return f"down_blocks.{len(unet.down_blocks) - 1}"


@torch.no_grad()
def _embed(
    folder: Path, texts: Sequence[str], options: TeacherOptions
) -> tuple[Float[Tensor, "texts tokens width"], str]:
    """Return the text encoder's last hidden states, and what they depend on as a fingerprint."""
    device = "cpu" if options.offload else options.device
    ids = _tokenize(folder / "tokenizer", texts)
    kind = require_extra("transformers", EXTRA).CLIPTextModel
    encoder = load_part(folder / "text_encoder", kind).eval().float().to(device)
    if int(ids.max()) >= encoder.config.vocab_size:
        raise UserError(
            f"{folder}/tokenizer gives token {int(ids.max())} and the text encoder knows "
            f"{encoder.config.vocab_size}: give a checkpoint whose parts belong together"
        )
    parts = [encoder(part.to(device))[0].cpu() for part in ids.split(_PROMPTS_AT_ONCE)]
    return torch.cat(parts), joint_fingerprint(sha256_state(encoder), *texts)


def _tokenize(folder: Path, texts: Sequence[str]) -> Int64[Tensor, "texts tokens"]:
    """Return the texts' tokens, filled up to the tokenizer's length.

    Raises UserError if there is no tokenizer, or a text is longer than it takes.
    """
    kind = require_extra("transformers", EXTRA).CLIPTokenizer
    # Without its files the class makes up a vocabulary of three tokens.
    whole = [("tokenizer.json",), ("vocab.json", "merges.txt")]
    if not any(all((folder / name).is_file() for name in names) for names in whole):
        raise UserError(
            f"{folder} holds neither tokenizer.json nor vocab.json and merges.txt: "
            "give a whole checkpoint"
        )
    try:
        tokenizer = kind.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # tokenizers raises bare exceptions
        raise UserError(
            f"cannot load a tokenizer from {folder} ({str(error)[:200]}): give a whole checkpoint"
        ) from error
    length = tokenizer.model_max_length
    for text in texts:
        # One token more than fits tells a text that is longer, and is no reason for a warning.
        if len(tokenizer(text, truncation=True, max_length=length + 1).input_ids) > length:
            raise UserError(
                f"the prompt '{text}' has more than the {length} tokens that the text encoder "
                "takes: give a shorter name or template"
            )
    ids: Tensor = tokenizer(
        list(texts), padding="max_length", max_length=length, return_tensors="pt"
    ).input_ids
    return ids
