"""How a teacher is trained, and what these settings must hold."""

from dataclasses import asdict, dataclass, field

from clarep.data.labelled import LabelledImages
from clarep.engine.seeds import check_seed
from clarep.errors import UserError
from clarep.teachers.checks import require, require_counts, require_positive, require_share
from clarep.teachers.unet import GROUPS, UNetConfig, UNetShape


@dataclass(frozen=True)
class TrainConfig:
    """How a teacher is trained."""

    steps: int = 6_500
    """Optimiser steps."""
    batch_size: int = 96
    """Images a step."""
    learning_rate: float = 1e-3
    """Peak rate of Adam; it falls to 0 along a half cosine."""
    warmup_steps: int = 300
    """Steps over which the rate rises linearly to its peak."""
    label_dropout: float = 0.15
    """Share of labels replaced by the null label, for classifier-free guidance."""
    ema_halflife_kimg: float = 15.0
    """Half-life of the weights' moving average, in thousands of images."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    sigma_min: float = 0.01
    """Lowest noise level trained on."""
    sigma_max: float = 80.0
    """Highest noise level trained on."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    evaluate_every: int = 1_000
    """Steps between held-out losses; each is measured with the next record, every 50 steps."""
    seed: int = 0
    """Seed of initial weights, batches, labels dropped and noise."""
    unet: UNetShape = field(default_factory=UNetShape)
    """Shape of the network; image size and classes are those of the data."""


def check_train(config: TrainConfig) -> None:
    """Raise UserError, in one sentence, for a setting that nothing can be trained with."""
    require_counts(config, "steps", "batch_size", "checkpoint_every", "evaluate_every")
    require_positive(config, "learning_rate", "ema_halflife_kimg", "clip_norm")
    require_positive(config, "sigma_min", "sigma_max")
    require_share(config, "label_dropout")
    check_seed(config.seed)
    warmup, low, high = config.warmup_steps, config.sigma_min, config.sigma_max
    require(warmup >= 0, "warmup_steps", warmup, "is negative: give 0 or more")
    require(low < high, "sigma_min", low, f"is not below `sigma_max={high}`: lower it")
    _check_unet(config.unet)


def _check_unet(unet: UNetShape) -> None:
    counts = ("patch", "encoder_blocks", "decoder_blocks", "embed_dim")
    for name in counts:
        value = getattr(unet, name)
        require(value >= 1, f"unet.{name}", value, "is below 1: give a whole number from 1 up")
    sigma = unet.sigma_data
    require(0 < sigma < float("inf"), "unet.sigma_data", sigma, "is not a number above 0: give 0.5")
    require(len(unet.widths) > 0, "unet.widths", "()", "is empty: give one width a level")
    whole = all(width >= 1 and width % GROUPS == 0 for width in unet.widths)
    widths = " ".join(str(width) for width in unet.widths)
    require(whole, "unet.widths", widths, f"are not all multiples of {GROUPS}: give some that are")


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
    drawn = {
        "image_size": height,
        "image_channels": channels,
        "num_classes": len(data.class_names),
    }
    return UNetConfig(**asdict(shape) | drawn)


def check_held_out(data: LabelledImages, held_out: LabelledImages) -> None:
    """Raise UserError if the held-out images are not of the training set's classes and size."""
    if held_out.class_names != data.class_names:
        raise UserError(
            f"{held_out.name} has other classes than {data.name}: give both splits the same ones"
        )
    size, other = (tuple(some.images([0]).shape[2:]) for some in (data, held_out))
    if size != other:
        raise UserError(
            f"images of {held_out.name} are {other[1]}x{other[0]} and those of {data.name} "
            f"{size[1]}x{size[0]}: give `image_size={min(size)}`, say"
        )
