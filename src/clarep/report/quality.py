"""How good a teacher's samples are: a classifier's accuracy, a Fréchet distance in its features.

The distance is never called FID: FID is defined on another network's features.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from clarep.data.fits import check_alike, kind_of
from clarep.data.labelled import to_uint8
from clarep.engine.arrays import check_finite
from clarep.engine.artefacts import atomic_path
from clarep.engine.tensors import note_identity
from clarep.sampling.ode import decode
from clarep.select.judging import Scorer
from clarep.students.foreign_students import is_foreign, load_foreign
from clarep.students.student import Student
from clarep.students.student_files import load_student
from clarep.teachers.teacher import Teacher

_GRID_COLUMNS = 8
_GRID_ROWS = 20  # of more classes, the first
_GRID_GUIDANCE = 2.0
_GRID_STEPS = 20


@dataclass(frozen=True)
class SampleSettings:
    """Which samples a teacher is measured on."""

    guidances: tuple[float, ...] = (1.0, 3.0)
    """Guidance strengths."""
    images_per_class: int = 100
    """Samples of each class; as many test and training images are drawn."""
    steps: int = 25
    """Heun steps from sigma_max to sigma_min."""
    seed: int = 0
    """Of the noise, and of the choice of real images."""


def student_judge(student: Student) -> Scorer:
    """Return a student as a judge: images (B, C, H, W) in [-1, 1] to logits (B, K)."""
    return lambda images: classify_all(student, images)[1]


def load_classifier(place: Path | None, teacher: Teacher) -> Student | None:
    """Return the student at `place`, which is to judge the teacher's samples; None for None.

    place: a run or a file of ours, or another library's model as `load_foreign` names it.
    Raises UserError if there is none, or it is of other classes or images than the teacher's.
    """
    if place is None:
        return None
    student: Student
    if is_foreign(str(place)):
        model = load_foreign(str(place))
        student = model.student(teacher.class_names, teacher.image_shape)
        note_identity(student, f"{model.spec.partition(':')[0]} {student.identity}")
    else:
        student = load_student(place)
    check_alike("the classifier's", kind_of(student.info), "the teacher", kind_of(teacher))
    return student


def frechet_distance(a: Float[Tensor, "many dim"], b: Float[Tensor, "more dim"]) -> float:
    """Return the squared Fréchet distance of the Gaussians fitted to two sets of features.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), Dowson & Landau 1982. Computed
    in float64; each set needs at least two rows. Raises UserError for what is not finite.
    """
    for features in (a, b):
        check_finite(features, "features", "look for NaN in the teacher or the classifier")
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.atleast_2d(torch.cov(a.T)), torch.atleast_2d(torch.cov(b.T))
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = torch.linalg.eigvalsh(root_a @ cov_b @ root_a)
    cross = product.clamp(min=0).sqrt().sum()  # rounding leaves eigenvalues just below 0
    apart = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return max(0.0, float(apart + cov_a.trace() + cov_b.trace() - 2 * cross))


@torch.no_grad()
def sample_classes(
    teacher: Teacher,
    labels: Int64[Tensor, " batch"],
    guidance: float,
    *,
    steps: int,
    seed: int,
    chunk: int = 100,
) -> Float[Tensor, "batch c h w"]:
    """Draw one image of each label from pure noise by Heun's method, clamped to [-1, 1].

    The noise depends on seed and position alone, not on guidance or chunk.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), *teacher.latent_shape, generator=generator)
    images = []
    for some, eps in zip(labels.split(chunk), noise.split(chunk), strict=True):
        denoise = teacher.denoiser(some.to(teacher.device), guidance)
        x = teacher.sigma_max * eps.to(teacher.device)
        latents = decode(denoise, x, teacher.sigma_max, teacher.sigma_min, steps, solver="heun")
        images.append(teacher.decode(latents).cpu())
    return torch.cat(images).clamp(-1, 1)


def write_sample_grid(teacher: Teacher, path: Path) -> None:
    """Write a PNG of samples: a row a class, at most 20, always of the same noise."""
    rows = min(teacher.num_classes, _GRID_ROWS)
    labels = torch.arange(rows).repeat_interleave(_GRID_COLUMNS)
    images = to_uint8(sample_classes(teacher, labels, _GRID_GUIDANCE, steps=_GRID_STEPS, seed=0))
    channels, height, width = images.shape[1:]
    grid = images.unflatten(0, (rows, _GRID_COLUMNS)).permute(0, 3, 1, 4, 2)  # (R, H, C, W, 3)
    pixels = grid.reshape(rows * height, _GRID_COLUMNS * width, channels)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels.cpu().numpy()).save(temporary, format="PNG")


@torch.no_grad()
def classify_all(
    student: Student, images: Float[Tensor, "batch c h w"], chunk: int = 250
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch classes"]]:
    """Return a student's features and logits of images in [-1, 1]."""
    parts = [student.both(((some + 1) / 2).clamp(0, 1)) for some in images.split(chunk)]
    features, logits = (torch.cat(one) for one in zip(*parts, strict=True))
    check_finite(logits, "the classifier's logits", "look for NaN in the teacher or the classifier")
    return features, logits


def teacher_quality(
    teacher: Teacher,
    classifier: Student,
    reference_images: Float[Tensor, "many c h w"],
    settings: SampleSettings,
) -> list[dict[str, Any]]:
    """Measure class-conditional samples, one record a guidance.

    Args:
        teacher: of the classifier's classes and image shape.
        classifier: independent of the teacher; trained on real images.
        reference_images: real images in [-1, 1] that the Fréchet distance compares all samples
            of a guidance with. The distance is biased upwards by finite samples: only distances
            between equal numbers of images can be compared.
        settings: which samples.

    Returns:
        guidance; class_accuracy, the share of samples that get the wanted class;
        accuracy_by_class; frechet_distance in the classifier's features; seconds.
    """
    reference, _ = classify_all(classifier, reference_images)
    labels = torch.arange(teacher.num_classes).repeat_interleave(settings.images_per_class)
    records = []
    for guidance in settings.guidances:
        started = time.perf_counter()
        images = sample_classes(teacher, labels, guidance, steps=settings.steps, seed=settings.seed)
        features, logits = classify_all(classifier, images)
        right = (logits.argmax(dim=1) == labels).float()
        by_class = right.view(-1, settings.images_per_class).mean(dim=1)
        records.append(
            {
                "guidance": guidance,
                "class_accuracy": round(float(right.mean()), 4),
                "accuracy_by_class": [round(float(share), 3) for share in by_class],
                "frechet_distance": round(frechet_distance(features, reference), 4),
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    return records
