"""How a teacher is trained, and what these settings must hold."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

from clarep.data.labelled import LabelledImages
from clarep.engine.bounds import Seed, Within, check_bounds
from clarep.errors import UserError
from clarep.teachers.unet import GROUPS, UNetConfig, UNetShape


@dataclass(frozen=True)
class TrainConfig:
    """How a teacher is trained."""

    steps: Annotated[int, Within(1)] = 6_500
    """Optimiser steps."""
    batch_size: Annotated[int, Within(1)] = 96
    """Images a step."""
    learning_rate: Annotated[float, Within(0, ends="(]")] = 1e-3
    """Peak rate of Adam; it falls to 0 along a half cosine."""
    warmup_steps: Annotated[int, Within(0)] = 300
    """Steps over which the rate rises linearly to its peak."""
    label_dropout: Annotated[float, Within(0, 1, "[)")] = 0.15
    """Share of labels replaced by the null label, for classifier-free guidance."""
    ema_halflife_kimg: Annotated[float, Within(0, ends="(]")] = 15.0
    """Half-life of the weights' moving average, in thousands of images."""
    clip_norm: Annotated[float, Within(0, ends="(]")] = 1.0
    """Largest norm of the gradient."""
    sigma_min: Annotated[float, Within(0, ends="(]")] = 0.01
    """Lowest noise level trained on."""
    sigma_max: Annotated[float, Within(0, ends="(]")] = 80.0
    """Highest noise level trained on."""
    checkpoint_every: Annotated[int, Within(1)] = 250
    """Steps between checkpoints."""
    evaluate_every: Annotated[int, Within(1)] = 1_000
    """Steps between held-out losses; each is measured with the next record, every 50 steps."""
    seed: Seed = 0
    """Seed of initial weights, batches, labels dropped and noise."""
    unet: UNetShape = field(default_factory=UNetShape)
    """Shape of the network; image size and classes are those of the data."""


def check_train(config: TrainConfig) -> None:
    """Raise UserError, in one sentence, for a setting that nothing can be trained with."""
    check_bounds(config)
    low, high = config.sigma_min, config.sigma_max
    if low >= high:
        raise UserError(f"`sigma_min={low}` is not below `sigma_max={high}`: lower it")
    widths = " ".join(map(str, config.unet.widths))
    if not widths:
        raise UserError("`unet.widths` is empty: give one width a level")
    if any(width % GROUPS for width in config.unet.widths):
        raise UserError(f"`unet.widths={widths}` are not all multiples of {GROUPS}: give some")


def unet_for(data: LabelledImages, shape: UNetShape) -> UNetConfig:
    """Return the configuration of a network of this shape for the images and classes of `data`.

    Raises UserError if the images are not square, or of a size that the levels cannot halve.
    """
    channels, height, width = data.images([0]).shape[1:]
    if height != width:
        raise UserError(
            f"{data.name} holds images of {width}x{height} pixels and the network takes square "
            f"ones: give `image_size={min(width, height)}`, say"
        )
    levels = len(shape.widths)
    multiple = shape.patch * 2 ** (levels - 1)
    if height % multiple:
        raise UserError(
            f"image size {height} is not a multiple of {multiple}, which "
            f"`unet.patch={shape.patch}` and {levels} `unet.widths` need: change these, "
            "or resize the data (`image_size`)"
        )
    drawn = {"image_size": height, "image_channels": channels, "num_classes": len(data.class_names)}
    return UNetConfig(**asdict(shape) | drawn)
