"""APGD: PGD that halves its own step size (Croce & Hein 2020, arXiv 2003.01690, algorithm 1)."""

import math
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clarep.engine.arrays import Images, Labels
from clarep.errors import unknown_name
from clarep.robustness.attacks.passes import (
    BATCH,
    Loss,
    Model,
    ascend,
    check_counts,
    cross_entropy,
    dlr,
)
from clarep.robustness.attacks.pgd import with_restarts
from clarep.robustness.attacks.shapes import Batch, Classes, Marks
from clarep.robustness.attacks.threat import Threat, steepest

LOSSES: dict[str, Loss] = {"ce": cross_entropy, "dlr": dlr}
_MOMENTUM = 0.75  # alpha of the paper: share of the new step against the last one
_RHO = 0.75  # least share of steps that must raise the loss


def apgd(
    model: Model,
    x: Images,
    y: Labels,
    threat: Threat,
    loss: Literal["ce", "dlr"] = "ce",
    *,
    steps: int = 100,
    restarts: int = 1,
    generator: torch.Generator,
    batch_size: int = BATCH,
) -> Batch:
    """Return adversarial images within the threat.

    An image that is fooled is left alone from then on. Of one that never is, the point of the
    highest loss is returned. Arguments are those of `pgd`, but the loss: ce, the cross-entropy, or
    dlr, which needs three classes or more. Raises UserError for another loss, or too few classes.
    """
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    check_counts(steps=steps)
    return with_restarts(
        partial(_walk, model, LOSSES[loss], threat=threat, steps=steps),
        *(model, x, y, threat),
        restarts=restarts,
        generator=generator,
        batch_size=batch_size,
    )


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size is looked at (the paper's w_j, j >= 1)."""
    before, at = 0.0, 0.22
    found = []
    while at <= 1:
        found.append(math.ceil(at * steps - 1e-9))
        before, at = at, at + max(at - before - 0.03, 0.06)
    return sorted(set(found))


@dataclass
class _Front:
    """The images that are not yet fooled, one row each."""

    index: Int[Tensor, " left"]
    x: Float[Tensor, "left c h w"]
    y: Int[Tensor, " left"]
    at: Float[Tensor, "left c h w"]
    before: Float[Tensor, "left c h w"]
    grad: Float[Tensor, "left c h w"]
    loss: Float[Tensor, " left"]
    best: Float[Tensor, "left c h w"]
    best_grad: Float[Tensor, "left c h w"]
    best_loss: Float[Tensor, " left"]
    size: Float[Tensor, " left"]
    """Step size."""
    rises: Int[Tensor, " left"]
    """Steps since the last checkpoint that raised the loss."""
    checked_loss: Float[Tensor, " left"]
    """Best loss at the last checkpoint."""
    halved: Bool[Tensor, " left"]
    """Whether the step was halved at the last checkpoint."""

    def keep(self, rows: Bool[Tensor, " left"]) -> None:
        """Drop the other rows."""
        if not rows.all():
            for field in fields(self):
                setattr(self, field.name, getattr(self, field.name)[rows])


def _walk(
    model: Model, loss: Loss, x: Batch, y: Classes, start: Batch, *, threat: Threat, steps: int
) -> tuple[Batch, Marks]:
    """Walk from `start`; return where each image ended, and whether it is fooled there."""
    ends = start.clone()
    fooled = torch.zeros_like(y, dtype=torch.bool)
    logits, losses, grad = ascend(model, loss, start, y)
    front = _Front(
        index=torch.arange(len(y), device=y.device),
        x=x,
        y=y,
        at=start,
        before=start,
        grad=grad,
        loss=losses,
        best=start,
        best_grad=grad,
        best_loss=losses,
        size=torch.full_like(losses, 2 * threat.eps),
        rises=torch.zeros_like(y),
        checked_loss=losses,
        halved=torch.ones_like(fooled),
    )
    looked = [0, *checkpoints(steps)]
    for step in range(steps + 1):
        missed = logits.argmax(dim=1) == front.y
        fooled[front.index[~missed]] = True
        ends[front.index[~missed]] = front.at[~missed]
        front.keep(missed)
        if not len(front.y) or step == steps:
            break
        if step in looked[1:]:
            _adapt(front, step - looked[looked.index(step) - 1])
        _step(front, threat, 1.0 if step == 0 else _MOMENTUM)
        logits = _look(front, model, loss)
    ends[front.index] = front.best
    return ends, fooled


def _step(front: _Front, threat: Threat, momentum: float) -> None:
    """Move along the gradient and on along the last step."""
    size = front.size.view(-1, 1, 1, 1)
    target = threat.project(front.at + size * steepest(front.grad, threat.norm), front.x)
    moved = front.at + momentum * (target - front.at) + (1 - momentum) * (front.at - front.before)
    front.before, front.at = front.at, threat.project(moved, front.x)


def _look(front: _Front, model: Model, loss: Loss) -> Float[Tensor, "left classes"]:
    """Take loss and gradient where the front is, and remember the best; return the logits."""
    logits, losses, front.grad = ascend(model, loss, front.at, front.y)
    front.rises = front.rises + (losses > front.loss)
    front.loss = losses
    better = losses > front.best_loss
    rows = better.view(-1, 1, 1, 1)
    front.best = torch.where(rows, front.at, front.best)
    front.best_grad = torch.where(rows, front.grad, front.best_grad)
    front.best_loss = torch.where(better, losses, front.best_loss)
    return logits


def _adapt(front: _Front, since: int) -> None:
    """Halve steps that lead nowhere, and go on from the best point; `since` steps ago it was done.

    The paper's two conditions: too few of the steps raised the loss; or the step has its old
    size and the best loss is that of the last checkpoint.
    """
    rarely = front.rises < _RHO * since
    stuck = ~front.halved & (front.best_loss <= front.checked_loss)
    halve = rarely | stuck
    rows = halve.view(-1, 1, 1, 1)
    front.size = torch.where(halve, front.size / 2, front.size)
    front.at = torch.where(rows, front.best, front.at)
    front.grad = torch.where(rows, front.best_grad, front.grad)
    front.loss = torch.where(halve, front.best_loss, front.loss)
    front.rises = torch.zeros_like(front.rises)
    front.checked_loss = front.best_loss
    front.halved = halve
