"""Supervised contrastive loss."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.distill.losses.contrast import contrast
from clarep.distill.losses.numerics import at_least_float32, check_temperature


@at_least_float32
def supcon(
    features: Float[Tensor, "batch d"],
    labels: Int64[Tensor, " batch"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Pull features of a class together and push those of other classes away.

    Khosla et al. 2020, "Supervised Contrastive Learning", arXiv 2004.11362, eq. 2 (L_out):
    mean over anchors i of -1/|P(i)| sum over p in P(i) of
    log(exp(z_i.z_p / T) / sum over a != i of exp(z_i.z_a / T)), z = f / |f|,
    P(i) the other features of i's class.

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
    return contrast(features, features, positive, others, temperature)
