"""Layers of EDM's networks, with parameters named as NVlabs' checkpoints name them.

Written from the papers: residual blocks of DDPM++ and NCSN++ (Song et al. 2021, arXiv 2011.13456,
appendix H) and of ADM (Dhariwal & Nichol 2021, arXiv 2105.05233), in the one form that Karras et
al. 2022 (arXiv 2206.00364, appendix F) give both. Dropout is left out: a teacher is not trained.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class BlockKind:
    """What all residual blocks of one network have in common."""

    embed_channels: int
    """Width of the embedding of noise level and class."""
    heads: int | None
    """Of attention; None for one of every 64 channels, and so none below 64 channels."""
    eps: float
    """Of the group norms."""
    skip_scale: float
    """Both sums of a block are multiplied by it: sqrt(1/2) keeps their variance."""
    adaptive: bool
    """The embedding scales and shifts (ADM), or is added before the norm."""
    projects_skip: bool
    """A resampled skip has a 1x1 convolution even where the channels stay the same."""
    taps: tuple[float, ...]
    """The resampling filter: (1, 1), or (1, 3, 3, 1) for NCSN++."""


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Return a group norm of at most 32 groups and at least 4 channels a group."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps)


def separable_filter(taps: tuple[float, ...]) -> Tensor:
    """Return the outer product of taps with themselves, (1, 1, k, k), its sum 1."""
    line = torch.tensor(taps, dtype=torch.float32)
    return (torch.outer(line, line) / line.sum() ** 2)[None, None]


def resample(x: Tensor, kernel: Tensor, direction: Direction, padding: int) -> Tensor:
    """Filter every channel of x (B, C, H, W), and halve or double H and W.

    Up: zeros go between the pixels first, and the filter is multiplied by 4 to make up for them.
    """
    batch, channels = x.shape[:2]
    each = x.reshape(batch * channels, 1, *x.shape[2:])
    kernel = kernel.to(x.dtype)
    if direction == "up":
        each = F.conv_transpose2d(each, 4 * kernel, stride=2, padding=padding)
    else:
        each = F.conv2d(each, kernel, stride=2, padding=padding)
    return each.reshape(batch, channels, *each.shape[2:])


class Resample(nn.Module):
    """Up- or downsampling by a filter, nothing learned."""

    resample_filter: Tensor

    def __init__(self, direction: Direction, taps: tuple[float, ...]) -> None:
        super().__init__()
        self.direction: Direction = direction
        self.padding = (len(taps) - 1) // 2
        self.register_buffer("resample_filter", separable_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        return resample(x, self.resample_filter, self.direction, self.padding)


class ResampledConv(nn.Conv2d):
    """Up- or downsampling by a filter, then a convolution that keeps the size."""

    resample_filter: Tensor

    def __init__(
        self, c_in: int, c_out: int, size: int, direction: Direction, taps: tuple[float, ...]
    ) -> None:
        super().__init__(c_in, c_out, size, padding=size // 2)
        self.direction: Direction = direction
        self.filter_padding = (len(taps) - 1) // 2
        self.register_buffer("resample_filter", separable_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(
            resample(x, self.resample_filter, self.direction, self.filter_padding)
        )


class ConvDown(nn.Conv2d):
    """A 3x3 convolution, then downsampling, on an input padded once for both.

    Padded apart, as in `ResampledConv`, the borders would come out otherwise.
    """

    resample_filter: Tensor

    def __init__(self, c_in: int, c_out: int, taps: tuple[float, ...]) -> None:
        super().__init__(c_in, c_out, 3, padding=1 + (len(taps) - 1) // 2)
        self.register_buffer("resample_filter", separable_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        return resample(super().forward(x), self.resample_filter, "down", 0)


class Fourier(nn.Module):
    """Noise level to the angles of stored random frequencies (NCSN++), (B,) to (B, channels/2)."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(channels // 2))

    def forward(self, time: Tensor) -> Tensor:
        return time[:, None] * (2 * math.pi * self.freqs).to(time.dtype)


def positional_angles(time: Tensor, channels: int, *, reaches_end: bool) -> Tensor:
    """Return the angles of geometric frequencies from 1 towards 1/10000, (B, channels/2).

    reaches_end: the last frequency is 1/10000 itself (DDPM++), or the one before it (ADM).
    """
    half = channels // 2
    share = torch.arange(half, device=time.device, dtype=time.dtype) / (half - int(reaches_end))
    return time[:, None] * 10_000.0**-share


class Block(nn.Module):
    """Residual block, with up- or downsampling, with attention."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kind: BlockKind,
        *,
        direction: Direction | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.norm0 = group_norm(c_in, kind.eps)
        self.conv0 = _conv(c_in, c_out, 3, direction, kind.taps)
        self.affine = nn.Linear(kind.embed_channels, (2 if kind.adaptive else 1) * c_out)
        self.norm1 = group_norm(c_out, kind.eps)
        self.conv1 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = _skip(c_in, c_out, kind, direction)
        heads = c_out // 64 if kind.heads is None else kind.heads
        self.heads = heads if attention else 0
        if self.heads:
            self.norm2 = group_norm(c_out, kind.eps)
            self.qkv = nn.Conv2d(c_out, 3 * c_out, 1)
            self.proj = nn.Conv2d(c_out, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        modulation = self.affine(emb)[:, :, None, None]
        if self.kind.adaptive:
            scale, shift = modulation.chunk(2, dim=1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + modulation)
        out: Tensor = (self.skip(x) + self.conv1(F.silu(h))) * self.kind.skip_scale
        if self.heads:
            out = (out + self.proj(self._attend(self.norm2(out)))) * self.kind.skip_scale
        return out

    def _attend(self, x: Tensor) -> Tensor:
        """Self-attention over positions, written out so that forward AD works."""
        # The channels hold head, channel of the head, and q, k, v, the last changing fastest.
        by_head = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1, 3))  # (B, heads, c, 3, HW)
        q, k, v = by_head.unbind(3)
        weights = torch.softmax(q.mT @ k / math.sqrt(q.shape[2]), dim=-1)  # (B, heads, HW, HW)
        mixed: Tensor = v @ weights.mT
        return mixed.reshape(x.shape)


def _conv(
    c_in: int, c_out: int, size: int, direction: Direction | None, taps: tuple[float, ...]
) -> nn.Conv2d:
    if direction is None:
        return nn.Conv2d(c_in, c_out, size, padding=size // 2)
    return ResampledConv(c_in, c_out, size, direction, taps)


def _skip(c_in: int, c_out: int, kind: BlockKind, direction: Direction | None) -> nn.Module:
    if c_in != c_out or (direction is not None and kind.projects_skip):
        return _conv(c_in, c_out, 1, direction, kind.taps)
    return nn.Identity() if direction is None else Resample(direction, kind.taps)
