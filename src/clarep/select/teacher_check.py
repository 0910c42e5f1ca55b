"""All that CLARID needs of a teacher, tried on a few images: what it gives, and what it costs."""

import math
from collections import Counter
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clarep.clarid.clarid import Clarid
from clarep.clarid.directions import project_out
from clarep.clarid.round_trip import autoencoder_psnr
from clarep.data.backdrops import load_backdrops
from clarep.data.decode_image import decode_image
from clarep.data.garments import CLASS_NAMES
from clarep.data.labelled import LabelledImages, UnreadableImage, to_unit_range
from clarep.engine.cost import Ledger, peak_memory, peak_memory_mb
from clarep.errors import UserError
from clarep.geometry.jacobian import probe_engine
from clarep.teachers.flash import AttentionCall
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.teacher import Teacher

_PHOTOGRAPH = ("skimage", "data/chelsea.png")
_STAGES = ("invert", "round trip", "directions", "features", "sample")  # of each image
_BATCH_SECONDS = 60.0  # that a batch may take, judged by one image taken alone


def parameter_counts(teacher: Teacher) -> dict[str, int]:
    """Return attribute -> number of parameters of every network that the teacher holds."""
    networks = {name: part for name, part in vars(teacher).items() if isinstance(part, nn.Module)}
    return {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}


def example_data(teacher: Teacher) -> LabelledImages | None:
    """Return the bundled images of the teacher's classes: of the ten garments, else none."""
    known = teacher.class_names == CLASS_NAMES and teacher.image_shape == (3, 32, 32)
    return load_backdrops("test") if known else None


def example_image(
    teacher: Teacher, path: Path | None = None
) -> tuple[Tensor, Int64[Tensor, " 1"], str]:
    """Return an image (1, C, H, W) that fits the teacher, its label 0, and what it is.

    path: an image file, cropped to its central square and resized; without it a photograph of
    scikit-image's.

    Raises UserError if the file cannot be read, or the teacher's images are neither RGB nor grey.
    """
    channels, height, width = teacher.image_shape
    if channels not in (1, 3):
        raise UserError(
            f"the teacher takes images of {channels} channels, and clarep loads RGB and grey: "
            "give another teacher"
        )
    source = Path(str(files(_PHOTOGRAPH[0]) / _PHOTOGRAPH[1])) if path is None else path
    side = max(height, width)
    try:
        pixels = decode_image(source, str(source), side)
    except UnreadableImage as error:
        raise UserError(
            f"cannot read {error.source}: {error.reason}; give a whole image file"
        ) from error
    top, left = (side - height) // 2, (side - width) // 2
    cut = torch.from_numpy(pixels[top : top + height, left : left + width].copy())
    images = cut.permute(2, 0, 1)[None]
    if channels == 1:
        images = images.float().mean(1, keepdim=True) / 255
    return images, torch.tensor([0]), "scikit-image's cat" if path is None else str(path)


@torch.no_grad()
def noisy_latent(
    clarid: Clarid, image: Tensor, labels: Int64[Tensor, " 1"]
) -> Float[Tensor, "1 c2 h2 w2"]:
    """Return x_0 + sigma eps of an image, on the teacher's device, once it was denoised.

    Raises UserError if its latent is not of latent_shape, or the denoiser does not stay finite.
    """
    teacher = clarid.teacher
    x0 = teacher.encode(teacher.accept_images(to_unit_range(image)).to(teacher.device))
    if tuple(x0.shape[1:]) != tuple(teacher.latent_shape):
        raise UserError(
            f"the teacher encodes an image to {tuple(x0.shape[1:])} and its latent_shape is "
            f"{teacher.latent_shape}: mend the adapter"
        )
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
    x = x0 + clarid.sigma_te * noise
    sigma = x.new_full((1,), clarid.sigma_te)
    denoised = teacher.denoiser(labels.to(teacher.device), clarid.config.guidance)(x, sigma)
    if not torch.isfinite(denoised).all():
        raise UserError(
            f"the denoiser gives NaN or infinity at sigma {clarid.sigma_te:g}: check the weights, "
            "give another t, or leave out bf16"
        )
    return x


