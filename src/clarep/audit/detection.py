"""How well a score finds the images it should: those of a foreign cue, or of a wrong label.

Beside the doubt stand what students are otherwise told by: the error set of JTT (Liu et al. 2021,
arXiv 2107.09044) and a confident-learning score (Northcutt et al. 2021, arXiv 1911.00068).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from clarep.engine.statistics import Floats, bootstrap
from clarep.errors import UserError

Interval = tuple[float, float]


@dataclass(frozen=True)
class Detection:
    """How well a score finds images; 95 % intervals by bootstrap over images."""

    images: int
    found: int
    """Those that it should find."""
    share: float
    """Of the images, with the highest scores, that precision and recall are taken at."""
    auc: float
    """Chance that an image it should find has a higher score than one it should not."""
    auc_interval: Interval
    precision: float
    """Of the top share, those that it should find."""
    precision_interval: Interval
    recall: float
    """Of those that it should find, the ones in the top share."""
    recall_interval: Interval


def detection(
    scores: Float[Tensor, " n"] | Floats, truth: NDArray[np.bool_], share: float = 0.1
) -> Detection:
    """Return how well scores find the images that `truth` says.

    Equal scores count as in a random order, so that a set of 0s and 1s is a score too.

    Args:
        scores: the higher, the sooner an image is taken.
        truth: which images should be found.
        share: of all images, in (0, 1], that precision and recall are taken at.

    Raises:
        UserError: if scores and truth differ in length, a score is not finite, or no image or
            every one should be found.
    """
    values = np.asarray(scores, np.float64)
    if values.shape != truth.shape or not np.isfinite(values).all():
        raise UserError(
            f"scores are {values.shape} and truth is {truth.shape}: give a finite score and a yes "
            "or no for each image"
        )
    if not 0 < share <= 1:
        raise UserError(f"share {share} is outside (0, 1]: give one such as 0.1")
    if truth.all() or not truth.any():
        raise UserError(
            f"{int(truth.sum())} of {len(truth)} images should be found: nothing tells how well"
        )
    _, levels = np.unique(-values, return_inverse=True)  # the highest score is level 0

    def figures(picks: NDArray[np.int64]) -> Floats:
        return np.stack([_figures(levels[pick], truth[pick], share) for pick in picks])

    own = _figures(levels, truth, share)
    resampled = bootstrap(len(values), figures)
    low, high = np.nanquantile(resampled, [0.025, 0.975], axis=0)
    given = dict[str, float | Interval]()
    for i, name in enumerate(("auc", "precision", "recall")):
        given |= {name: float(own[i]), f"{name}_interval": (float(low[i]), float(high[i]))}
    return Detection(len(values), int(truth.sum()), share, **given)  # type: ignore[arg-type]


def confident_learning(
    probabilities: Float[Tensor, "n k"], labels: Int64[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return max_c p_c - p_y over the other classes c: above 0 where another is more likely.

    The margin by which confident learning ranks label errors (arXiv 1911.00068). The
    probabilities should be of a classifier that was not trained on these images; of one that was
    they are too sure.
    """
    own = probabilities.gather(1, labels[:, None])
    others = probabilities.scatter(1, labels[:, None], -1.0)
    return others.amax(1) - own[:, 0]


def jtt_errors(
    probabilities: Float[Tensor, "n k"], labels: Int64[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return 1 for images that a classifier gets wrong, JTT's error set, and 0 for the others."""
    return (probabilities.argmax(1) != labels).to(probabilities)


def _figures(levels: NDArray[np.int64], truth: NDArray[np.bool_], share: float) -> Floats:
    """Return AUC, precision and recall of one set of images; NaN where they mean nothing."""
    found = np.bincount(levels[truth], minlength=int(levels.max()) + 1)
    rest = np.bincount(levels[~truth], minlength=len(found))
    sums = found.sum(), rest.sum()
    later = sums[1] - np.cumsum(rest)  # of lower scores
    pairs = float((found * (later + rest / 2)).sum())
    taken = share * len(levels)
    before = np.cumsum(found + rest) - (found + rest)
    part = np.clip((taken - before) / np.maximum(found + rest, 1), 0, 1)
    hits = float((part * found).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        of_all = np.array([sums[0] * sums[1], taken, sums[0]], np.float64)
        found_figures: Floats = np.array([pairs, hits, hits]) / of_all
    return found_figures
