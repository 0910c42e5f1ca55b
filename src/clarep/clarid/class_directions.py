"""Where in a latent a teacher reads the class: what `contrast` and `mask` leave alone.

And the middle of it, which `centre` leaves alone as mask's control.

The gradient in x of log p(class | x) at noise level sigma is (D(x; class) - mean of D) / sigma^2,
up to what is common to all classes (Dhariwal & Nichol 2021, arXiv 2105.05233, with Tweedie's
formula). At one point these are one direction a class; where the class is decided further down, the
gradients of noisier neighbours tell too. The span of all of them, its strongest directions first,
is where the class lies in a latent. Pixel by pixel their size says where the object is.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from clarep.clarid.diffusion_classifier import own_and_rivals
from clarep.clarid.directions import project_out
from clarep.geometry.precision import differentiable
from clarep.teachers.teacher import Teacher

SPARED = 64
_MOST_LABELS = 10
_LEVELS = (1.0, 0.7, 1.4)  # of sigma, at the latent itself
_NEIGHBOURS = (0.5, 1.0)  # of sigma: noise that is added to the latent
_DRAWS = 6  # neighbours of each
_NUMBERS_AT_ONCE = 2**27  # float64, 1 GiB
_OBJECT_SHARE = 0.4
_RANK = 16  # of a number's own rounding: what differs by less does not differ


@torch.no_grad()
def class_directions(
    teacher: Teacher, x: Float[Tensor, "batch c h w"], labels: Int64[Tensor, " batch"], sigma: float
) -> Float[Tensor, "batch n q"]:
    """Return orthonormal directions of class evidence at each latent, strongest first.

    64 of them, at most an eighth of the latent's dimension; those beyond the rank of what the
    teacher says are 0.

    Args:
        teacher: of two classes or more.
        x: latents at sigma, on the teacher's device.
        labels: their classes; of more than ten classes each is tried beside nine random others.
        sigma: noise level.

    The neighbours' noise is the same for all images, so that no batch changes an image's.
    """
    tried = _tried(labels, teacher.num_classes)
    gradients = [_gradients(teacher, y, tried, level) for y, level in _points(teacher, x, sigma)]
    most = min(SPARED, teacher.latent_dim // 8)
    return _left_singular_vectors(torch.cat(gradients, 2), most).to(x.dtype)


@torch.no_grad()
def pixels_of_class(
    teacher: Teacher, x: Float[Tensor, "batch c h w"], labels: Int64[Tensor, " batch"], sigma: float
) -> Bool[Tensor, "batch 1 h w"]:
    """Return the 40 % of each latent's pixels where its class evidence is largest.

    None where there is no evidence. The gradients of all classes at the latent are squared, summed
    and averaged over 5 by 5 pixels. No label is used but, of more than ten classes, to choose which
    are tried. Arguments as for `class_directions`.
    """
    gradients = _gradients(teacher, x, _tried(labels, teacher.num_classes), sigma)
    size = gradients.square().sum(2).reshape(x.shape).sum(1, keepdim=True)
    smooth = F.avg_pool2d(size, 5, 1, 2, count_include_pad=False)
    return _largest(smooth) & (smooth > 0)


def pixels_of_centre(height: int, width: int) -> Bool[Tensor, "1 1 h w"]:
    """Return the 40 % of a latent's pixels nearest to its middle, as many as have most evidence."""
    y, x = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in (height, width))
    away = (y.square()[:, None] + x.square()).flatten()
    place = away.argsort(stable=True).argsort().double()  # of equally near ones the upper first
    return _largest(-place.reshape(1, 1, height, width))


