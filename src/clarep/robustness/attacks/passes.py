"""Passes through the attacked model: logits, losses, gradients of the image and of nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from clarep.engine.arrays import Images, Labels, as_images, as_labels, as_logits
from clarep.errors import UserError, refusing
from clarep.robustness.attacks.shapes import Batch, Classes, Logits, Marks, Values
from clarep.robustness.attacks.threat import Threat, check_eps_l2
from clarep.students.student import FAULTS

BATCH = 250
"""Images a pass."""
_FEW = 8  # images by which a model's answers are told
_ROUNDING = 1e-4

Model = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] -> logits (B, classes), or a tuple or mapping with them."""
Gradient = Literal["reaches the image", "zero", "none", "not finite"]
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


def accepted(
    model: Model, x: Images, y: Labels, threat: Threat | None = None
) -> tuple[Batch, Int64[Tensor, " batch"]]:
    """Return images and labels as the attacks take them: checked, in one piece, on one device.

    Raises UserError for images outside [0, 1], labels outside the model's classes, other counts,
    a model that does not answer them with logits or lets no gradient through, or a radius that such
    images have no room for.
    """
    x = as_images(x, 0, "uint8 / 255 does, and the model is what normalises")
    if threat is not None and threat.norm == "l2":
        check_eps_l2(threat.eps, tuple(x.shape[1:]))
    such = f"{str(x.dtype).removeprefix('torch.')} and shape {tuple(x.shape[1:])}"
    mend = "give such as it was trained on"
    with refusing(f"the model takes no images of {such}", mend, FAULTS):
        few = logits_of(model, x[:_FEW])
    if few.min() >= 0 and few.max() <= 1 and ((few.sum(dim=1) - 1).abs() < _ROUNDING).all():
        raise UserError(
            "the model answers with probabilities (rows in [0, 1] that sum to 1), whose gradients "
            "vanish where it is sure: give one that ends in logits, or the logarithm of these"
        )
    y = as_labels(y, len(x), few.shape[1]).to(x.device)
    gradient = gradient_at(model, x[:_FEW])
    if gradient in ("none", "not finite"):
        raise UserError(
            f"{'no' if gradient == 'none' else 'no finite'} gradient of the model's logits reaches "
            "the image, so that it cannot be attacked by gradients: give a model that is "
            "differentiable (no no_grad, casts or argmax)"
        )
    return x, y


def gradient_at(model: Model, x: Batch) -> Gradient:
    """Tell whether a gradient of the logits reaches the images."""
    try:
        with torch.enable_grad(), evaluating(model):
            leaf = x.detach().requires_grad_(True)
            logits = answered(model, leaf)
            # Not their sum, which is the same for all images behind a softmax.
            weighted = (logits * torch.linspace(-1, 1, logits.shape[1]).to(logits)).sum()
            (gradient,) = torch.autograd.grad(weighted, leaf, allow_unused=True)
    except RuntimeError:  # of autograd: cut off, or overwritten in place
        return "none"
    if gradient is None:
        return "none"
    if not gradient.any():
        return "zero"
    return "reaches the image" if gradient.isfinite().all() else "not finite"


def check_counts(**counts: int) -> None:
    """Raise UserError for a count below 1."""
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"`{name}={value}` is below 1: give a whole number from 1 up")


def check_marks(images: int, **marks: Tensor | None) -> None:
    """Raise UserError unless each holds a bool for each of so many images."""
    for name, given in marks.items():
        if given is None or given.shape != (images,) or given.dtype != torch.bool:
            found = "missing" if given is None else f"{given.dtype} of shape {tuple(given.shape)}"
            raise UserError(f"{name} is {found}: give a bool for each of the {images} images")


def answered(model: Model, x: Batch) -> Logits:
    """Return the logits of one pass, of a copy: a model may work in place."""
    return as_logits(model(x.clone()), len(x))


def logits_of(model: Model, x: Batch, batch_size: int = BATCH) -> Logits:
    """Return the logits, without a graph."""
    with torch.no_grad(), evaluating(model):
        return torch.cat([answered(model, part) for part in x.split(batch_size)])


def still_right(model: Model, x: Batch, y: Classes, batch_size: int = BATCH) -> Marks:
    """Tell which images are classified rightly."""
    return logits_of(model, x, batch_size).argmax(dim=1) == y


def ascend(model: Model, loss: Loss, x: Batch, y: Classes) -> tuple[Logits, Values, Batch]:
    """Return logits, losses, and the gradient of each loss with respect to its image.

    Only the image's gradient is taken: the model's parameters get none.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        logits = answered(model, leaf)
        losses = loss(logits, y)
        (grad,) = torch.autograd.grad(losses.sum(), leaf)
    # NaN has no direction: it counts as zero, of which `zero_gradients` tells.
    return logits.detach(), losses.detach(), grad.nan_to_num(0, 0, 0)


def cross_entropy(logits: Logits, y: Classes) -> Values:
    """Return the cross-entropy of each image."""
    return nn.functional.cross_entropy(logits, y, reduction="none")


def dlr(logits: Logits, y: Classes) -> Values:
    """Return the difference-of-logits ratio (Croce & Hein 2020, eq. 6), for 3 classes or more.

    -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)), with z_(1) >= z_(2) ... the sorted logits: shift
    and scale of the logits do not change it, so no confidence can flatten it.
    """
    if logits.shape[1] < 3:
        raise UserError(
            "the DLR loss needs three classes or more and the model has "
            f"{logits.shape[1]}: leave apgd-dlr out"
        )
    ranked = logits.topk(3, dim=1).values
    spread = (ranked[:, 0] - ranked[:, 2]).clamp_min(1e-12)
    return -margin(logits, y) / spread


def margin(logits: Logits, y: Classes) -> Values:
    """Return z_y - max_{i != y} z_i: below 0 where the image is misclassified."""
    own = logits.gather(1, y[:, None])
    rest = logits.scatter(1, y[:, None], -torch.inf)
    return own.squeeze(1) - rest.amax(dim=1)
