"""The U-Nets of EDM: DDPM++ and NCSN++ (`SongShape`) and ADM (`DhariwalShape`).

Written from Song et al. 2021 (arXiv 2011.13456, appendix H), Dhariwal & Nichol 2021 (arXiv
2105.05233) and Karras et al. 2022 (arXiv 2206.00364, appendix F). Modules bear the names of NVlabs'
checkpoints; what is for training alone (dropout, augmentation labels) is left out.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class DhariwalShape:
    """Shape of an ADM network; fields and defaults are those of the checkpoint's own arguments."""

    img_resolution: int
    img_channels: int
    label_dim: int  # classes
    model_channels: int = 192  # base width
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)  # widths of the levels, from fine to coarse
    channel_mult_emb: int = 4  # width of the embedding of noise level and class
    num_blocks: int = 3  # residual blocks a level in the encoder; the decoder has one more
    attn_resolutions: tuple[int, ...] = (32, 16, 8)  # sides of the maps whose blocks attend

    adaptive: ClassVar[bool] = True  # the embedding scales and shifts, or is added before the norm
    eps: ClassVar[float] = 1e-5  # of the group norms
    skip_scale: ClassVar[float] = 1.0  # of both sums of a block; sqrt(1/2) keeps their variance
    head_channels: ClassVar[int | None] = 64  # a narrower block does not attend; None: one head
    resample_filter: ClassVar[tuple[float, ...]] = (1.0, 1.0)


@dataclass(frozen=True)
class SongShape(DhariwalShape):
    """Shape of a DDPM++ or NCSN++ network; defaults are DDPM++'s."""

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    embedding_type: str = "positional"  # of the noise level; fourier for NCSN++
    channel_mult_noise: int = 1  # width of that embedding
    encoder_type: str = "standard"  # NCSN++'s, residual: the input enters every level once more
    decoder_type: str = "standard"
    resample_filter: tuple[float, ...] = (1.0, 1.0)  # type: ignore[misc]  # NCSN++'s: 1, 3, 3, 1

    adaptive: ClassVar[bool] = False
    eps: ClassVar[float] = 1e-6
    skip_scale: ClassVar[float] = math.sqrt(0.5)
    head_channels: ClassVar[int | None] = None


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


