"""The U-Nets of EDM: DDPM++ and NCSN++ (`SongUNet`) and ADM (`DhariwalUNet`).

Modules bear the names of NVlabs' checkpoints, so that weights load by name. Written from the
papers, as `edm_layers`; training-only parts (dropout, augmentation labels) are left out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clarep.teachers.families.edm_layers import (
    Block,
    BlockKind,
    ConvDown,
    Fourier,
    group_norm,
    positional_angles,
)


@dataclass(frozen=True)
class DhariwalShape:
    """Shape of an ADM network; fields and defaults are those of the checkpoint's own arguments."""

    img_resolution: int
    """Height and width of the images."""
    img_channels: int
    """Their channels."""
    label_dim: int
    """Number of classes."""
    model_channels: int = 192
    """Base width."""
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    """Width of each resolution level, from fine to coarse, in base widths."""
    channel_mult_emb: int = 4
    """Width of the embedding, in base widths."""
    num_blocks: int = 3
    """Residual blocks a level in the encoder; the decoder has one more."""
    attn_resolutions: tuple[int, ...] = (32, 16, 8)
    """Sides of the maps whose blocks attend."""


@dataclass(frozen=True)
class SongShape(DhariwalShape):
    """Shape of a DDPM++ or NCSN++ network; defaults are DDPM++'s."""

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    embedding_type: str = "positional"
    """Embedding of the noise level: positional, or fourier for NCSN++."""
    channel_mult_noise: int = 1
    """Width of that embedding, in base widths."""
    encoder_type: str = "standard"
    """standard, or residual for NCSN++, where the input goes into every level once more."""
    decoder_type: str = "standard"
    """standard."""
    resample_filter: tuple[float, ...] = (1.0, 1.0)
    """Taps of the resampling filter; (1, 3, 3, 1) for NCSN++."""


class EDMUNet(nn.Module):
    """Encoder and decoder, which both families share; a subclass embeds and ends."""

    enc: nn.ModuleDict
    dec: nn.ModuleDict

    def blocks(self) -> dict[str, nn.Module]:
        """Return the residual blocks by their names in the network, in the order of the pass."""
        return {
            f"{half}.{name}": block
            for half, layers in (("enc", self.enc), ("dec", self.dec))
            for name, block in layers.items()
            if isinstance(block, Block)
        }

    def _walk(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the last decoder block's output, (B, C, H, W)."""
        skips = self._encode(x, emb)
        h = skips[-1]
        for name, block in self.dec.items():
            if not isinstance(block, Block):
                continue
            if "_block" in name:  # the others, which enter a level, take no skip
                h = torch.cat([h, skips.pop()], dim=1)
            h = block(h, emb)
        return h

    def _encode(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """Return the outputs that the decoder takes, in the order of the pass."""
        skips: list[Tensor] = []
        h = input_path = x
        for layer in self.enc.values():
            if isinstance(layer, ConvDown):
                h = input_path = (h + layer(input_path)) / math.sqrt(2)
                skips[-1] = h
                continue
            h = layer(h, emb) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        return skips


class SongUNet(EDMUNet):
    """DDPM++ or NCSN++: raw network F(x; c_noise, class) of EDM, (B, C, H, W)."""

    def __init__(self, shape: SongShape) -> None:
        super().__init__()
        embed = shape.model_channels * shape.channel_mult_emb
        self.noise_channels = shape.model_channels * shape.channel_mult_noise
        if shape.embedding_type == "fourier":
            self.map_noise = Fourier(self.noise_channels)
        self.is_fourier = shape.embedding_type == "fourier"
        self.map_label = nn.Linear(shape.label_dim, self.noise_channels)
        self.map_layer0 = nn.Linear(self.noise_channels, embed)
        self.map_layer1 = nn.Linear(embed, embed)
        kind = BlockKind(
            embed_channels=embed,
            heads=1,
            eps=1e-6,
            skip_scale=math.sqrt(0.5),
            adaptive=False,
            projects_skip=True,
            taps=shape.resample_filter,
        )
        residual = shape.encoder_type == "residual"
        self.enc, skips = _encoder(shape, kind, shape.model_channels, residual=residual)
        self.dec, width = _decoder(shape, kind, skips, attends_last=True)
        self._end = f"{shape.img_resolution}x{shape.img_resolution}_aux"
        self.dec[f"{self._end}_norm"] = group_norm(width, 1e-6)
        self.dec[f"{self._end}_conv"] = nn.Conv2d(width, shape.img_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, classes: Tensor) -> Tensor:
        """Run on x (B, C, H, W), time (B,) and one-hot classes (B, K), zeros for no class."""
        h = F.silu(self.dec[f"{self._end}_norm"](self._walk(x, self._embed(time, classes))))
        out: Tensor = self.dec[f"{self._end}_conv"](h)
        return out

    def _embed(self, time: Tensor, classes: Tensor) -> Tensor:
        if self.is_fourier:
            angles = self.map_noise(time)
        else:
            angles = positional_angles(time, self.noise_channels, reaches_end=True)
        emb = torch.cat([angles.sin(), angles.cos()], dim=1)
        emb = emb + self.map_label(classes * math.sqrt(classes.shape[1]))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))


