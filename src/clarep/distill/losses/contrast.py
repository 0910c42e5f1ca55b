"""The supervised contrastive form that supcon, class alignment and clustering share."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clarep.distill.losses.numerics import unit


def contrast(
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
