"""Do a student's probabilities mean what they say? ECE, adaptive ECE, Brier score, NLL.

- ECE: Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599): the top
  probability in 15 bins of the same width, mean distance of confidence from accuracy.
- Adaptive ECE: the same with bins of the same number of images, Nguyen & O'Connor (2015,
  arXiv 1508.05154), Nixon et al. (arXiv 1904.01685).
- Brier (1950), over all classes: sum over classes of (p - [is the label])², in [0, 2].
- NLL: -ln of the label's probability; a probability that underflowed counts as the smallest
  normal fp32 number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from numpy.typing import NDArray
from torch import Tensor

from clarep.engine.arrays import Labels, as_labels
from clarep.engine.statistics import Floats, Picks, bootstrap, percentile_interval
from clarep.errors import UserError
from clarep.robustness.evaluation import Measurement, mean_of

BINS = 15
_SUM_TOLERANCE = 1e-3

Probabilities = Float[Tensor, "images classes"]


@dataclass(frozen=True)
class ReliabilityBins:
    """What a reliability plot shows, B bins of the top probability."""

    edges: Float[Tensor, " bins_and_one"]
    """Bin b holds confidences in (edges[b], edges[b + 1]]; the first one holds 0 too."""
    count: Int[Tensor, " bins"]
    """Images in each bin."""
    confidence: Float[Tensor, " bins"]
    """Their mean confidence; NaN where there are none."""
    accuracy: Float[Tensor, " bins"]
    """Their accuracy; NaN where there are none."""


def calibration(
    probabilities: Probabilities, labels: Labels
) -> tuple[list[Measurement], dict[str, Tensor]]:
    """Return the four measurements, and the per-image values of those that are means."""
    measurements = [
        ece(probabilities, labels),
        adaptive_ece(probabilities, labels),
        brier(probabilities, labels),
        nll(probabilities, labels),
    ]
    arrays = {
        "calibration/brier": brier_values(probabilities, labels),
        "calibration/nll": nll_values(probabilities, labels),
    }
    return measurements, arrays


def ece(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> Measurement:
    """Return the expected calibration error, in [0, 1], bins of the same width.

    Its interval: see `_interval`. Raises UserError if these are no probabilities or labels.
    """
    confidence, correct = _top(probabilities, labels, bins)
    bin_of = _equal_width_bins(confidence, bins)
    gap = correct - confidence

    def of_resamples(picks: Picks) -> Floats:
        return _mean_gap(bin_of[picks], gap[picks], bins, len(gap))

    value = float(of_resamples(np.arange(len(gap))[None])[0])
    return Measurement("calibration/ece", value, _interval(value, len(gap), of_resamples), len(gap))


def adaptive_ece(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> Measurement:
    """Return the ECE with bins of the same number of images (one more in the first ones).

    Images of one confidence share the bin of the first of them, so that the order of the images
    does not matter. Bins are cut anew in each resample. Raises UserError if these are no
    probabilities or labels.
    """
    confidence, correct = _top(probabilities, labels, bins)
    gap = correct - confidence
    distinct, value_of = np.unique(confidence, return_inverse=True)
    parts = np.array_split(np.arange(len(gap)), bins)
    bin_of_place = np.repeat(np.arange(bins), [len(part) for part in parts])

    def of_resamples(picks: Picks) -> Floats:
        shape = len(picks), len(distinct)
        at = np.arange(len(picks))[:, None] * len(distinct) + value_of[picks]
        count = np.bincount(at.ravel(), minlength=math.prod(shape)).reshape(shape)
        first = count.cumsum(axis=1) - count  # place of the first image of each value
        bin_of = np.take_along_axis(bin_of_place[first.clip(max=len(gap) - 1)], value_of[picks], 1)
        return _mean_gap(bin_of, gap[picks], bins, len(gap))

    value = float(of_resamples(np.arange(len(gap))[None])[0])
    interval = _interval(value, len(gap), of_resamples)
    return Measurement("calibration/adaptive_ece", value, interval, len(gap))


def brier(probabilities: Probabilities, labels: Labels) -> Measurement:
    """Return the mean Brier score, in [0, 2], over all classes."""
    return mean_of("calibration/brier", brier_values(probabilities, labels))


def nll(probabilities: Probabilities, labels: Labels) -> Measurement:
    """Return the mean negative log likelihood, in nats."""
    return mean_of("calibration/nll", nll_values(probabilities, labels))


def brier_values(probabilities: Probabilities, labels: Labels) -> Float[Tensor, " images"]:
    """Return each image's Brier score, float64."""
    probabilities, labels = _checked(probabilities, labels)
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities - truth).square().sum(1)


def nll_values(probabilities: Probabilities, labels: Labels) -> Float[Tensor, " images"]:
    """Return each image's negative log likelihood, float64, in nats."""
    probabilities, labels = _checked(probabilities, labels)
    of_label = probabilities.gather(1, labels[:, None])[:, 0]
    return -of_label.clamp(min=torch.finfo(torch.float32).tiny).log()


def reliability_bins(
    probabilities: Probabilities, labels: Labels, bins: int = BINS
) -> ReliabilityBins:
    """Return the bins of the same width that `ece` is made of."""
    confidence, correct = _top(probabilities, labels, bins)
    bin_of = _equal_width_bins(confidence, bins)
    count = np.bincount(bin_of, minlength=bins)
    some = np.where(count, count, np.nan)
    return ReliabilityBins(
        edges=torch.linspace(0, 1, bins + 1, dtype=torch.float64),
        count=torch.from_numpy(count),
        confidence=torch.from_numpy(np.bincount(bin_of, confidence, bins) / some),
        accuracy=torch.from_numpy(np.bincount(bin_of, correct, bins) / some),
    )


def _interval(
    value: float, images: int, of_resamples: Callable[[Picks], Floats]
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a calibration error, over images.

    Resampling makes bins noisier, so it raises the error; that shift, mean of the resamples
    minus value, is taken off the percentiles, lest they lie above the value.
    """
    found = bootstrap(images, of_resamples)
    low, high = percentile_interval(found)
    shift = float(found.mean()) - value
    return max(low - shift, 0.0), min(high - shift, 1.0)


def _top(
    probabilities: Probabilities, labels: Labels, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each image's top probability, and 1 where it is the label's, else 0."""
    if bins < 1:
        raise UserError(f"bins {bins} is below 1: give 15, say")
    probabilities, labels = _checked(probabilities, labels)
    confidence, predicted = probabilities.max(1)
    return confidence.numpy(), (predicted == labels).double().numpy()


def _equal_width_bins(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    edges = np.linspace(0, 1, bins + 1)
    # the last bin also takes a sum of fp32 numbers that came out a little above 1
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)


def _mean_gap(
    bin_of: NDArray[np.int64], gap: NDArray[np.float64], bins: int, images: int
) -> NDArray[np.float64]:
    """Return the calibration error of each row: |sum of its gaps| of each bin, over all images."""
    row = np.arange(len(gap))[:, None] * bins
    totals = np.bincount((row + bin_of).ravel(), gap.ravel(), minlength=len(gap) * bins)
    error: NDArray[np.float64] = np.abs(totals.reshape(-1, bins)).sum(axis=1) / images
    return error


def _checked(
    probabilities: Probabilities, labels: Labels
) -> tuple[Float[Tensor, "images classes"], Int64[Tensor, " images"]]:
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
