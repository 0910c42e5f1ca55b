"""How a student is trained, whatever the method."""

from dataclasses import dataclass
from typing import Annotated, Literal

from clarep.engine.bounds import Seed, Within


@dataclass(frozen=True)
class TrainingConfig:
    """How a student is trained, whatever the method."""

    epochs: Annotated[int, Within(1)] = 30
    """Passes over the training images."""
    batch_size: Annotated[int, Within(2)] = 128
    """Images a step, over all processes; an epoch is cut into equal batches of about that."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with Nesterov momentum, or AdamW (try a rate of 0.004)."""
    learning_rate: Annotated[float, Within(0, ends="(]")] = 0.2
    """Peak rate."""
    momentum: Annotated[float, Within(0, 1, "[)")] = 0.9
    """Of sgd."""
    weight_decay: Annotated[float, Within(0)] = 5e-4
    """On weights; biases and normalisations have none."""
    schedule: Literal["cosine", "one-cycle"] = "cosine"
    """Both fall to 0 along a half cosine; cosine rises to its peak in a line from 0, one-cycle
    along a half cosine from 1/25 of it (Smith & Topin 2018), for a larger warm-up share."""
    warmup_share: Annotated[float, Within(0, 1, "[)")] = 0.1
    """Share of the steps over which the rate rises; 0 for none."""
    clip_norm: Annotated[float, Within(0, ends="(]")] = 5.0
    """Largest norm of the gradient."""
    label_smoothing: Annotated[float, Within(0, 1, "[)")] = 0.0
    """Share of each target that is spread over all classes."""
    crop_padding: Annotated[int, Within(0)] = 4
    """Pixels by which images are mirrored outwards before a random crop; 0 for none."""
    flip: bool = True
    """Mirror images with probability one half; no-flip leaves it out."""
    cutout: Annotated[int, Within(0)] = 0
    """Side of the grey square put on each image, in pixels (DeVries & Taylor 2017); 0 for none."""
    ema: Annotated[float, Within(0, 1, "[)")] = 0.0
    """Share of the weights' moving average that each step keeps, such as 0.998; 0 is off, else the
    average is what is validated and stored."""
    validation_share: Annotated[float, Within(0, 1, "[)")] = 0.1
    """Share of every class of the training images that is kept apart, to pick the epoch on."""
    pick: Literal["best", "doubted", "last"] = "best"
    """Epoch whose weights are stored: the best on the validation share, the best on those of it
    that an audit's teacher doubts, or the last."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Type of the student's passes; losses stay fp32. fp16 needs a GPU."""
    memory_mb: Annotated[float, Within(0)] = 2048.0
    """Images are decoded once and kept if they take at most this much memory, in MiB; else they are
    decoded anew in every epoch."""
    workers: Annotated[int, Within(0)] = 2
    """Processes that decode images which do not fit into memory."""
    seed: Seed = 0
    """Seed of initial weights, validation share, batches, augmentation and everything else."""
    canonical_batch_size: Annotated[int, Within(2)] | None = None
    """Canonical samples a step, over all processes; 0.35 of the batch unless given."""
    teacher_features: Literal["pooled", "flat"] = "flat"
    """The teacher's features as they enter the CKA: averaged over the image, or all of them."""
    unbiased_cka: bool = False
    """Estimate the CKA without the bias that small batches give it."""

    @property
    def canonical_batch(self) -> int:
        """Canonical samples a step."""
        given = self.canonical_batch_size
        return max(2, round(0.35 * self.batch_size)) if given is None else given
