"""CanoRep clustering: student features of canonical samples form one tight cluster a class."""

from jaxtyping import Float, Int64
from torch import Tensor

from clarep.distill.losses.supcon import supcon


def clustering(
    features: Float[Tensor, "canonical d"],
    labels: Int64[Tensor, " canonical"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Make student features of canonical samples compact in a class and apart between classes.

    CaDistill's L_cano (Xu et al. 2025, arXiv 2506.09955, eq. 6), whose exact form is not known.
    Ours is a choice [C, METHOD.md]: the supervised contrastive loss (Khosla et al. 2020) among
    the canonical samples of a batch. Its positives make the class compact, its denominator
    separates the classes, and it brings no parameter but the temperature, where prototypes
    would need a memory or large batches.

    Args:
        features: (C, D) student features of canonical samples, not yet normalised.
        labels: (C,) their classes; the batch should hold two of a class or more.
        temperature: T > 0.

    Returns:
        A scalar >= 0; a sample that is alone in its class is left out of the mean, 0 if all are.

    Raises:
        UserError: if T is not above 0.

    Examples:
        >>> import torch
        >>> tight = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> bool(clustering(tight, labels) < clustering(tight, labels[[0, 2, 1, 3]]))
        True
    """
    return supcon(features, labels, temperature)
