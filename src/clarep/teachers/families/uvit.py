"""`uvit:FILE`: class-conditional U-ViT, of pixels or of Stable Diffusion's latents.

Bao et al. 2023 (arXiv 2209.12152), section 3: time and class are tokens, and long skip
connections join shallow blocks to deep ones. Written from the paper; modules bear the names
that the published checkpoints have.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clarep.errors import UserError, unknown_name
from clarep.teachers.checkpoint_files import Checkpoint, read_checkpoint
from clarep.teachers.families import vit_parts as vit
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import DDPM, VP, Parametrisation

HEADS = {512: 8, 768: 12, 1024: 16, 1152: 16}
"""Width -> heads of U-ViT-S, M, L and H: the one number that no shape tells."""
_EXTRA_TOKENS = 2  # class, then time
_SIDES = ("in", "out")  # of the middle block
_SCHEDULES = ("vp", "sd")
_LATENT_SCHEDULES = {1024: "vp", 1152: "sd"}
"""Width -> schedule of the published models of latents, U-ViT-L and H; those of pixels have vp."""
_CLASSES = {10: 10, 11: 10, 1000: 1000, 1001: 1000}
"""Rows of the label table -> classes, where it is CIFAR-10's or ImageNet's."""


@dataclass(frozen=True)
class UViTShape(vit.PatchShape):
    """What a U-ViT is built from."""

    half_depth: int  # blocks before the middle one, and after it
    qkv_bias: bool
    time_mlp: bool  # whether the waves of the time go through an MLP
    final_conv: bool  # whether a 3x3 convolution follows the patches


class _Block(nn.Module):
    def __init__(self, shape: UViTShape, takes_skip: bool = False) -> None:
        super().__init__()
        width = shape.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = vit.Attention(width, shape.heads, shape.qkv_bias)
        self.mlp = vit.Mlp(width, shape.hidden, "none")
        self.skip_linear = nn.Linear(2 * width, width) if takes_skip else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.skip_linear is not None and skip is not None:
            x = self.skip_linear(torch.cat([x, skip], dim=2))
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class UViT(nn.Module):
    """Noise (B, C, H, W) in x at the network's time (B,), given labels (B,)."""

    def __init__(self, shape: UViTShape) -> None:
        super().__init__()
        self.shape = shape
        width, channels = shape.width, shape.channels
        self.patch_embed = vit.PatchEmbed(shape)
        self.time_embed = vit.time_mlp(width, width, 4 * width) if shape.time_mlp else nn.Identity()
        self.label_emb = nn.Embedding(shape.label_rows, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, _EXTRA_TOKENS + shape.grid**2, width))
        self.in_blocks = nn.ModuleList(_Block(shape) for _ in range(shape.half_depth))
        self.mid_block = _Block(shape)
        self.out_blocks = nn.ModuleList(_Block(shape, True) for _ in range(shape.half_depth))
        self.norm = nn.LayerNorm(width)
        self.decoder_pred = nn.Linear(width, shape.patch**2 * channels)
        conv = nn.Conv2d(channels, channels, 3, padding=1) if shape.final_conv else nn.Identity()
        self.final_layer: nn.Module = conv

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        time_token = self.time_embed(vit.time_waves(time, self.shape.width))[:, None]
        label_token = self.label_emb(labels)[:, None]
        tokens = torch.cat([label_token, time_token, self.patch_embed(x)], dim=1)
        tokens = tokens + self.pos_embed  # (B, 2 + N, width)
        skips = []
        for block in self.in_blocks:
            tokens = block(tokens)
            skips.append(tokens)
        tokens = self.mid_block(tokens)
        for block in self.out_blocks:
            tokens = block(tokens, skips.pop())
        patches = self.decoder_pred(self.norm(tokens))[:, _EXTRA_TOKENS:]
        out: Tensor = self.final_layer(vit.patches_to_image(patches, self.shape))
        return out


def uvit_shape(checkpoint: Checkpoint) -> UViTShape:
    """Read what a U-ViT is built from off the shapes of its weights."""
    weights = checkpoint.weights
    if "context_embed.weight" in weights:
        raise checkpoint.refusal("it is conditioned on text (context_embed)")
    if "patch_embed.proj.weight" in weights and "label_emb.weight" not in weights:
        raise checkpoint.refusal("it has no label_emb, so it was trained without classes")
    return UViTShape(
        **vit.patch_numbers(
            checkpoint, "patch_embed", "label_emb", "mid_block", HEADS, extra_tokens=_EXTRA_TOKENS
        ),
        half_depth=checkpoint.count("in_blocks"),
        qkv_bias="mid_block.attn.qkv.bias" in weights,
        time_mlp="time_embed.0.weight" in weights,
        final_conv="final_layer.weight" in weights,
    )


def load(place: str, options: TeacherOptions) -> ForeignTeacher:
    """Load a U-ViT, which predicts noise; raises UserError.

    place: FILE or FILE?vae=PLACE&heads=N&schedule=vp&num_classes=N.
    """
    checkpoint = read_checkpoint(
        place, {**vit.SETTINGS, "schedule": str}, "class-conditional U-ViT"
    )
    shape = uvit_shape(checkpoint)
    schedule = schedule_of(checkpoint, shape)
    before, after = ([f"{side}_blocks.{i}" for i in range(shape.half_depth)] for side in _SIDES)
    return vit.patch_teacher(
        checkpoint,
        UViT,
        shape,
        parametrisation(schedule),
        options,
        family="uvit",  # no flash attention: a square and 2 tokens are no multiple of its blocks
        blocks=[*before, "mid_block", *after],
        default_tap="mid_block",
        guess=_CLASSES.get(shape.label_rows),
        settings={"schedule": schedule},
    )


def parametrisation(schedule: str) -> Parametrisation:
    """Return how noise levels are translated, for one of the schedules vp and sd.

    vp: continuous time, which the network takes times 999. sd: the thousand levels of Stable
    Diffusion (Rombach et al. 2022, arXiv 2112.10752), betas 0.00085 to 0.012, whose square
    roots are evenly spaced; U-ViT counts them from 1.
    """
    if schedule == "vp":
        return VP(time_scale=999.0)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return DDPM((1 - betas).cumprod(0), first=1)


def schedule_of(checkpoint: Checkpoint, shape: UViTShape) -> str:
    """Return the setting `schedule`, or what the published models have."""
    known = _LATENT_SCHEDULES.get(shape.width) if "vae" in checkpoint.settings else "vp"
    schedule = checkpoint.settings.get("schedule", known)
    if schedule is None:
        raise UserError(
            f"{checkpoint.path} is a U-ViT of latents of width {shape.width}, which no published "
            f"one has ({', '.join(map(str, _LATENT_SCHEDULES))}), and no tensor tells its noise "
            "schedule: add ?schedule=vp or ?schedule=sd to the file's name"
        )
    if schedule not in _SCHEDULES:
        raise unknown_name("schedule", schedule, _SCHEDULES)
    return str(schedule)