class _Resample(nn.Module):
    """Up- or downsampling by a filter, nothing learned."""

    resample_filter: Tensor

    def __init__(self, direction: Direction, taps: tuple[float, ...]) -> None:
        super().__init__()
        self.direction: Direction = direction
        self.padding = (len(taps) - 1) // 2
        self.register_buffer("resample_filter", separable_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        return resample(x, self.resample_filter, self.direction, self.padding)


class Conv(nn.Conv2d):
    """Up- or downsampling by a filter, if any, then a convolution that keeps the size.

    conv_first: the other way round, on an input that is padded once for both.
    """

    resample_filter: Tensor

    def __init__(
        self,
        c_in: int,
        c_out: int,
        size: int,
        direction: Direction | None = None,
        *,
        taps: tuple[float, ...] = (1.0, 1.0),
        conv_first: bool = False,
    ) -> None:
        filter_padding = (len(taps) - 1) // 2
        super().__init__(c_in, c_out, size, padding=size // 2 + filter_padding * conv_first)
        self.direction, self.conv_first = direction, conv_first
        self.filter_padding = 0 if conv_first else filter_padding
        if direction is not None:
            self.register_buffer("resample_filter", separable_filter(taps))

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x) if self.conv_first else x
        if self.direction is not None:
            x = resample(x, self.resample_filter, self.direction, self.filter_padding)
        return x if self.conv_first else super().forward(x)


class Block(nn.Module):
    """Residual block, with up- or downsampling, with attention."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        shape: DhariwalShape,
        *,
        direction: Direction | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.adaptive, self.skip_scale = shape.adaptive, shape.skip_scale
        embed, taps = shape.model_channels * shape.channel_mult_emb, shape.resample_filter
        self.norm0 = group_norm(c_in, shape.eps)
        self.conv0 = Conv(c_in, c_out, 3, direction, taps=taps)
        self.affine = nn.Linear(embed, 2 * c_out if shape.adaptive else c_out)
        self.norm1 = group_norm(c_out, shape.eps)
        self.conv1 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip: nn.Module = nn.Identity()
        # DDPM++ and NCSN++ have a convolution where a skip is resampled; ADM has the filter alone.
        if c_in != c_out or (direction is not None and not shape.adaptive):
            self.skip = Conv(c_in, c_out, 1, direction, taps=taps)
        elif direction is not None:
            self.skip = _Resample(direction, taps)
        self.heads = c_out // (shape.head_channels or c_out) if attention else 0
        if self.heads:
            self.norm2 = group_norm(c_out, shape.eps)
            self.qkv, self.proj = nn.Conv2d(c_out, 3 * c_out, 1), nn.Conv2d(c_out, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        modulation = self.affine(emb)[:, :, None, None]
        if self.adaptive:
            scale, shift = modulation.chunk(2, dim=1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + modulation)
        out: Tensor = (self.skip(x) + self.conv1(F.silu(h))) * self.skip_scale
        if self.heads:
            out = (out + self.proj(self._attend(self.norm2(out)))) * self.skip_scale
        return out

    def _attend(self, x: Tensor) -> Tensor:
        """Self-attention over positions, written out so that forward AD works."""
        # The channels hold head, channel of the head, and q, k, v, the last changing fastest.
        by_head = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1, 3))  # (B, heads, c, 3, HW)
        q, k, v = by_head.unbind(3)
        weights = torch.softmax(q.mT @ k / math.sqrt(q.shape[2]), dim=-1)  # (B, heads, HW, HW)
        mixed: Tensor = v @ weights.mT
        return mixed.reshape(x.shape)


class EDMUNet(nn.Module):
    """The raw network F(x; c_noise, class) of EDM, (B, C, H, W)."""

    def __init__(self, shape: DhariwalShape) -> None:
        super().__init__()
        self.shape = shape
        self.noise_channels = shape.model_channels
        embed = shape.model_channels * shape.channel_mult_emb
        if isinstance(shape, SongShape):
            self.noise_channels *= shape.channel_mult_noise
            if shape.embedding_type == "fourier":  # frequencies that were drawn once
                self.map_noise = nn.Module()
                self.map_noise.register_buffer("freqs", torch.zeros(self.noise_channels // 2))
            self.map_label = nn.Linear(shape.label_dim, self.noise_channels)
        self.map_layer0 = nn.Linear(self.noise_channels, embed)
        self.map_layer1 = nn.Linear(embed, embed)
        if not isinstance(shape, SongShape):
            self.map_label = nn.Linear(shape.label_dim, embed, bias=False)
        self.enc, skips = _encoder(shape)
        self.dec, width = _decoder(shape, skips)
        norm = group_norm(width, shape.eps)
        conv = nn.Conv2d(width, shape.img_channels, 3, padding=1)
        if isinstance(shape, SongShape):
            end = f"{shape.img_resolution}x{shape.img_resolution}_aux"
            self.dec.update({f"{end}_norm": norm, f"{end}_conv": conv})
        else:
            self.out_norm, self.out_conv = norm, conv
        self._end = norm, conv  # a tuple, so that they are no modules twice

    def forward(self, x: Tensor, time: Tensor, classes: Tensor) -> Tensor:
        """Run on x (B, C, H, W), time (B,) and one-hot classes (B, K), zeros for no class."""
        emb = self._embed(time, classes)
        skips: list[Tensor] = []
        h = input_path = x
        for layer in self.enc.values():
            if isinstance(layer, Conv):  # the input once more
                h = input_path = (h + layer(input_path)) / math.sqrt(2)
                skips[-1] = h
            else:
                h = layer(h, emb) if isinstance(layer, Block) else layer(h)
                skips.append(h)
        for name, block in self.dec.items():
            if isinstance(block, Block):  # those that enter a level take no skip
                h = block(torch.cat([h, skips.pop()], dim=1) if "_block" in name else h, emb)
        norm, conv = self._end
        out: Tensor = conv(F.silu(norm(h)))
        return out

    def _embed(self, time: Tensor, classes: Tensor) -> Tensor:
        if not isinstance(self.shape, SongShape):
            angles = positional_angles(time, self.noise_channels, reaches_end=False)
            emb = F.silu(self.map_layer0(torch.cat([angles.cos(), angles.sin()], dim=1)))
            return F.silu(self.map_layer1(emb) + self.map_label(classes))
        if self.shape.embedding_type == "fourier":
            angles = time[:, None] * (2 * math.pi * self.map_noise.get_buffer("freqs")).to(
                time.dtype
            )
        else:
            angles = positional_angles(time, self.noise_channels, reaches_end=True)
        emb = torch.cat([angles.sin(), angles.cos()], dim=1)
        emb = emb + self.map_label(classes * math.sqrt(classes.shape[1]))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))


def positional_angles(time: Tensor, channels: int, *, reaches_end: bool) -> Tensor:
    """Return time (B,) by frequencies from 1 to 1/10000 (DDPM++) or almost there (ADM)."""
    half = channels // 2
    share = torch.arange(half, device=time.device, dtype=time.dtype) / (half - int(reaches_end))
    return time[:, None] * 10_000.0**-share


def _encoder(shape: DhariwalShape) -> tuple[nn.ModuleDict, list[int]]:
    """Return the encoder and the channels of the skips that it leaves."""
    enc, skips, taps = nn.ModuleDict(), list[int](), shape.resample_filter
    is_song, path_width = isinstance(shape, SongShape), shape.img_channels
    width = shape.model_channels * (1 if is_song else shape.channel_mult[0])
    for level, mult in enumerate(shape.channel_mult):
        side = shape.img_resolution >> level
        if level == 0:
            enc[f"{side}x{side}_conv"] = nn.Conv2d(shape.img_channels, width, 3, padding=1)
        else:
            enc[f"{side}x{side}_down"] = Block(width, width, shape, direction="down")
            if isinstance(shape, SongShape) and shape.encoder_type == "residual":
                again = Conv(path_width, width, 3, "down", taps=taps, conv_first=True)
                enc[f"{side}x{side}_aux_residual"], path_width = again, width
        skips.append(width)
        for i in range(shape.num_blocks):
            attention, c_out = side in shape.attn_resolutions, shape.model_channels * mult
            enc[f"{side}x{side}_block{i}"] = Block(width, c_out, shape, attention=attention)
            width = c_out
            skips.append(width)
    return enc, skips


def _decoder(shape: DhariwalShape, skips: list[int]) -> tuple[nn.ModuleDict, int]:
    """Return the decoder and the channels of its end."""
    dec, width, left = nn.ModuleDict(), skips[-1], list(skips)
    for level in reversed(range(len(shape.channel_mult))):
        side = shape.img_resolution >> level
        if level == len(shape.channel_mult) - 1:
            dec[f"{side}x{side}_in0"] = Block(width, width, shape, attention=True)
            dec[f"{side}x{side}_in1"] = Block(width, width, shape)
        else:
            dec[f"{side}x{side}_up"] = Block(width, width, shape, direction="up")
        for i in range(shape.num_blocks + 1):
            c_out = shape.model_channels * shape.channel_mult[level]
            attention = side in shape.attn_resolutions
            if isinstance(shape, SongShape):  # of a level's blocks only the last attends
                attention = attention and i == shape.num_blocks
            block = Block(width + left.pop(), c_out, shape, attention=attention)
            dec[f"{side}x{side}_block{i}"] = block
            width = c_out
    return dec, width
