"""Alignment: what a student sees in an image comes close to what it sees in canonical samples."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.distill.losses.contrast import contrast
from clarep.distill.losses.numerics import at_least_float32, check_temperature, unit


@at_least_float32
def class_alignment(
    student_f: Float[Tensor, "batch d"],
    labels: Int64[Tensor, " batch"],
    canonical_f: Float[Tensor, "canonical d"],
    canonical_labels: Int64[Tensor, " canonical"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Pull an image's feature to those of its class's canonical samples, away from other classes'.

    CaDistill's L_align (Xu et al. 2025, arXiv 2506.09955, eq. 6), whose exact form is not known.
    Ours [C, METHOD.md], the class form: supervised contrast (Khosla et al. 2020, arXiv
    2004.11362) across the two sets. With unit vectors z of images and c of canonical samples and
    P(i) the canonical samples of i's class, the mean over images i of
    -1/|P(i)| sum over p in P(i) of log(exp(z_i.c_p / T) / sum over all c of exp(z_i.c / T)).

    Args:
        student_f: (B, D) student features of training images, the anchors.
        labels: (B,) their classes.
        canonical_f: (C, D) student features of canonical samples. Gradients flow into them as
            well; detach them if only the images shall move.
        canonical_labels: (C,) their classes.
        temperature: T > 0.

    Returns:
        A scalar >= 0. An image whose class has no canonical sample in the batch is left out of
        the mean (it could only be pushed); 0 if all are, or if there is no canonical sample.

    Raises:
        UserError: if T is not above 0.

    Examples:
        >>> import torch
        >>> image = torch.tensor([[1.0, 0.0]])
        >>> canonical = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> loss = class_alignment(
        ...     image, torch.tensor([0]), canonical, torch.tensor([0, 1]), temperature=1.0
        ... )
        >>> round(float(loss), 4)
        0.3133
    """
    check_temperature(temperature)
    positive = labels[:, None] == canonical_labels[None, :]  # (B, C)
    return contrast(student_f, canonical_f, positive, torch.ones_like(positive), temperature)


@at_least_float32
def instance_alignment(
    f: Float[Tensor, "pairs d"], canonical_f: Float[Tensor, "pairs d"]
) -> Float[Tensor, ""]:
    """Pull an image's feature to that of its own canonical sample: mean of 1 - cos(f_i, c_i).

    CaDistill's L_align (Xu et al. 2025, arXiv 2506.09955, eq. 6) in its instance form [C,
    METHOD.md]: what CLARID took out of an image shall not matter to the student.

    Args:
        f: (P, D) student features of the images that have a canonical sample.
        canonical_f: (P, D) student features of those canonical samples, row by row. Gradients
            flow into both.

    Returns:
        A scalar in [0, 2]; a zero vector counts as orthogonal to all. 0 if there are no pairs.

    Examples:
        >>> import torch
        >>> f = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> round(float(instance_alignment(f, f.flip(1))), 4)
        1.0
    """
    cosine = (unit(f) * unit(canonical_f)).sum(dim=1)
    return (1.0 - cosine).sum() / max(len(f), 1)
