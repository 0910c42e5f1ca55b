"""Contrast by class, supervised: of features (SupCon), and of images with canonical samples."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from clarep.distill.losses.numerics import at_least_float32, check_temperature, unit


@at_least_float32
def supcon(
    features: Float[Tensor, "batch d"], labels: Int64[Tensor, " batch"], temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Pull features of a class together and push those of other classes away.

    Khosla et al. 2020, "Supervised Contrastive Learning", arXiv 2004.11362, eq. 2 (L_out):
    mean over anchors i of -1/|P(i)| sum over p in P(i) of
    log(exp(z_i.z_p / T) / sum over a != i of exp(z_i.z_a / T)), z = f / |f|,
    P(i) the other features of i's class. It is also CaDistill's L_cano (Xu et al. 2025, arXiv
    2506.09955, eq. 6), whose exact form is not known (docs/distill.md), of canonical samples.

    Args:
        features: (B, D), not yet normalised; two views of N images are 2N features.
        labels: (B,), repeated for the second view.
        temperature: T > 0; 0.1 in the paper.

    Returns:
        A scalar >= 0. An anchor that is alone in its class is left out of the mean; 0 if all are.

    Raises:
        UserError: if T is not above 0.

    Examples:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(float(supcon(features, torch.tensor([0, 0, 1]), temperature=1.0)), 4)
        0.3133
    """
    check_temperature(temperature)
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels[None, :]) & others
    return _contrast(features, features, positive, others, temperature)


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
    Ours (docs/distill.md), the class form: supervised contrast (Khosla et al. 2020, arXiv
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
    return _contrast(student_f, canonical_f, positive, torch.ones_like(positive), temperature)


@at_least_float32
def instance_alignment(
    f: Float[Tensor, "pairs d"], canonical_f: Float[Tensor, "pairs d"]
) -> Float[Tensor, ""]:
    """Pull an image's feature to that of its own canonical sample: mean of 1 - cos(f_i, c_i).

    CaDistill's L_align (Xu et al. 2025, arXiv 2506.09955, eq. 6) in its instance form
    (docs/distill.md): what CLARID took out of an image shall not matter to the student.

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


def _contrast(
    anchors: Float[Tensor, "a d"],
    candidates: Float[Tensor, "c d"],
    positive: Bool[Tensor, "a c"],
    counted: Bool[Tensor, "a c"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the mean over anchors of -log softmax at their positives, averaged per anchor.

    With unit vectors z, counted candidates C(i) and positives P(i), a part of them:
    -1/|P(i)| sum over p in P(i) of log(exp(z_i.z_p / T) / sum over c in C(i) of exp(z_i.z_c / T)).
    An anchor without positives is left out of the mean; 0 if all are.
    """
    if candidates.shape[0] == 0:
        return anchors.sum() * 0.0
    similarity = unit(anchors) @ unit(candidates).T / temperature  # (A, C)
    # A finite floor: a row with nothing to count must not become inf - inf.
    floor = torch.finfo(similarity.dtype).min
    log_total = similarity.masked_fill(~counted, floor).logsumexp(dim=1, keepdim=True)
    log_share = (similarity - log_total).masked_fill(~positive, 0.0)
    num_positives = positive.sum(dim=1)
    per_anchor = -log_share.sum(dim=1) / num_positives.clamp_min(1)  # (A,), 0 without positives
    return per_anchor.sum() / (num_positives > 0).sum().clamp_min(1)
