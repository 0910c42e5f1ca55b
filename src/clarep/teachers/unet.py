"""Our small class-conditional U-Net, with EDM preconditioning.

The raw network works on pixels folded 2 by 2 into channels (space to depth), so that 32x32
trains on a CPU. The preconditioning is Karras et al. 2022 (arXiv 2206.00364, Table 1).
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clarep.engine.bounds import Within

GROUPS = 8
"""Of every GroupNorm: each width is a multiple of it."""


@dataclass(frozen=True)
class UNetShape:
    """Shape of the network, whatever it draws."""

    patch: Annotated[int, Within(1)] = 2
    """Side of the pixel squares that are folded into channels at the stem."""
    widths: tuple[Annotated[int, Within(1)], ...] = (32, 64, 128)
    """Channels of each resolution level, from fine to coarse; multiples of 8."""
    encoder_blocks: Annotated[int, Within(1)] = 1
    """Residual blocks a level on the way down."""
    decoder_blocks: Annotated[int, Within(1)] = 1
    """Residual blocks a level on the way up."""
    embed_dim: Annotated[int, Within(1)] = 256
    """Width of the embedding of noise level and class."""
    sigma_data: Annotated[float, Within(0, ends="(]")] = 1.0
    """Standard deviation of the data that the preconditioning assumes; 1 is v-prediction but for a
    sign, 0.5 what EDM takes for images. CLARID hangs on it (docs/teachers.md)."""


@dataclass(frozen=True)
class UNetConfig(UNetShape):
    """Shape of the network, and what it draws."""

    image_size: int = 32
    """Height and width of the images, in pixels."""
    image_channels: int = 3
    """Channels of the images."""
    num_classes: int = 10
    """Number of classes; one more embedding serves as the null label."""


def edm_scalings(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return c_skip, c_out and c_in of EDM for data of standard deviation sigma_data, (B,) each."""
    total = sigma**2 + sigma_data**2
    c_out = sigma * sigma_data / torch.sqrt(total)
    return sigma_data**2 / total, c_out, torch.rsqrt(total)


def sigma_from_t(t: Tensor) -> Tensor:
    """Return sigma = tan(pi t / 2): the cosine schedule's noise level at time t in (0, 1)."""
    return torch.tan(t * (math.pi / 2))


class _ResBlock(nn.Module):
    """GroupNorm residual block; noise and class enter as a scale and a shift."""

    def __init__(self, c_in: int, c_out: int, embed_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.affine = nn.Linear(embed_dim, 2 * c_out)
        self.norm2 = nn.GroupNorm(GROUPS, c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        out: Tensor = self.skip(x) + h
        return out


class _Stage(nn.ModuleList):
    """The residual blocks of one level, one after another."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for block in self:
            x = block(x, emb)
        return x


class _Attention(nn.Module):
    """Single-head self-attention over positions, written out so that forward AD works."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)  # (B, C, HW) each
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), dim=-1)
        mixed: Tensor = self.out((v @ weights.transpose(1, 2)).unflatten(2, x.shape[2:]))
        return x + mixed


class _Mid(nn.Module):
    """The bottleneck: a residual block, attention, a residual block."""

    def __init__(self, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.block1 = _ResBlock(channels, channels, embed_dim)
        self.attention = _Attention(channels)
        self.block2 = _ResBlock(channels, channels, embed_dim)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        out: Tensor = self.block2(self.attention(self.block1(x, emb)), emb)
        return out


class UNet(nn.Module):
    """Class-conditional U-Net with EDM preconditioning.

    `forward` is the denoiser D(x; sigma, label) of shape (B, C, H, W); `features` runs the
    encoder only as far as the tap asks for.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, embed = config.widths, config.embed_dim
        folded = config.image_channels * config.patch**2
        self.noise_mlp = nn.Sequential(nn.Linear(64, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.label_embedding = nn.Embedding(config.num_classes + 1, embed)
        self.stem = nn.Conv2d(folded, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        self.downsamples = nn.ModuleList()
        self.up_blocks = nn.ModuleList()
        self.upsamples = nn.ModuleList()
        for level, width in enumerate(widths):
            self.down_blocks.append(
                _Stage(_ResBlock(width, width, embed) for _ in range(config.encoder_blocks))
            )
            if level + 1 < len(widths):
                self.downsamples.append(nn.Conv2d(width, widths[level + 1], 3, stride=2, padding=1))
        self.mid = _Mid(widths[-1], embed)
        for level in reversed(range(len(widths))):
            width = widths[level]
            blocks = [_ResBlock(2 * width, width, embed)]
            blocks += [_ResBlock(width, width, embed) for _ in range(config.decoder_blocks - 1)]
            self.up_blocks.append(_Stage(blocks))
            if level > 0:
                self.upsamples.append(nn.Conv2d(width, widths[level - 1], 1))
        self.out_norm = nn.GroupNorm(GROUPS, widths[0])
        self.out = nn.Conv2d(widths[0], folded, 3, padding=1)
        nn.init.zeros_(self.out.weight)

    def taps(self) -> dict[str, tuple[int, int]]:
        """Return tap name -> (channels, stride in pixels), in the order of the forward pass."""
        config, levels = self.config, len(self.config.widths)
        info = {f"down{i}": (w, config.patch * 2**i) for i, w in enumerate(config.widths)}
        info["mid"] = (config.widths[-1], config.patch * 2 ** (levels - 1))
        for i in reversed(range(levels)):
            info[f"up{i}"] = (config.widths[i], config.patch * 2**i)
        return info

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Denoise x (B, C, H, W) at noise levels sigma (B,) given labels (B,) int64."""
        scalings = edm_scalings(sigma[:, None, None, None], self.config.sigma_data)
        return scalings[0] * x + scalings[1] * self._run(x, sigma, labels, tap=None)

    def features(self, x: Tensor, sigma: Tensor, labels: Tensor, tap: str) -> Tensor:
        """Return the feature map at `tap`, (B, channels, H/stride, W/stride)."""
        return self._run(x, sigma, labels, tap)

    def _embed(self, sigma: Tensor, labels: Tensor) -> Tensor:
        freqs = torch.exp(torch.linspace(0, math.log(100), 32, device=sigma.device))
        angles = (sigma.log() / 4)[:, None] * freqs.to(sigma.dtype)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)  # (B, 64)
        return F.silu(self.noise_mlp(waves) + self.label_embedding(labels))

    def _run(self, x: Tensor, sigma: Tensor, labels: Tensor, tap: str | None) -> Tensor:
        """Run the raw network as far as `tap`, or to its end for None."""
        emb = self._embed(sigma, labels)
        h: Tensor = x * edm_scalings(sigma[:, None, None, None], self.config.sigma_data)[2]
        h = self.stem(F.pixel_unshuffle(h, self.config.patch))
        skips = []
        for level, stage in enumerate(self.down_blocks):
            h = stage(h, emb)
            skips.append(h)
            if tap == f"down{level}":
                return h
            if level < len(self.downsamples):
                h = self.downsamples[level](h)
        h = self.mid(h, emb)
        if tap == "mid":
            return h
        for i, stage in enumerate(self.up_blocks):
            h = stage(torch.cat([h, skips.pop()], dim=1), emb)
            if tap == f"up{len(skips)}":
                return h
            if i < len(self.upsamples):
                h = F.interpolate(self.upsamples[i](h), scale_factor=2, mode="nearest")
        h = self.out(F.silu(self.out_norm(h)))
        return F.pixel_shuffle(h, self.config.patch)
