"""How a student is trained, and what these settings must hold."""

from dataclasses import dataclass, field
from typing import Literal

from clarep.data.load import DataConfig
from clarep.engine.seeds import check_seed
from clarep.errors import UserError
from clarep.teachers.checks import require, require_counts, require_positive, require_share

STUDENT_DATA = DataConfig(correlation=0.9)
"""What students learn from unless told otherwise: a regime that can tell, since where a
background says nothing of the class none misleads."""


@dataclass(frozen=True)
class RivalsConfig:
    """What single rivals of CaDistill need; every other method passes over it."""

    supcon_weight: float = 1.0
    """supcon: weight of the contrastive term beside the classification loss."""
    supcon_temperature: float = 0.1
    """supcon: temperature of the cosine similarities."""
    kd_weight: float = 0.9
    """kd: share of the loss that is the distance to the classifier's softened answers."""
    kd_temperature: float = 4.0
    """kd: temperature of both answers."""
    rkd_distance_weight: float = 25.0
    """rkd: weight of the term over pairwise distances."""
    rkd_angle_weight: float = 50.0
    """rkd: weight of the term over angles of triplets."""
    adv_eps_255: float = 2.0
    """adv: L-infinity radius of the attack trained on, in steps of 1/255."""
    adv_steps: int = 5
    """adv: steps of the attack; each costs one more pass forward and back."""
    augmix_severity: float = 3.0
    """augment: strength of each operation, above 0 up to 10."""
    augmix_weight: float = 12.0
    """augment: weight of the consistency term."""
    diffusion_t: float = 0.3
    """diffusion-features: noise level of the images whose features are matched, as a share of the
    teacher's time axis."""
    diffusion_form: Literal["cka", "cosine"] = "cka"
    """diffusion-features: 1 - CKA over the batch, or cosine distance behind a linear map."""
    diffusion_weight: float = 1.0
    """diffusion-features: weight of the matching term."""
    diffusion_share: float = 1.0
    """diffusion-features: share of every class whose features are computed, once, one pass of the
    teacher up to the tap an image."""
    diffusion_tap: str = "mid"
    """diffusion-features: layer of the teacher; mid is the family's default."""
    generated_share: float = 0.1
    """generated: samples of the teacher that are added, as a share of the training images."""
    generated_guidance: float = 3.0
    """generated: classifier-free guidance; 1 is none."""
    generated_steps: int = 18
    """generated: Heun steps of each sample."""


@dataclass(frozen=True)
class DistillConfig:
    """How a student is trained."""

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images a step, over all processes; an epoch is cut into equal batches of about that."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with Nesterov momentum, or AdamW (try a rate of 0.004)."""
    learning_rate: float = 0.2
    """Peak rate."""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 5e-4
    """On weights; biases and normalisations have none."""
    schedule: Literal["cosine", "one-cycle"] = "cosine"
    """Both fall to 0 along a half cosine; cosine rises to its peak in a line from 0, one-cycle
    along a half cosine from 1/25 of it (Smith & Topin 2018), for a larger warm-up share."""
    warmup_share: float = 0.1
    """Share of the steps over which the rate rises; 0 for none."""
    clip_norm: float = 5.0
    """Largest norm of the gradient."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all classes."""
    crop_padding: int = 4
    """Pixels by which images are mirrored outwards before a random crop; 0 for none."""
    flip: bool = True
    """Mirror every second image."""
    cutout: int = 0
    """Side of the grey square put on each image, in pixels (DeVries & Taylor 2017); 0 for none."""
    ema: float = 0.0
    """Share of the weights' moving average that each step keeps, such as 0.998; 0 is off, else the
    average is what is validated and stored."""
    validation_share: float = 0.1
    """Share of every class of the training images that is kept apart, to pick the epoch on."""
    pick: Literal["best", "last"] = "best"
    """Epoch whose weights are stored: the best on the validation share, or the last."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Type of the student's passes; losses stay fp32. fp16 needs a GPU."""
    memory_mb: float = 2048.0
    """Images are decoded once and kept if they take at most this much memory, in MiB; else they are
    decoded anew in every epoch."""
    workers: int = 2
    """Processes that decode images which do not fit into memory."""
    seed: int = 0
    """Seed of initial weights, validation share, batches, augmentation and everything else."""
    lambda_align: float = 1.0
    """cadistill: weight of the alignment of training images with canonical samples; 0 is off."""
    lambda_cano: float = 0.5
    """cadistill: weight of the clustering of canonical samples; 0 is off."""
    lambda_dist: float = 1.0
    """cadistill: weight of 1 - CKA with the teacher's canonical features; 0 is off."""
    warmup_align: float = 0.0
    """Epochs over which lambda-align rises from 0."""
    warmup_cano: float = 0.0
    """Epochs over which lambda-cano rises from 0."""
    warmup_dist: float = 0.0
    """Epochs over which lambda-dist rises from 0."""
    temperature_align: float = 0.2
    """Temperature of the cosine similarities in the alignment by class."""
    temperature_cano: float = 0.2
    """Temperature of the cosine similarities in the clustering."""
    align_form: Literal["class", "instance", "both"] = "class"
    """Align an image with the canonical samples of its class, with its own one, or both."""
    unbiased_cka: bool = False
    """Estimate the CKA without the bias that small batches give it."""
    canonical_batch_size: int | None = None
    """Canonical samples a step, over all processes; 0.35 of the batch unless given."""
    queue_size: int = 0
    """Canonical samples of earlier steps that enter the CKA too; 0 for none."""
    teacher_features: Literal["pooled", "flat"] = "flat"
    """The teacher's features as they enter the CKA: averaged over the image, or all of them."""
    rivals: RivalsConfig = field(default_factory=RivalsConfig)
    """Options of single rivals."""

    @property
    def canonical_batch(self) -> int:
        """Canonical samples a step."""
        given = self.canonical_batch_size
        return max(2, round(0.35 * self.batch_size)) if given is None else given