def try_engines(
    clarid: Clarid, x: Float[Tensor, "1 c h w"], labels: Int64[Tensor, " 1"]
) -> dict[str, Any]:
    """Return the shape of the features, the engine that differentiates them, and what each gave.

    x: from `noisy_latent`. Raises UserError if no engine passes the adjoint test.
    """
    teacher = clarid.teacher
    cond = teacher.condition(labels.to(teacher.device))
    sigma = x.new_full((1,), clarid.sigma_te)

    def features(y: Tensor) -> Tensor:
        return teacher.features(y, sigma, cond, clarid.tap)

    clarid.engine, findings = probe_engine(features, x)  # so that no later time holds the choice
    with torch.no_grad():
        shape = list(features(x).shape[1:])
    return {"tap": clarid.tap, "features": shape, "engine": clarid.engine, "findings": findings}


def try_round_trip(
    clarid: Clarid, images: Tensor, labels: Int64[Tensor, " 1"]
) -> tuple[Float[Tensor, "1 c2 h2 w2"], dict[str, Any]]:
    """Return x_te, and the PSNR in dB of the image against itself inverted and decoded.

    autoencoder_psnr: against itself encoded and decoded alone; None for a pixel teacher.
    """
    x_te, quality = clarid.invert(images, labels)
    alone = float(autoencoder_psnr(clarid.teacher, images)[0])
    return x_te, {
        "psnr": float(quality[0]),
        "autoencoder_psnr": alone if math.isfinite(alone) else None,
        "class": clarid.teacher.class_names[int(labels[0])],
        "steps": clarid.config.steps,
    }


def try_basis(
    clarid: Clarid, x_te: Float[Tensor, "1 c h w"], labels: Int64[Tensor, " 1"]
) -> tuple[Float[Tensor, "1 c h w"], dict[str, Any]]:
    """Return x_te without its directions, and what these took: seconds, products, memory in MiB.

    memory_mb: resident memory beyond what was held before; None where /proc does not tell it.
    gpu_memory_mb: most that torch held on the GPU; None on the CPU.
    """
    device = torch.device(clarid.teacher.device)
    k = clarid.resolve_k(x_te, labels)
    before = clarid.ledger.jacobian_products
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with peak_memory() as peak:
        subspace = clarid.directions(x_te, labels)
    assert subspace is not None  # kind is top
    on_gpu = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return project_out(x_te, subspace.V), {
        "k": k,
        "seconds": clarid.ledger.seconds["directions"],
        "products": clarid.ledger.jacobian_products - before,
        "memory_mb": peak(),
        "gpu_memory_mb": on_gpu,
        "process_peak_memory_mb": peak_memory_mb(),
    }


def attention_calls(teacher: Teacher) -> list[dict[str, Any]]:
    """Return which calls of attention the teacher's features made so far, by which kernel.

    Empty but for a foreign family's teacher with the option attention flash.
    """
    calls: Counter[AttentionCall] = Counter()
    if isinstance(teacher, ForeignTeacher):
        calls = teacher.attention_calls
    return [asdict(call) | {"calls": calls[call]} for call in sorted(calls)]


def extrapolate(
    clarid: Clarid,
    latents: Float[Tensor, "1 c h w"],
    images: Tensor,
    labels: Int64[Tensor, " batch"],
    count: int,
) -> dict[str, Any]:
    """Return the seconds of CLARID for an image by stage, and `count` times their sum.

    Taken from a batch of the images, repeated where they are fewer; from as many of them as do not
    take too long, or from one alone.

    Args:
        clarid: has made the first image's round trip and found its directions, and nothing else.
        latents: the first image's, without its directions.
        images, labels: as CLARID takes them.
        count: of images, for which the cost is asked.
    """
    clarid.features(latents, labels[:1])
    clarid.sample(latents, labels[:1])
    each = {stage: clarid.ledger.seconds[stage] for stage in _STAGES}
    affordable = int(_BATCH_SECONDS / max(sum(each.values()), 1e-9))
    at_once = max(1, min(clarid.config.batch_size, count, affordable))
    if at_once > 1:
        some = torch.arange(at_once) % len(images)
        clarid.ledger = Ledger()
        clarid(images[some], labels[some])
        each = {stage: clarid.ledger.seconds[stage] / at_once for stage in _STAGES}
    return {
        "seconds_an_image": each,
        "images": count,
        "seconds": sum(each.values()) * count,
        "at_once": at_once,
    }
