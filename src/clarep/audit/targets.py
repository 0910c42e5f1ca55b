"""Class evidence at single images: what a teacher denoises them to under each of its classes.

D(x + sigma n | c) is about E[x_0 | x + sigma n, c], and by Tweedie's formula
(D(x_sigma | c) - D(x_sigma | c2)) / sigma^2 is the difference of the classes' scores, the gradient
of log p(x_sigma | c) - log p(x_sigma | c2): which pixels speak for c and against c2. Perceptually
aligned gradients (Ganz, Kawar & Elad 2023, arXiv 2207.11378) follow the same, of one class against
none.
"""

import torch
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from clarep.clarid.noise_draws import TARGETS, noise_of
from clarep.data.held_out import Indices
from clarep.engine.arrays import check_finite
from clarep.errors import UserError
from clarep.teachers.teacher import Teacher

_MOST_BYTES = 4 * 2**30  # they are all in memory while a student is trained


def check_targets(teacher: Teacher, count: int, classes: int, sigma: float) -> None:
    """Raise UserError if a teacher cannot give class evidence of `count` images, or too much.

    A latent model's is evidence in its latents: in the image it would need the Jacobian of the
    decoder.

    classes: how many it is of, and none where the teacher has that.
    """
    if teacher.latent_shape != teacher.image_shape:
        raise UserError(
            f"the teacher works on latents {teacher.latent_shape} of images {teacher.image_shape}, "
            "and class evidence in an image would need the Jacobian of its decoder: give a "
            "teacher of pixels, or `target_share=0`"
        )
    teacher.check_sigma(sigma)
    size = count * classes * teacher.latent_dim * 2
    if size > _MOST_BYTES:
        raise UserError(
            f"class evidence of {count} images under {classes} classes takes "
            f"{size / 2**30:.1f} GiB, and at most {_MOST_BYTES / 2**30:.0f} are kept in memory: "
            "lower `target_share`, or give a few `target_rivals` such as 8"
        )


@torch.no_grad()
def evidence_targets(
    teacher: Teacher,
    images: Float[Tensor, "n c h w"],
    classes: Int64[Tensor, "n k"] | None = None,
    *,
    sigma: float,
    draws: int,
    index: Indices,
    seed: int,
    batch_size: int,
) -> Float16[Tensor, "n k c h w"]:
    """Return the mean of D(x + sigma n | c) - x over draws of n, of every class c of an image.

    All classes of an image share its noise, so that their differences have little of it. Costs
    n * draws * k denoiser evaluations.

    Args:
        teacher: of pixels (`check_targets`).
        images: in [-1, 1].
        classes: of each image, the teacher's or its null label; without any `every_class`.
        sigma: noise level.
        draws: of noise; more begin with those of fewer.
        index: of the images in their data set, which tells an image's noise whatever is beside it.
        seed: of the noise.
        batch_size: images that go through the teacher at once; it changes last digits alone.

    Returns:
        On the CPU, in the order of `classes`.

    Raises:
        UserError: for images that are not of the teacher's shape and range, and if an estimate
            is not finite.
    """
    images = teacher.accept_images(images)
    if classes is None:
        classes = every_class(teacher).expand(len(images), -1)
    parts = []
    for first in range(0, len(images), batch_size):
        some = slice(first, first + batch_size)
        x = teacher.encode(images[some].to(teacher.device))
        level = x.new_full((len(x),), sigma)
        noise = [_noise(teacher, index[some], seed, draw).to(x) for draw in range(draws)]
        estimates = []
        for labels in classes[some].unbind(1):
            cond = teacher.condition(labels.to(teacher.device))
            each = [teacher.denoise(x + sigma * draw, level, cond) - x for draw in noise]
            # To the CPU one by one: a device may not hold those of a thousand classes.
            estimates.append(torch.stack(each).mean(0).half().cpu())
        parts.append(torch.stack(estimates, dim=1))
    evidence = torch.cat(parts)
    check_finite(evidence, f"the denoiser's estimates at sigma {sigma:g}", "check the weights")
    return evidence


def _noise(teacher: Teacher, index: Indices, seed: int, draw: int) -> Float[Tensor, "b c h w"]:
    return noise_of(index, teacher.latent_shape, seed=seed, purpose=TARGETS, draw=draw)


def every_class(teacher: Teacher) -> Int64[Tensor, " k"]:
    """Return all classes, and last the label of none where there is one."""
    none = [teacher.null_label] if teacher.has_null else []
    return torch.tensor([*range(teacher.num_classes), *none])
