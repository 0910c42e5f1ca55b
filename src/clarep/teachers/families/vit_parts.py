"""What SiT and U-ViT are both made of, under their checkpoints' own names."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clarep.errors import UserError
from clarep.teachers.checkpoint_files import Checkpoint


class PatchEmbed(nn.Module):
    """Non-overlapping patches as tokens: (B, C, H, W) to (B, N, width)."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x).flatten(2).mT
        return tokens


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values in one matrix, in this order."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B, heads, N, width / heads) each
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers with GELU, or its approximation by tanh, between."""

    def __init__(self, width: int, hidden: int, gelu: Literal["none", "tanh"]) -> None:
        super().__init__()
        self.gelu = gelu
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))
        return out


def time_waves(time: Tensor, channels: int) -> Tensor:
    """Return cosines, then sines of time (B,), periods 2 pi to 2 pi 10^4: (B, channels)."""
    half = channels // 2
    steps = torch.arange(half, dtype=time.dtype, device=time.device)
    angles = time[:, None] * torch.exp(-math.log(10_000) / half * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def patches_to_image(tokens: Tensor, grid: int, patch: int) -> Tensor:
    """Return (B, grid^2, patch^2 C), channels last in each patch, as (B, C, H, W)."""
    parts: Tensor = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (grid, grid))
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def num_heads(checkpoint: Checkpoint, width: int, table: dict[int, int], family: str) -> int:
    """Return the setting `heads`, or a published model's. Raises UserError for neither."""
    heads = checkpoint.settings.get("heads", table.get(width))
    if heads is None:
        raise UserError(
            f"{checkpoint.path} is a {family} of width {width}, which no published one has "
            f"({', '.join(map(str, table))}), and no shape tells its number of heads: add "
            '?heads=N to the file\'s name, or "heads": N to the settings beside it'
        )
    if heads < 1 or width % heads:
        raise UserError(
            f"heads {heads} does not divide the width {width} of {checkpoint.path}: give a number "
            "that does"
        )
    return int(heads)


def grid_side(checkpoint: Checkpoint, tokens: int, family: str) -> int:
    """Return the patches a side. Raises UserError unless they make a square."""
    side = math.isqrt(max(tokens, 0))
    if side < 1 or side**2 != tokens:
        raise checkpoint.refusal(family, f"its {tokens} patches make no square")
    return side
