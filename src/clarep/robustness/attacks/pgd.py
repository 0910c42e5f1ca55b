"""PGD: projected gradient ascent on the cross-entropy (Madry et al. 2018, arXiv 1706.06083)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from clarep.engine.arrays import Images, Labels
from clarep.errors import UserError, unknown_name
from clarep.robustness.attacks.passes import (
    BATCH,
    Model,
    accepted,
    ascend,
    check_counts,
    cross_entropy,
    evaluating,
    still_right,
)
from clarep.robustness.attacks.shapes import Batch, Classes, Marks
from clarep.robustness.attacks.threat import Threat, steepest

StepRule = Literal["constant", "cosine"]
STEP_RULES: tuple[StepRule, ...] = ("constant", "cosine")
Walk = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images, labels, starting points -> where it ended (B, C, H, W), and whether it fools (B,)."""
_PATH = 2.5  # radii that all steps together could walk: enough from any start to any end


def pgd(
    model: Model,
    x: Images,
    y: Labels,
    threat: Threat,
    steps: int = 20,
    *,
    step_size: float | None = None,
    restarts: int = 1,
    generator: torch.Generator,
    rule: StepRule = "constant",
    drop_fooled: bool = True,
    batch_size: int = BATCH,
) -> Batch:
    """Return adversarial images within the threat; see `clarep.robustness.attacks`.

    Args:
        steps: gradients an image and restart.
        step_size: of the first step, in units of [0, 1] pixels; None takes the size with which
            all steps together are 2.5 radii long.
        restarts: random starts; each only for images that are still right.
        generator: of the random starts.
        rule: all steps alike, or falling along half a cosine to nearly 0 (over the same length,
            with a first step twice as long).
        drop_fooled: leave an image alone once it is fooled, which is what makes it quick; False
            walks on to the end, and deeper: for images that shall fool another model too.

    Raises UserError for a step size that is none, or an unknown rule, too.
    """
    sizes = step_sizes(threat, steps, step_size, rule)

    return with_restarts(
        partial(_walk, model, threat=threat, sizes=sizes, drop_fooled=drop_fooled),
        *(model, x, y, threat),
        restarts=restarts,
        generator=generator,
        batch_size=batch_size,
        skip_wrong=drop_fooled,
    )


def step_sizes(
    threat: Threat, steps: int, step_size: float | None = None, rule: StepRule = "constant"
) -> list[float]:
    """Return the length of every step; see `pgd`."""
    check_counts(steps=steps)
    if step_size is not None and not 0 < step_size < math.inf:
        raise UserError(f"`step_size={step_size}` is not a finite number above 0: give one")
    if rule not in STEP_RULES:
        raise unknown_name("step rule", rule, STEP_RULES)
    if rule == "constant":
        return [_PATH * threat.eps / steps if step_size is None else step_size] * steps
    first = 2 * _PATH * threat.eps / steps if step_size is None else step_size
    return [first * (1 + math.cos(math.pi * (i + 0.5) / steps)) / 2 for i in range(steps)]


def _walk(
    model: Model,
    x: Batch,
    y: Classes,
    start: Batch,
    *,
    threat: Threat,
    sizes: list[float],
    drop_fooled: bool,
) -> tuple[Batch, Marks]:
    """Walk from `start`; return where each image ended, and whether it is fooled there."""
    ends = start.clone()
    fooled = torch.zeros_like(y, dtype=torch.bool)
    left = torch.arange(len(y), device=y.device)
    for size in sizes:
        logits, _, grad = ascend(model, cross_entropy, ends[left], y[left])
        missed = logits.argmax(dim=1) == y[left]
        if not drop_fooled:
            missed = torch.ones_like(missed)
        fooled[left[~missed]] = True
        left, grad = left[missed], grad[missed]
        if not len(left):
            return ends, fooled
        ends[left] = threat.project(ends[left] + size * steepest(grad, threat.norm), x[left])
    fooled[left] = ~still_right(model, ends[left], y[left], len(left))
    return ends, fooled


def with_restarts(
    walk: Walk,
    model: Model,
    x: Images,
    y: Labels,
    threat: Threat,
    *,
    restarts: int,
    generator: torch.Generator,
    batch_size: int,
    skip_wrong: bool = True,
) -> Batch:
    """Walk from random points until an image is fooled, at most `restarts` times.

    Images that are wrong from the start stay as they are, if `skip_wrong`; of those never fooled,
    the end of the last walk is returned. The noise of a restart is drawn for all images at once:
    it depends on neither the batch size nor which of the others are still right.
    """
    check_counts(restarts=restarts, batch_size=batch_size)
    x, y = accepted(model, x, y, threat)
    x_adv = x.clone()
    if threat.eps == 0:
        return x_adv
    with evaluating(model):
        left = torch.arange(len(y), device=y.device)
        if skip_wrong:
            left = left[still_right(model, x, y, batch_size)]
        for _ in range(restarts):
            if not len(left):
                break
            start = threat.random_start(x, generator)
            missed = []
            for part in left.split(batch_size):
                x_adv[part], fooled = walk(x[part], y[part], start[part])
                missed.append(part[~fooled])
            left = torch.cat(missed)
    return x_adv
