"""The transformer of U-ViT, built from the shapes of its weights.

Bao et al. 2023 (arXiv 2209.12152), section 3: time and class are tokens, and long skip
connections join shallow blocks to deep ones. Written from the paper; modules bear the names
that the published checkpoints have.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clarep.teachers.checkpoint_files import Checkpoint
from clarep.teachers.families.vit_parts import (
    Attention,
    Mlp,
    PatchEmbed,
    grid_side,
    num_heads,
    patches_to_image,
    time_waves,
)

FAMILY = "class-conditional U-ViT"
HEADS = {512: 8, 768: 12, 1024: 16, 1152: 16}
"""Width -> heads of U-ViT-S, M, L and H: the one number that no shape tells."""
_EXTRA_TOKENS = 2  # class, then time


@dataclass(frozen=True)
class UViTShape:
    """What a U-ViT is built from."""

    channels: int
    grid: int
    """Patches a side."""
    patch: int
    width: int
    half_depth: int
    """Blocks before the middle one, and after it."""
    heads: int
    label_rows: int
    """Classes, and one for no class where labels were dropped in training."""
    hidden: int
    """Width inside the MLPs."""
    qkv_bias: bool
    time_mlp: bool
    """Whether the waves of the time go through an MLP."""
    final_conv: bool
    """Whether a 3x3 convolution follows the patches."""


class _Block(nn.Module):
    """A block of a plain ViT; in the second half, x is first joined with a skip."""

    def __init__(self, shape: UViTShape, takes_skip: bool = False) -> None:
        super().__init__()
        width = shape.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, shape.heads, shape.qkv_bias)
        self.mlp = Mlp(width, shape.hidden, "none")
        self.skip_linear = nn.Linear(2 * width, width) if takes_skip else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.skip_linear is not None and skip is not None:
            x = self.skip_linear(torch.cat([x, skip], dim=2))
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def _time_embedder(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


class UViT(nn.Module):
    """Noise (B, C, H, W) in x at the network's time (B,), given labels (B,)."""

    def __init__(self, shape: UViTShape) -> None:
        super().__init__()
        self.shape = shape
        width, channels = shape.width, shape.channels
        self.patch_embed = PatchEmbed(channels, width, shape.patch)
        self.time_embed = _time_embedder(width) if shape.time_mlp else nn.Identity()
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
        time_token = self.time_embed(time_waves(time, self.shape.width))[:, None]
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
        out: Tensor = self.final_layer(patches_to_image(patches, self.shape.grid, self.shape.patch))
        return out


def uvit_shape(checkpoint: Checkpoint) -> UViTShape:
    """Read what a U-ViT is built from off the shapes of its weights.

    Raises UserError if they are none of a class-conditional U-ViT.
    """
    width, channels, patch, _ = checkpoint.shape("patch_embed.proj.weight", 4, FAMILY)
    if "label_emb.weight" not in checkpoint.weights:
        text = "context_embed.weight" in checkpoint.weights
        raise checkpoint.refusal(
            FAMILY,
            "it is conditioned on text (context_embed)"
            if text
            else "it has no label_emb, so it was trained without classes",
        )
    tokens = checkpoint.shape("pos_embed", 3, FAMILY)[1]
    return UViTShape(
        channels=channels,
        grid=grid_side(checkpoint, tokens - _EXTRA_TOKENS, FAMILY),
        patch=patch,
        width=width,
        half_depth=checkpoint.count("in_blocks"),
        heads=num_heads(checkpoint, width, HEADS, FAMILY),
        label_rows=checkpoint.shape("label_emb.weight", 2, FAMILY)[0],
        hidden=checkpoint.shape("mid_block.mlp.fc1.weight", 2, FAMILY)[0],
        qkv_bias="mid_block.attn.qkv.bias" in checkpoint.weights,
        time_mlp="time_embed.0.weight" in checkpoint.weights,
        final_conv="final_layer.weight" in checkpoint.weights,
    )
