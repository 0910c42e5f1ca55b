"""Directions along which a teacher's class evidence changes: what `contrast` leaves alone.

The gradient in x of log p(class | x) at noise level sigma is (D(x; class) - mean of D) / sigma^2,
up to what is common to all classes (Dhariwal & Nichol 2021, arXiv 2105.05233, with Tweedie's
formula). At one point these are one direction a class; where the class is decided further down, the
gradients of noisier neighbours tell too. The span of all of them, its strongest directions first,
is where the class lies in a latent.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.teachers.teacher import Teacher

SPARED = 64
_MOST_LABELS = 10
_LEVELS = (1.0, 0.7, 1.4)  # of sigma, at the latent itself
_NEIGHBOURS = (0.5, 1.0)  # of sigma: noise that is added to the latent
_DRAWS = 6  # neighbours of each
_RANK = 16  # of a number's own rounding: what differs by less does not differ


@torch.no_grad()
def class_directions(
    teacher: Teacher,
    x: Float[Tensor, "batch c h w"],
    labels: Int64[Tensor, " batch"],
    sigma: float,
    generator: torch.Generator,
) -> Float[Tensor, "batch n q"]:
    """Return orthonormal directions of class evidence at each latent, strongest first.

    64 of them, at most an eighth of the latent's dimension; those beyond the rank of what the
    teacher says are 0. It costs `evaluations` of the denoiser for each image.

    Args:
        teacher: of two classes or more.
        x: latents at sigma, on the teacher's device.
        labels: their classes; of more than ten classes each is tried beside nine random others.
        sigma: noise level.
        generator: of the neighbours' noise and of the others, on the CPU.
    """
    tried = _tried(labels, teacher.num_classes, generator)
    gradients = []
    for y, level in _points(teacher, x, sigma, generator):
        levels = x.new_full((len(x),), level)
        estimates = torch.stack(
            [teacher.denoise(y, levels, teacher.condition(one)).flatten(1) for one in tried.T], 2
        )
        apart = estimates - estimates.mean(2, keepdim=True)
        rounding = _RANK * torch.finfo(x.dtype).eps * estimates.norm(dim=1, keepdim=True)
        apart = torch.where(apart.norm(dim=1, keepdim=True) > rounding, apart, 0)
        gradients.append(apart.double() / level**2)
    most = min(SPARED, teacher.latent_dim // 8)
    return _left_singular_vectors(torch.cat(gradients, 2), most).to(x.dtype)


def evaluations(num_classes: int) -> int:
    """Return the denoiser evaluations of one image."""
    return (len(_LEVELS) + len(_NEIGHBOURS) * _DRAWS) * min(num_classes, _MOST_LABELS)


def _tried(
    labels: Int64[Tensor, " batch"], num_classes: int, generator: torch.Generator
) -> Int64[Tensor, "batch tried"]:
    if num_classes <= _MOST_LABELS:
        return torch.arange(num_classes, device=labels.device).expand(len(labels), -1)
    others = torch.stack(
        [torch.randperm(num_classes - 1, generator=generator) for _ in range(len(labels))]
    )[:, : _MOST_LABELS - 1].to(labels.device)
    return torch.cat([labels[:, None], others + (others >= labels[:, None])], 1)


def _points(
    teacher: Teacher, x: Tensor, sigma: float, generator: torch.Generator
) -> list[tuple[Tensor, float]]:
    """Return the latent at three levels, and noisier neighbours at theirs."""
    low, high = teacher.sigma_min, teacher.sigma_max
    points = [(x, min(max(share * sigma, low), high)) for share in _LEVELS]
    for share in _NEIGHBOURS:
        level = min(sigma * (1 + share**2) ** 0.5, high)
        added = (level**2 - sigma**2) ** 0.5
        for _ in range(_DRAWS):
            noise = torch.randn(x.shape, generator=generator).to(x)
            points.append((x + added * noise, level))
    return points


def _left_singular_vectors(M: Float[Tensor, "batch n r"], most: int) -> Float[Tensor, "batch n q"]:
    squares, V = torch.linalg.eigh(M.mT @ M)  # rising
    squares, V = squares.flip(1)[:, :most, None], V.flip(2)[:, :, :most]
    known = squares > _RANK * torch.finfo(M.dtype).eps * squares[:, :1]
    scaled = V.mT / squares.clamp_min(torch.finfo(M.dtype).tiny).sqrt()
    U: Tensor = M @ (scaled * known).mT
    return U
