"""A tiny vision transformer for small images."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clarep.errors import UserError
from clarep.students.student import PENULTIMATE, StagedStudent, StudentInfo, activation_of

_PATCH, _WIDTH, _HEADS, _BLOCKS, _MLP_RATIO = 4, 128, 4, 6, 2


class TransformerBlock(nn.Module):
    """Attention and a two-layer network, each with its normalisation before it and a skip."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, activation: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), activation, nn.Linear(mlp_ratio * width, width)
        )

    def forward(self, x: Float[Tensor, "batch tokens d"]) -> Float[Tensor, "batch tokens d"]:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, heads, T, D / heads)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViTStudent(StagedStudent):
    """Patches, positions, blocks, average over the tokens, linear head; 0.8 million weights.

    Dosovitskiy et al. 2020, arXiv 2010.11929, with the average over tokens in place of a class
    token (Beyer et al. 2022, arXiv 2205.01580). Layers: `block1` to `block6` and `penultimate`.
    """

    def __init__(self, info: StudentInfo, layer: str | None = None) -> None:
        """Raises UserError unless height and width are multiples of the patch size."""
        channels, height, width = info.image_shape
        if height % _PATCH or width % _PATCH:
            raise UserError(
                f"{info.name} cuts images into patches of {_PATCH} pixels, and {height} x {width} "
                f"is no multiple: give another student or an image size that {_PATCH} divides"
            )
        dims = {f"block{i}": _WIDTH for i in range(1, _BLOCKS + 1)}
        super().__init__(info, layer, dims | {PENULTIMATE: _WIDTH})
        activation = activation_of(info, "gelu")
        tokens = (height // _PATCH) * (width // _PATCH)
        self.patches = nn.Conv2d(channels, _WIDTH, _PATCH, _PATCH)
        self.positions = nn.Parameter(torch.zeros(1, tokens, _WIDTH))
        self.blocks = nn.ModuleList(
            TransformerBlock(_WIDTH, _HEADS, _MLP_RATIO, activation) for _ in range(_BLOCKS)
        )
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, len(info.class_names))
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def walk(self, x: Float[Tensor, "batch c h w"]) -> Iterator[tuple[str, Tensor]]:
        h = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (B, T, D)
        for i, block in enumerate(self.blocks, start=1):
            h = block(h)
            yield f"block{i}", h.mean(dim=1)
        yield PENULTIMATE, self.norm(h).mean(dim=1)