def check_distill(config: DistillConfig) -> None:
    """Raise UserError, in one sentence, for a setting that nothing can be trained with."""
    require_counts(config, "epochs")
    _require_at_least(config, 2, "batch_size")
    if config.canonical_batch_size is not None:
        _require_at_least(config, 2, "canonical_batch_size")
    require_positive(config, "learning_rate", "clip_norm", "temperature_align", "temperature_cano")
    require_share(config, "momentum", "label_smoothing", "ema", "validation_share", "warmup_share")
    _require_not_negative(
        config,
        *("weight_decay", "crop_padding", "cutout", "memory_mb", "workers"),
        *("lambda_align", "lambda_cano", "lambda_dist", "queue_size"),
        *("warmup_align", "warmup_cano", "warmup_dist"),
    )
    check_seed(config.seed)
    if config.pick == "best" and config.validation_share == 0:
        raise UserError(
            "`validation_share=0` leaves nothing to pick the best epoch on: "
            "give a share such as 0.1, or `pick=last`"
        )
    _check_rivals(config.rivals)


def _check_rivals(rivals: RivalsConfig) -> None:
    names = ("supcon_temperature", "kd_temperature", "augmix_severity", "adv_eps_255")
    for name in names:
        value = getattr(rivals, name)
        rule = "is not a finite number above 0: give one"
        require(0 < value < float("inf"), f"rivals.{name}", value, rule)
    for name in ("adv_steps", "generated_steps"):
        value = getattr(rivals, name)
        require(value >= 1, f"rivals.{name}", value, "is below 1: give a whole number from 1 up")
    for name in (
        *("supcon_weight", "rkd_distance_weight", "rkd_angle_weight"),
        *("augmix_weight", "diffusion_weight", "generated_guidance"),
    ):
        value = getattr(rivals, name)
        require(0 <= value < float("inf"), f"rivals.{name}", value, "is not a number from 0 up")
    require(0 <= rivals.kd_weight <= 1, "rivals.kd_weight", rivals.kd_weight, "is outside [0, 1]")
    for name in ("diffusion_share", "generated_share"):
        value = getattr(rivals, name)
        require(0 < value <= 1, f"rivals.{name}", value, "is outside (0, 1]: give a share")
    eps, severity = rivals.adv_eps_255, rivals.augmix_severity
    require(eps <= 255, "rivals.adv_eps_255", eps, "is above 255, the whole range: give 2, say")
    require(severity <= 10, "rivals.augmix_severity", severity, "is above 10: give 3, say")


def _require_at_least(config: DistillConfig, least: int, name: str) -> None:
    value = getattr(config, name)
    require(value >= least, name, value, f"is below {least}: give a whole number from {least} up")


def _require_not_negative(config: DistillConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        rule = "is not a finite number from 0 up: give one"
        require(0 <= value < float("inf"), name, value, rule)