def sparing(
    teacher: Teacher,
    x: Float[Tensor, "batch c h w"],
    labels: Int64[Tensor, " batch"],
    sigma: float,
    *,
    kind: Literal["contrast", "mask", "centre"],
) -> tuple[Callable[[Tensor], Tensor], int]:
    """Return the projection of steps (B, C, H, W) that leaves out where the class is read.

    For `centre` the middle is left out, wherever the class is. And what it cost in denoiser
    evaluations. Arguments as for `class_directions`.
    """
    if kind == "centre":
        around = ~pixels_of_centre(*x.shape[2:]).to(x.device)
        return lambda step: step * around, 0
    tried = len(x) * min(teacher.num_classes, _MOST_LABELS)
    points = len(_LEVELS) + len(_NEIGHBOURS) * _DRAWS
    at_once = max(1, _NUMBERS_AT_ONCE // (x[0].numel() * points * _MOST_LABELS))
    given = list(zip(x.split(at_once), labels.split(at_once), strict=True))
    with differentiable():  # as exactly as the Jacobian
        if kind == "mask":
            free = ~torch.cat([pixels_of_class(teacher, *part, sigma) for part in given])
            return lambda step: step * free, tried
        spared = torch.cat([class_directions(teacher, *part, sigma) for part in given])
    return lambda step: project_out(step, spared), points * tried


def _largest(values: Tensor) -> Bool[Tensor, "batch 1 h w"]:
    """Return where values (B, 1, H, W) are among their image's largest 40 %, or as large."""
    cut = values.flatten(1).quantile(1 - _OBJECT_SHARE, dim=1)
    return values >= cut[:, None, None, None]


def _gradients(
    teacher: Teacher, y: Tensor, tried: Int64[Tensor, "batch tried"], level: float
) -> Float64[Tensor, "batch n tried"]:
    """Return the gradients of the log posteriors at y; 0 where they differ by rounding alone."""
    levels = y.new_full((len(y),), level)
    estimates = torch.stack(
        [teacher.denoise(y, levels, teacher.condition(one)).flatten(1) for one in tried.T], 2
    )
    rounding = _RANK * torch.finfo(y.dtype).eps
    estimates = estimates.double()
    apart = estimates - estimates.mean(2, keepdim=True)
    told = apart.norm(dim=1, keepdim=True) > rounding * estimates.norm(dim=1, keepdim=True)
    return torch.where(told, apart, 0) / level**2


def _tried(labels: Int64[Tensor, " batch"], num_classes: int) -> Int64[Tensor, "batch tried"]:
    """Return the classes to try with each label: all, or of more than ten it and nine others."""
    if num_classes <= _MOST_LABELS:
        return torch.arange(num_classes, device=labels.device).expand(len(labels), -1)
    rngs = [np.random.default_rng(label) for label in labels.tolist()]
    return own_and_rivals(labels, num_classes, _MOST_LABELS, rngs).to(labels.device)


def _points(
    teacher: Teacher, x: Float[Tensor, "batch c h w"], sigma: float
) -> list[tuple[Float[Tensor, "batch c h w"], float]]:
    """Return the latents at three levels, and noisier neighbours at theirs."""
    low, high = teacher.sigma_min, teacher.sigma_max
    generator = torch.Generator().manual_seed(0)
    points = [(x, min(max(share * sigma, low), high)) for share in _LEVELS]
    for share in _NEIGHBOURS:
        level = min(sigma * (1 + share**2) ** 0.5, high)
        added = (level**2 - sigma**2) ** 0.5
        for _ in range(_DRAWS):
            noise = torch.randn(x.shape[1:], generator=generator).to(x)
            points.append((x + added * noise, level))
    return points


def _left_singular_vectors(M: Float[Tensor, "batch n r"], most: int) -> Float[Tensor, "batch n q"]:
    squares, V = torch.linalg.eigh(M.mT @ M)  # rising
    squares, V = squares.flip(1)[:, :most, None], V.flip(2)[:, :, :most]
    known = squares > _RANK * torch.finfo(M.dtype).eps * squares[:, :1]
    scaled = V.mT / squares.clamp_min(torch.finfo(M.dtype).tiny).sqrt()
    U: Tensor = M @ (scaled * known).mT
    return U
