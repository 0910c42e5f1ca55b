"""Stable Diffusion 1.x and 2.x, Rombach et al. 2022 (arXiv 2112.10752): classes as prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.engine.extras import require_extra
from clarep.engine.hub import checkpoint_folder
from clarep.engine.tensors import sha256_state
from clarep.errors import UserError
from clarep.teachers.families.diffusers_unet import unet_taps
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import (
    TeacherOptions,
    check_options,
    joint_fingerprint,
    read_class_names,
)
from clarep.teachers.parametrisation import DDPM
from clarep.teachers.pipeline_folder import EXTRA, load_part, load_schedule, maps_of, read_index

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


def load(place: str, options: TeacherOptions) -> ForeignTeacher:
    """Load a `StableDiffusionPipeline` from a folder or the hub; raises UserError.

    The text encoder embeds the prompts and is dropped; the safety checker is not loaded.
    """
    check_options(options, "sd", _TAKES)
    names = _class_names(options)
    folder = checkpoint_folder(place)
    read_index(folder, "StableDiffusionPipeline", _PARTS)
    schedule = load_schedule(folder)
    texts = [*(options.template.replace("{name}", name) for name in names), ""]
    prompts, said = _embed(folder, texts, options)
    unet = load_part(folder / "unet", "UNet2DConditionModel")
    vae = load_part(folder / "vae", "AutoencoderKL")
    teacher = prompted_teacher(unet, vae, schedule, options, class_names=names, prompts=prompts)
    teacher.fingerprint = joint_fingerprint(teacher.fingerprint, said)
    return teacher


def prompted_teacher(
    unet: Any,
    vae: Any,
    schedule: DDPM,
    options: TeacherOptions,
    *,
    class_names: tuple[str, ...],
    prompts: Float[Tensor, "classes_and_none tokens width"],
) -> ForeignTeacher:
    """Return the teacher of diffusers' `UNet2DConditionModel` and `AutoencoderKL`.

    prompts: embeddings of the classes' prompts and, last, of the empty one, which stands for none.
    """
    config = unet.config
    for name in _OTHER_CONDITIONS:
        if config.get(name) is not None:
            raise UserError(
                f"the U-Net has {name} {config[name]}: supported is Stable Diffusion 1.x and 2.x, "
                "whose only condition is a text"
            )
    if config.cross_attention_dim != prompts.shape[-1]:
        raise UserError(
            f"the text encoder gives {prompts.shape[-1]} channels and the U-Net takes "
            f"{config.cross_attention_dim}: give a checkpoint whose parts belong together"
        )
    taps, default_tap = unet_taps(unet)
    return ForeignTeacher(
        unet,
        schedule,
        options,
        latent_shape=maps_of(unet),
        class_names=class_names,
        default_tap=default_tap,
        tap_modules={"conv_in": unet.conv_in, **taps},
        conditions=prompts.float(),
        vae=vae,
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


@torch.no_grad()
def _embed(
    folder: Path, texts: Sequence[str], options: TeacherOptions
) -> tuple[Float[Tensor, "texts tokens width"], str]:
    """Return the text encoder's last hidden states, and what they depend on as a fingerprint."""
    device = "cpu" if options.offload else options.device
    ids = _tokenize(folder / "tokenizer", texts)
    encoder = load_part(folder / "text_encoder", "CLIPTextModel", "transformers")
    encoder = encoder.eval().float().to(device)
    if int(ids.max()) >= encoder.config.vocab_size:
        raise UserError(
            f"{folder}/tokenizer gives token {int(ids.max())} and the text encoder knows "
            f"{encoder.config.vocab_size}: give a checkpoint whose parts belong together"
        )
    parts = [encoder(part.to(device))[0].cpu() for part in ids.split(_PROMPTS_AT_ONCE)]
    return torch.cat(parts), joint_fingerprint(sha256_state(encoder), *texts)


def _tokenize(folder: Path, texts: Sequence[str]) -> Int64[Tensor, "texts tokens"]:
    """Return the texts' tokens, filled up to the tokenizer's length."""
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
