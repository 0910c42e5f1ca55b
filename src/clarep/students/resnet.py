"""Residual networks for small images: two ResNet-8, ResNet-18 of a fine stem, WRN-16-2."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clarep.students.student import PENULTIMATE, StagedStudent, StudentInfo, activation_of


class PaddedSkip(nn.Module):
    """The skip without parameters, "option A": subsample, then zeros for the new channels."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new = stride, c_out - c_in

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.new))


def conv_skip(c_in: int, c_out: int, stride: int) -> nn.Module:
    """Build the skip that is a 1x1 convolution alone."""
    return nn.Conv2d(c_in, c_out, 1, stride, bias=False)


def projected_skip(c_in: int, c_out: int, stride: int) -> nn.Module:
    """Build the skip with parameters, "option B": a 1x1 convolution and its normalisation."""
    return nn.Sequential(conv_skip(c_in, c_out, stride), nn.BatchNorm2d(c_out))


Skip = Callable[[int, int, int], nn.Module]
"""Channels in, channels out and stride -> a skip."""
Block = Callable[[int, int, int, nn.Module], nn.Module]
"""The same and an activation -> a block."""


def _conv3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by its normalisation (He et al. 2015)."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, activation: nn.Module, skip: Skip
    ) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = _conv3(c_in, c_out, stride)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = _conv3(c_out, c_out)
        self.norm2 = nn.BatchNorm2d(c_out)
        same = c_in == c_out and stride == 1
        self.skip = nn.Identity() if same else skip(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.norm1(self.conv1(x)))
        out: Tensor = self.activation(self.skip(x) + self.norm2(self.conv2(h)))
        return out


class WideBlock(nn.Module):
    """Normalisation before each 3x3 convolution (Zagoruyko & Komodakis 2016), no dropout."""

    def __init__(self, c_in: int, c_out: int, stride: int, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = _conv3(c_in, c_out, stride)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.conv2 = _conv3(c_out, c_out)
        same = c_in == c_out and stride == 1
        self.skip = None if same else conv_skip(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.norm1(x))
        skip = x if self.skip is None else self.skip(h)
        out: Tensor = skip + self.conv2(self.activation(self.norm2(self.conv1(h))))
        return out


@dataclass(frozen=True)
class ResNetShape:
    """What tells one residual network from another."""

    block: Block
    widths: tuple[int, ...]
    """Channels of each stage."""
    depth: int = 1
    """Blocks a stage."""
    stem_stride: int = 1
    preactivated_from: int | None = None
    """Channels of the stem whose convolution stands alone, as each block begins with a
    normalisation and an activation; another pair follows the last. None: the pair is the stem's."""


RESNETS = {
    "resnet8": ResNetShape(partial(BasicBlock, skip=PaddedSkip), (16, 32, 64)),
    "resnet8-half": ResNetShape(partial(BasicBlock, skip=conv_skip), (32, 64, 112), stem_stride=2),
    "resnet18": ResNetShape(partial(BasicBlock, skip=projected_skip), (64, 128, 256, 512), 2),
    "wrn16-2": ResNetShape(WideBlock, (32, 64, 128), 2, preactivated_from=16),
}
"""resnet8: the CIFAR ResNet of 6n + 2 layers, n = 1; 75,000 weights (He et al. 2015, arXiv
1512.03385, section 4.2). resnet8-half: the bundled judge's, at half the resolution; 263,000.
resnet18: with a 3x3 stem of stride 1 and no pooling, for 32 px; 11.2 million (table 1 there);
slow on large images, as its stem keeps them. wrn16-2: wide, depth 16, width 2; 0.7 million
(Zagoruyko & Komodakis 2016, arXiv 1605.07146)."""


class ResNetStudent(StagedStudent):
    """Stem, stages that halve the image from the second on, global average, linear head.

    Layers: `stage1`, `stage2` ... and `penultimate`. Any image size. Of a wide network the stages'
    features come before the normalisation and activation of the next, those of `penultimate` after
    the last ones.
    """

    def __init__(self, info: StudentInfo, layer: str | None = None) -> None:
        """Build the network of RESNETS that `info.name` names."""
        shape = RESNETS[info.name]
        widths = shape.widths
        dims = {f"stage{i}": width for i, width in enumerate(widths, start=1)}
        super().__init__(info, layer, dims | {PENULTIMATE: widths[-1]})
        activation = activation_of(info, "relu")
        stem_width = shape.preactivated_from or widths[0]
        first = _conv3(info.image_shape[0], stem_width, shape.stem_stride)
        stages = []
        for i, (c_in, width) in enumerate(pairwise((stem_width, *widths))):
            blocks = [shape.block(c_in, width, 1 if i == 0 else 2, activation)]
            blocks += [shape.block(width, width, 1, activation) for _ in range(shape.depth - 1)]
            stages.append(nn.Sequential(*blocks))
        plain = shape.preactivated_from is None
        self.stem = nn.Sequential(first, nn.BatchNorm2d(stem_width), activation) if plain else first
        self.stages = nn.ModuleList(stages)
        self.last = (
            nn.Identity() if plain else nn.Sequential(nn.BatchNorm2d(widths[-1]), activation)
        )
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
