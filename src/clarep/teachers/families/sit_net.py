"""The transformer of SiT, which is DiT's with adaLN-Zero, built from the shapes of its weights.

Ma et al. 2024 (arXiv 2401.08740); Peebles & Xie 2023 (arXiv 2212.09748), section 3.2. Written
from the papers; modules bear the names that the published checkpoints have.
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

FAMILY = "SiT"
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Width -> heads of SiT-S, B, L and XL: the one number that no shape tells."""


@dataclass(frozen=True)
class SiTShape:
    """What a SiT is built from."""

    channels: int
    grid: int
    """Patches a side."""
    patch: int
    width: int
    depth: int
    heads: int
    label_rows: int
    """Classes, and one for no class where labels were dropped in training."""
    out_channels: int
    """Twice the channels where the network has outputs for a variance; these are dropped."""
    hidden: int
    """Width inside the MLPs."""
    time_channels: int = 256


class _Embedder(nn.Module):
    """Of the time (`mlp`): waves, then two linear layers."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        out: Tensor = self.mlp(time_waves(time, self.channels))
        return out


class _LabelTable(nn.Module):
    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    def forward(self, labels: Tensor) -> Tensor:
        out: Tensor = self.embedding_table(labels)
        return out


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _modulation(width: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


class _Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by time and class (adaLN-Zero)."""

    def __init__(self, shape: SiTShape) -> None:
        super().__init__()
        width = shape.width
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.attn = Attention(width, shape.heads, qkv_bias=True)
        self.mlp = Mlp(width, shape.hidden, "tanh")
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        parts = self.adaLN_modulation(c)[:, None].chunk(6, dim=2)  # (B, 1, width) each
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
        x = x + gate * self.attn(self.norm1(x) * (1 + scale) + shift)
        out: Tensor = x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale_mlp) + shift_mlp)
        return out


class _FinalLayer(nn.Module):
    def __init__(self, shape: SiTShape) -> None:
        super().__init__()
        self.norm_final = _norm(shape.width)
        self.linear = nn.Linear(shape.width, shape.patch**2 * shape.out_channels)
        self.adaLN_modulation = _modulation(shape.width, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        out: Tensor = self.linear(self.norm_final(x) * (1 + scale) + shift)
        return out


class SiT(nn.Module):
    """Velocity (B, C, H, W) of x at the network's time (B,), given labels (B,)."""

    def __init__(self, shape: SiTShape) -> None:
        super().__init__()
        self.shape = shape
        self.x_embedder = PatchEmbed(shape.channels, shape.width, shape.patch)
        self.t_embedder = _Embedder(shape.time_channels, shape.width)
        self.y_embedder = _LabelTable(shape.label_rows, shape.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2, shape.width))
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.depth))
        self.final_layer = _FinalLayer(shape)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        c = self.t_embedder(time) + self.y_embedder(labels)
        tokens = self.x_embedder(x) + self.pos_embed  # (B, N, width)
        for block in self.blocks:
            tokens = block(tokens, c)
        out = patches_to_image(self.final_layer(tokens, c), self.shape.grid, self.shape.patch)
        return out[:, : self.shape.channels]


def sit_shape(checkpoint: Checkpoint) -> SiTShape:
    """Read what a SiT is built from off the shapes of its weights.

    Raises UserError if they are none of a SiT.
    """
    width, channels, patch, _ = checkpoint.shape("x_embedder.proj.weight", 4, FAMILY)
    tokens = checkpoint.shape("pos_embed", 3, FAMILY)[1]
    outputs = checkpoint.shape("final_layer.linear.weight", 2, FAMILY)[0]
    if outputs not in (patch**2 * channels, 2 * patch**2 * channels):
        raise checkpoint.refusal(
            FAMILY,
            f"it has {outputs} outputs a patch, where {patch}x{patch} patches of {channels} "
            f"channels ask for {patch**2 * channels}, or twice that",
        )
    return SiTShape(
        channels=channels,
        grid=grid_side(checkpoint, tokens, FAMILY),
        patch=patch,
        width=width,
        depth=checkpoint.count("blocks"),
        heads=num_heads(checkpoint, width, HEADS, FAMILY),
        label_rows=checkpoint.shape("y_embedder.embedding_table.weight", 2, FAMILY)[0],
        out_channels=outputs // patch**2,
        hidden=checkpoint.shape("blocks.0.mlp.fc1.weight", 2, FAMILY)[0],
        time_channels=checkpoint.shape("t_embedder.mlp.0.weight", 2, FAMILY)[1],
    )
