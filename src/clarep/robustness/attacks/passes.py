"""Passes through the attacked model: logits, losses, gradients of the image and of nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clarep.errors import UserError

BATCH = 250
"""Images a pass."""

Model = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] -> logits (B, classes)."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits and labels -> a loss an image (B,), the higher the nearer to an error."""


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Hold a module in evaluation mode, its parameters without gradients, while the block runs.

    Gradients of parameters are not wanted and cost a third more. Afterwards all is as it was.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


def logits_of(
    model: Model, x: Float[Tensor, "batch c h w"], batch_size: int = BATCH
) -> Float[Tensor, "batch classes"]:
    """Return the logits, without a graph."""
    with torch.no_grad(), evaluating(model):
        return torch.cat([_checked(model(part)) for part in x.split(batch_size)])


def still_right(
    model: Model,
    x: Float[Tensor, "batch c h w"],
    y: Int[Tensor, " batch"],
    batch_size: int = BATCH,
) -> Bool[Tensor, " batch"]:
    """Tell which images are classified rightly."""
    return logits_of(model, x, batch_size).argmax(dim=1) == y


def ascend(
    model: Model, loss: Loss, x: Float[Tensor, "batch c h w"], y: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, " batch"], Float[Tensor, "batch c h w"]]:
    """Return logits, losses, and the gradient of each loss with respect to its image.

    Only the image's gradient is taken: the model's parameters get none.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        logits = _checked(model(leaf))
        losses = loss(logits, y)
        (grad,) = torch.autograd.grad(losses.sum(), leaf)
    return logits.detach(), losses.detach(), grad


def cross_entropy(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the cross-entropy of each image."""
    return nn.functional.cross_entropy(logits, y, reduction="none")


def dlr(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the difference-of-logits ratio (Croce & Hein 2020, eq. 6), for 3 classes or more.

    -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)), with z_(1) >= z_(2) ... the sorted logits: shift
    and scale of the logits do not change it, so no confidence can flatten it.
    """
    check_classes_for_dlr(logits.shape[1])
    ranked = logits.topk(3, dim=1).values
    spread = (ranked[:, 0] - ranked[:, 2]).clamp_min(1e-12)
    return -margin(logits, y) / spread


def check_classes_for_dlr(classes: int) -> None:
    """Raise UserError if there are too few classes for the DLR loss."""
    if classes < 3:
        raise UserError(
            f"the DLR loss needs three classes or more and the model has {classes}: "
            "leave apgd-dlr out"
        )


def margin(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return z_y - max_{i != y} z_i: below 0 where the image is misclassified."""
    own = logits.gather(1, y[:, None])
    rest = logits.scatter(1, y[:, None], -torch.inf)
    return own.squeeze(1) - rest.amax(dim=1)


def _checked(logits: Tensor) -> Tensor:
    if not torch.isfinite(logits).all():
        raise UserError(
            "the model answers with logits that are not finite: it can be neither attacked nor "
            "trusted, so train it again"
        )
    return logits
