"""Distillation of a classifier's softened outputs."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clarep.distill.losses.numerics import at_least_float32, check_temperature


@at_least_float32
def kd(
    logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    temperature: float = 4.0,
) -> Float[Tensor, ""]:
    """Bring a student's softened probabilities to a teacher's.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531:
    T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the batch. The factor T^2
    keeps the gradient's size as T changes; KL differs from the paper's cross-entropy by the
    teacher's entropy, which has no gradient.

    Args:
        logits: (B, K) of the student.
        teacher_logits: (B, K) of the teacher; no gradient flows into them.
        temperature: T > 0.

    Returns:
        A scalar >= 0; 0 for identical logits, or an empty batch.

    Raises:
        UserError: if T is not above 0.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> round(float(kd(logits, -logits, temperature=1.0)), 4)
        1.5232
    """
    check_temperature(temperature)
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * (temperature**2 / max(len(logits), 1))
