"""Residual networks for small images: two ResNet-8, ResNet-18 of a fine stem, WRN-16-2."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clarep.students.student import PENULTIMATE, StagedStudent, StudentInfo


class PaddedSkip(nn.Module):
    """The skip without parameters, "option A": subsample, then zeros for the new channels."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new = stride, c_out - c_in

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.new))


class ProjectedSkip(nn.Sequential):
    """The skip with parameters, "option B": a 1x1 convolution and its normalisation."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, 1, stride, bias=False),
            nn.BatchNorm2d(c_out),
        )


class ConvSkip(nn.Conv2d):
    """The skip that is a 1x1 convolution alone."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__(c_in, c_out, 1, stride, bias=False)


Skip = type[PaddedSkip] | type[ProjectedSkip] | type[ConvSkip]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by its normalisation (He et al. 2015)."""

    def __init__(self, c_in: int, c_out: int, stride: int, skip: Skip) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        same = c_in == c_out and stride == 1
        self.skip = nn.Identity() if same else skip(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.skip(x) + self.norm2(self.conv2(h)), inplace=True)


class WideBlock(nn.Module):
    """Normalisation before each 3x3 convolution (Zagoruyko & Komodakis 2016), no dropout."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        same = c_in == c_out and stride == 1
        self.skip = None if same else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x), inplace=True)
        skip = x if self.skip is None else self.skip(h)
        out: Tensor = skip + self.conv2(F.relu(self.norm2(self.conv1(h)), inplace=True))
        return out


class ResNetStudent(StagedStudent):
    """Stem, stages that halve the image from the second on, global average, linear head.

    Layers: `stage1`, `stage2` ... and `penultimate`. Any image size; the stem keeps it.
    """

    def __init__(
        self,
        info: StudentInfo,
        layer: str | None,
        *,
        stem: nn.Module,
        stages: list[nn.Sequential],
        widths: tuple[int, ...],
        last: nn.Module,
    ) -> None:
        """Take the parts; `last` stands between the last stage and the average."""
        dims = {f"stage{i}": width for i, width in enumerate(widths, start=1)}
        super().__init__(info, layer, dims | {PENULTIMATE: widths[-1]})
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.last = last
        self.head = nn.Linear(widths[-1], len(info.class_names))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def walk(self, x: Float[Tensor, "batch c h w"]) -> Iterator[tuple[str, Tensor]]:
        # Channels last trains a fifth faster on a CPU; what follows keeps the format.
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        for i, stage in enumerate(self.stages, start=1):
            h = stage(h)  # (B, width, H / 2^(i-1), W / 2^(i-1))
            yield f"stage{i}", h.mean(dim=(2, 3))
        yield PENULTIMATE, self.last(h).mean(dim=(2, 3))


def _stem(channels: int, width: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _basic_student(
    info: StudentInfo,
    layer: str | None,
    widths: tuple[int, ...],
    blocks: int,
    skip: Skip,
    *,
    stem_stride: int = 1,
) -> ResNetStudent:
    """Build a ResNet of `blocks` basic blocks a stage."""
    stages, c_in = [], widths[0]
    for i, width in enumerate(widths):
        first = BasicBlock(c_in, width, 1 if i == 0 else 2, skip)
        rest = [BasicBlock(width, width, 1, skip) for _ in range(blocks - 1)]
        stages.append(nn.Sequential(first, *rest))
        c_in = width
    stem = _stem(info.image_shape[0], widths[0], stem_stride)
    last = nn.Identity()
    return ResNetStudent(info, layer, stem=stem, stages=stages, widths=widths, last=last)


def resnet8(info: StudentInfo, layer: str | None = None) -> ResNetStudent:
    """Build the CIFAR ResNet of 6n + 2 layers, n = 1, widths 16, 32, 64; 75,000 weights.

    He et al. 2015, arXiv 1512.03385, section 4.2, with its parameter-free skips (option A).
    """
    return _basic_student(info, layer, (16, 32, 64), 1, PaddedSkip)


def resnet8_half(info: StudentInfo, layer: str | None = None) -> ResNetStudent:
    """Build the bundled judge's ResNet-8: at half the resolution, of widths 32, 64, 112.

    263,000 weights; its skips are 1x1 convolutions alone.
    """
    return _basic_student(info, layer, (32, 64, 112), 1, ConvSkip, stem_stride=2)


def resnet18(info: StudentInfo, layer: str | None = None) -> ResNetStudent:
    """Build ResNet-18 with a 3x3 stem of stride 1 and no pooling, for 32 px; 11.2 million weights.

    He et al. 2015, arXiv 1512.03385, table 1; on large images it is slow, as its stem keeps them.
    """
    return _basic_student(info, layer, (64, 128, 256, 512), 2, ProjectedSkip)


def wrn_16_2(info: StudentInfo, layer: str | None = None) -> ResNetStudent:
    """Build a wide residual network, depth 16, width 2; 0.7 million weights.

    Zagoruyko & Komodakis 2016, arXiv 1605.07146. The stages' features come before the
    normalisation and rectifier of the next, those of `penultimate` after the last ones.
    """
    widths, stages, c_in = (32, 64, 128), [], 16
    for i, width in enumerate(widths):
        first = WideBlock(c_in, width, 1 if i == 0 else 2)
        stages.append(nn.Sequential(first, WideBlock(width, width, 1)))
        c_in = width
    stem = nn.Conv2d(info.image_shape[0], 16, 3, padding=1, bias=False)
    last = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True))
    return ResNetStudent(info, layer, stem=stem, stages=stages, widths=widths, last=last)
