"""What an independent classifier, the judge, says of images."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.engine.arrays import check_finite
from clarep.engine.statistics import binomial_interval

Scorer = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [-1, 1] to logits (B, K) of the teacher's classes: a `Judge`, or what
stands in for it."""

_AT_ONCE = 250  # images that a judge sees


@torch.no_grad()
def answers(judge: Scorer, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
    """Return the judge's logits of images in [-1, 1]. Raises UserError if one is not finite."""
    logits = torch.cat([judge(part) for part in images.split(_AT_ONCE)])
    check_finite(logits, "the judge's logits", "look for NaN in its weights, or in the samples")
    return logits


def judged(
    judge: Scorer, images: Float[Tensor, "batch c h w"], labels: Int64[Tensor, " batch"]
) -> dict[str, Any]:
    """Return what the judge says of images in [-1, 1], as the fields judge_* of `Measures`."""
    probabilities = answers(judge, images).softmax(1)
    right = (probabilities.argmax(1) == labels).double()
    return {
        "judge_accuracy": float(right.mean()),
        "judge_interval": binomial_interval(int(right.sum()), len(right)),
        "judge_confidence": float(probabilities.gather(1, labels[:, None]).mean()),
    }
