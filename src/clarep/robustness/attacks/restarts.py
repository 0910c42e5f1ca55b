"""What PGD and APGD share: batches, and restarts on the images that are still right."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.arrays import Images, Labels
from clarep.errors import UserError
from clarep.robustness.attacks.passes import Model, accepted, evaluating, still_right
from clarep.robustness.attacks.threat import Threat

Walk = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images, labels, starting points -> where it ended (B, C, H, W), and whether it fools (B,)."""


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
) -> Float[Tensor, "batch c h w"]:
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


def check_counts(**counts: int) -> None:
    """Raise UserError for a count below 1."""
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"`{name}={value}` is below 1: give a whole number from 1 up")