class DhariwalUNet(EDMUNet):
    """ADM: raw network F(x; c_noise, class) of EDM, (B, C, H, W)."""

    def __init__(self, shape: DhariwalShape) -> None:
        super().__init__()
        self.base_channels = shape.model_channels
        embed = shape.model_channels * shape.channel_mult_emb
        self.map_layer0 = nn.Linear(shape.model_channels, embed)
        self.map_layer1 = nn.Linear(embed, embed)
        self.map_label = nn.Linear(shape.label_dim, embed, bias=False)
        kind = BlockKind(
            embed_channels=embed,
            heads=None,
            eps=1e-5,
            skip_scale=1.0,
            adaptive=True,
            projects_skip=False,
            taps=(1.0, 1.0),
        )
        stem = shape.model_channels * shape.channel_mult[0]
        self.enc, skips = _encoder(shape, kind, stem, residual=False)
        self.dec, width = _decoder(shape, kind, skips, attends_last=False)
        self.out_norm = group_norm(width, 1e-5)
        self.out_conv = nn.Conv2d(width, shape.img_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, classes: Tensor) -> Tensor:
        """Run on x (B, C, H, W), time (B,) and one-hot classes (B, K), zeros for no class."""
        h = F.silu(self.out_norm(self._walk(x, self._embed(time, classes))))
        out: Tensor = self.out_conv(h)
        return out

    def _embed(self, time: Tensor, classes: Tensor) -> Tensor:
        angles = positional_angles(time, self.base_channels, reaches_end=False)
        emb = F.silu(self.map_layer0(torch.cat([angles.cos(), angles.sin()], dim=1)))
        return F.silu(self.map_layer1(emb) + self.map_label(classes))


def _encoder(
    shape: DhariwalShape, kind: BlockKind, stem: int, *, residual: bool
) -> tuple[nn.ModuleDict, list[int]]:
    """Return the encoder and the channels of the skips that it leaves."""
    enc, skips, width, path_width = nn.ModuleDict(), list[int](), stem, shape.img_channels
    for level, mult in enumerate(shape.channel_mult):
        side = shape.img_resolution >> level
        if level == 0:
            enc[f"{side}x{side}_conv"] = nn.Conv2d(shape.img_channels, stem, 3, padding=1)
        else:
            enc[f"{side}x{side}_down"] = Block(width, width, kind, direction="down")
            if residual:
                enc[f"{side}x{side}_aux_residual"] = ConvDown(path_width, width, kind.taps)
                path_width = width
        skips.append(width)
        for i in range(shape.num_blocks):
            c_out = shape.model_channels * mult
            attention = side in shape.attn_resolutions
            enc[f"{side}x{side}_block{i}"] = Block(width, c_out, kind, attention=attention)
            width = c_out
            skips.append(width)
    return enc, skips


def _decoder(
    shape: DhariwalShape, kind: BlockKind, skips: list[int], *, attends_last: bool
) -> tuple[nn.ModuleDict, int]:
    """Return the decoder and the channels of its end.

    attends_last: of a level's blocks only the last attends.
    """
    dec, width, left = nn.ModuleDict(), skips[-1], list(skips)
    for level in reversed(range(len(shape.channel_mult))):
        side = shape.img_resolution >> level
        if level == len(shape.channel_mult) - 1:
            dec[f"{side}x{side}_in0"] = Block(width, width, kind, attention=True)
            dec[f"{side}x{side}_in1"] = Block(width, width, kind)
        else:
            dec[f"{side}x{side}_up"] = Block(width, width, kind, direction="up")
        for i in range(shape.num_blocks + 1):
            c_out = shape.model_channels * shape.channel_mult[level]
            attention = side in shape.attn_resolutions
            if attends_last:
                attention = attention and i == shape.num_blocks
            block = Block(width + left.pop(), c_out, kind, attention=attention)
            dec[f"{side}x{side}_block{i}"] = block
            width = c_out
    return dec, width
