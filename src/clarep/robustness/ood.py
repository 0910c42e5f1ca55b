"""Does a student know what it does not know? AUROC between its own images and others.

How much an image looks like the student's own is told by its top probability (Hendrycks & Gimpel,
arXiv 1610.02136). Any `LabelledImages` serve as the others.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from clarep.engine.statistics import RESAMPLES, percentile_interval
from clarep.errors import UserError
from clarep.robustness.evaluation import Measurement


def max_softmax(logits: Float[Tensor, "images classes"]) -> Float[Tensor, " images"]:
    """Return the top probability of each image, in float64."""
    return logits.double().softmax(1).amax(1)


def auroc(
    name: str, inside: Float[Tensor, " own"], outside: Float[Tensor, " others"]
) -> Measurement:
    """Return how often one of the student's own images scores above one of the others.

    A tie counts one half: the area under the ROC curve, 0.5 for chance.

    Args:
        name: of the other images; the measurement's key is ood/NAME/auroc.
        inside: scores of the student's own images, high is familiar.
        outside: scores of the others.

    Raises:
        UserError: if there are no images on one side, or a score is NaN.
    """
    for side, scores in (("own", inside), ("other", outside)):
        if not len(scores) or bool(scores.isnan().any()):
            raise UserError(f"the scores of the {side} images of {name} are missing or NaN")
    both = torch.cat([inside.double(), outside.double()]).numpy()
    _, place = np.unique(both, return_inverse=True)
    own, others = place[: len(inside)], place[len(inside) :]
    levels = int(place.max()) + 1
    rng = np.random.default_rng(0)
    found = [
        _area(rng.choice(own, len(own)), rng.choice(others, len(others)), levels)
        for _ in range(RESAMPLES)
    ]
    interval = percentile_interval(np.array(found))
    return Measurement(f"ood/{name}/auroc", _area(own, others, levels), interval, len(both))


def _area(own: NDArray[np.int64], others: NDArray[np.int64], levels: int) -> float:
    """Return the area under the ROC curve of scores that are replaced by their ranks."""
    of_own = np.bincount(own, minlength=levels)
    of_others = np.bincount(others, minlength=levels)
    below = np.cumsum(of_others) - of_others
    return float(of_own @ (below + of_others / 2)) / (len(own) * len(others))
