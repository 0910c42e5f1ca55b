"""Relational distillation: distances and angles between features, not the features themselves."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clarep.distill.losses.numerics import at_least_float32, unit


@at_least_float32
def rkd_distance(
    features: Float[Tensor, "batch d1"], teacher_features: Float[Tensor, "batch d2"]
) -> Float[Tensor, ""]:
    """Bring the student's pairwise distances, in units of their mean, to the teacher's.

    Park et al. 2019, "Relational Knowledge Distillation", arXiv 1904.05068, eq. 6 to 8: the
    Huber loss (delta 1) between |s_i - s_j| / mu_s and |t_i - t_j| / mu_t, mu the mean distance;
    here the mean over pairs i != j, where the paper sums.

    Args:
        features: (B, D1) of the student.
        teacher_features: (B, D2) of the teacher; no gradient flows into them.

    Returns:
        A scalar >= 0, unchanged by rotation, shift and scale of either side; 0 below two
        samples. Where all features of a side coincide, its distances count as 0.

    Examples:
        >>> import torch
        >>> line = torch.tensor([[0.0], [1.0], [2.0]])
        >>> float(rkd_distance(line, 5 * line + 1))
        0.0
        >>> round(float(rkd_distance(line, torch.tensor([[0.0], [0.0], [1.0]]))), 4)
        0.1875
    """
    apart = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    error = F.smooth_l1_loss(
        _relative_distances(features),
        _relative_distances(teacher_features.detach()),
        reduction="none",
    )  # (B, B)
    return (error * apart).sum() / apart.sum().clamp_min(1)


def _relative_distances(x: Tensor) -> Tensor:
    """Return (B, B) distances over their mean off the diagonal; zeros if they all are zero."""
    # By differences: the matrix-product form loses small distances to cancellation.
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / max(len(x) * (len(x) - 1), 1)
    return distances / torch.where(mean > 0, mean, 1.0)


@at_least_float32
def rkd_angle(
    features: Float[Tensor, "batch d1"], teacher_features: Float[Tensor, "batch d2"]
) -> Float[Tensor, ""]:
    """Bring the angles of the student's triangles to the teacher's.

    Park et al. 2019, "Relational Knowledge Distillation", arXiv 1904.05068, eq. 9 and 10: the
    Huber loss (delta 1) between the cosines at s_j of the triangle (s_i, s_j, s_k) and those of
    the teacher's; here the mean over triples of three different samples, where the paper sums.
    Memory grows as B^2 D + B^3.

    Args:
        features: (B, D1) of the student.
        teacher_features: (B, D2) of the teacher; no gradient flows into them.

    Returns:
        A scalar in [0, 1.5], unchanged by rotation, shift and scale of either side; 0 below
        three samples. An angle with a side of length zero has cosine 0.

    Examples:
        >>> import torch
        >>> right = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(float(rkd_angle(right, right * 3)), 4)
        0.0
    """
    n = len(features)
    apart = ~torch.eye(n, dtype=torch.bool, device=features.device)
    # (j, i, k): the angle is at j, and all three differ.
    triple = apart[:, :, None] & apart[:, None, :] & apart[None, :, :]
    error = F.smooth_l1_loss(
        _cosines(features), _cosines(teacher_features.detach()), reduction="none"
    )
    return (error * triple).sum() / triple.sum().clamp_min(1)


def _cosines(x: Tensor) -> Tensor:
    """Return (B, B, B): entry (j, i, k) is the cosine at x_j between x_i and x_k."""
    sides = unit(x[None, :, :] - x[:, None, :])  # (j, i, D)
    return sides @ sides.transpose(1, 2)
