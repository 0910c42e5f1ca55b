"""Do a student's probabilities mean what they say? ECE, adaptive ECE, Brier score, NLL, AUROC.

- ECE: Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599): the top
  probability in 15 bins of the same width, mean distance of confidence from accuracy.
- Adaptive ECE: the same with bins of the same number of images, Nguyen & O'Connor (2015,
  arXiv 1508.05154), Nixon et al. (arXiv 1904.01685).
- Brier (1950), over all classes: sum over classes of (p - [is the label])², in [0, 2].
- NLL: -ln of the label's probability; a probability that underflowed counts as the smallest
  normal fp32 number.
- AUROC between the top probabilities of its own images and of others (Hendrycks & Gimpel,
  arXiv 1610.02136), for which any `LabelledImages` serve.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.arrays import Labels, as_labels
from clarep.engine.statistics import RESAMPLES, Floats, Picks, bootstrap, percentile_interval
from clarep.errors import UserError
from clarep.robustness.evaluation import Measured, Measurement, mean_of

BINS = 15
_SUM_TOLERANCE = 1e-3

Probabilities = Float[Tensor, "images classes"]


def calibration(probabilities: Probabilities, labels: Labels) -> Measured:
    """Return the four measurements, and the per-image values of those that are means."""
    values = {
        "calibration/brier": brier_values(probabilities, labels),
        "calibration/nll": nll_values(probabilities, labels),
    }
    errors = [ece(probabilities, labels), adaptive_ece(probabilities, labels)]
    means = [mean_of(key, of_images) for key, of_images in values.items()]
    return Measured([*errors, *means], values)


def ece(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> Measurement:
    """Return the expected calibration error, in [0, 1], bins of the same width.

    Raises UserError if these are no probabilities or labels.
    """
    confidence, correct = _top(probabilities, labels, bins)
    bin_of = _equal_width_bins(confidence, bins)
    return _error("calibration/ece", correct - confidence, lambda picks: bin_of[picks], bins)


def adaptive_ece(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> Measurement:
    """Return the ECE with bins of the same number of images (one more in the first ones).

    Images of one confidence share the bin of the first of them, so that the order of the images
    does not matter. Bins are cut anew in each resample. Raises UserError if these are no
    probabilities or labels.
    """
    confidence, correct = _top(probabilities, labels, bins)
    distinct, value_of = np.unique(confidence, return_inverse=True)
    parts = np.array_split(np.arange(len(confidence)), bins)
    bin_of_place = np.repeat(np.arange(bins), [len(part) for part in parts])

    def bin_of(picks: Picks) -> Picks:
        shape = len(picks), len(distinct)
        at = np.arange(len(picks))[:, None] * len(distinct) + value_of[picks]
        count = np.bincount(at.ravel(), minlength=math.prod(shape)).reshape(shape)
        first = count.cumsum(axis=1) - count  # place of the first image of each value
        bin_of_value = bin_of_place[first.clip(max=len(confidence) - 1)]
        return np.take_along_axis(bin_of_value, value_of[picks], 1)

    return _error("calibration/adaptive_ece", correct - confidence, bin_of, bins)


def brier_values(probabilities: Probabilities, labels: Labels) -> Float[Tensor, " images"]:
    """Return each image's Brier score over all classes, in [0, 2], float64."""
    probabilities, labels = _checked(probabilities, labels)
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities - truth).square().sum(1)


def nll_values(probabilities: Probabilities, labels: Labels) -> Float[Tensor, " images"]:
    """Return each image's negative log likelihood, float64, in nats."""
    probabilities, labels = _checked(probabilities, labels)
    of_label = probabilities.gather(1, labels[:, None])[:, 0]
    return -of_label.clamp(min=torch.finfo(torch.float32).tiny).log()


def reliability(
    probabilities: Probabilities, labels: Labels, bins: int = BINS
) -> list[tuple[float, float, float]]:
    """Return (mean confidence, accuracy, share of images) of each of ECE's bins with images."""
    confidence, correct = _top(probabilities, labels, bins)
    bin_of = _equal_width_bins(confidence, bins)
    members = [bin_of == at for at in np.unique(bin_of)]
    return [
        (float(confidence[m].mean()), float(correct[m].mean()), float(m.mean())) for m in members
    ]


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


def _error(key: str, gap: Floats, bin_of: Callable[[Picks], Picks], bins: int) -> Measurement:
    """Return a calibration error, |sum of the gaps| of each bin, over all images.

    Resampling makes bins noisier, so it raises the error; that shift, mean of the resamples
    minus value, is taken off the ends of the bootstrap interval, lest they lie above the value.

    gap: of each image, whether it is right minus its confidence.
    bin_of: from picked images (R, N) to their bins.
    """

    def of_resamples(picks: Picks) -> Floats:
        at = np.arange(len(picks))[:, None] * bins + bin_of(picks)
        totals = np.bincount(at.ravel(), gap[picks].ravel(), minlength=len(picks) * bins)
        error: Floats = np.abs(totals.reshape(-1, bins)).sum(axis=1) / len(gap)
        return error

    value = float(of_resamples(np.arange(len(gap))[None])[0])
    found = bootstrap(len(gap), of_resamples)
    low, high = percentile_interval(found)
    shift = float(found.mean()) - value
    return Measurement(key, value, (max(low - shift, 0.0), min(high - shift, 1.0)), len(gap))


def _top(probabilities: Probabilities, labels: Labels, bins: int) -> tuple[Floats, Floats]:
    """Return each image's top probability, and 1 where it is the label's, else 0."""
    if bins < 1:
        raise UserError(f"bins {bins} is below 1: give 15, say")
    probabilities, labels = _checked(probabilities, labels)
    confidence, predicted = probabilities.max(1)
    return confidence.numpy(), (predicted == labels).double().numpy()


def _equal_width_bins(confidence: Floats, bins: int) -> Picks:
    edges = np.linspace(0, 1, bins + 1)
    # the last bin also takes a sum of fp32 numbers that came out a little above 1
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)


def _checked(probabilities: Probabilities, labels: Labels) -> tuple[Tensor, Tensor]:
    """Return both in double precision; raise UserError for what they cannot be."""
    images, classes = probabilities.shape
    if images == 0:
        raise UserError("calibration of no images was asked for: give at least one")
    probabilities = probabilities.detach().double()
    # NaN fails both comparisons
    off = (probabilities.sum(1) - 1).abs()
    if not bool((probabilities >= 0).all()) or not bool((off < _SUM_TOLERANCE).all()):
        raise UserError(
            "these are no probabilities (rows of numbers from 0 that sum to 1): "
            "give the softmax of the logits, in single precision"
        )
    return probabilities, as_labels(labels, images, classes)


def _area(own: Picks, others: Picks, levels: int) -> float:
    """Return the area under the ROC curve of scores that are replaced by their ranks."""
    of_own = np.bincount(own, minlength=levels)
    of_others = np.bincount(others, minlength=levels)
    below = np.cumsum(of_others) - of_others
    return float(of_own @ (below + of_others / 2)) / (len(own) * len(others))
