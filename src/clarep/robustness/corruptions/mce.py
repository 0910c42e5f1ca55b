"""Mean accuracy over corruptions, and mean corruption error against a named baseline.

`correct` is, for each corruption, whether each image was classified rightly at each severity:
bool (S, N), the same images in the same order everywhere. All three figures are means over
images, so each function returns their per-image values, and `mean_of` gives the interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clarep.errors import UserError
from clarep.robustness.corruptions.by_name import COMMON
from clarep.robustness.evaluation import Evaluation

Correct = Mapping[str, Bool[Tensor, "severities images"]]


@dataclass(frozen=True)
class Baseline:
    """The errors of the classifier that others are measured by."""

    name: str
    """What it is called in tables."""
    clean_error: float
    """Its error on clean images, in [0, 1]."""
    errors: Mapping[str, float]
    """For each corruption its error, mean over severities, in [0, 1]."""


ALEXNET = Baseline(
    name="AlexNet on ImageNet-C",  # of github.com/hendrycks/robustness; clean: arXiv 1903.12261
    clean_error=0.435,
    errors={
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    },
)


def baseline_of(evaluation: Evaluation, name: str) -> Baseline:
    """Return an evaluated student as a baseline, by the 15 corruptions that it was measured on.

    Raises UserError if its evaluation holds no corruptions or no clean accuracy.
    """
    if "clean/accuracy" not in evaluation:
        raise UserError(f"{name} cannot be the baseline: its clean accuracy was not measured")
    errors = {
        corruption: 1 - evaluation[f"corruption/{corruption}/mean"].value
        for corruption in COMMON
        if f"corruption/{corruption}/mean" in evaluation
    }
    if not errors:
        raise UserError(f"{name} cannot be the baseline: it was not measured on corruptions")
    return Baseline(name, 1 - evaluation["clean/accuracy"].value, errors)


def mean_accuracy(correct: Correct) -> Float[Tensor, " images"]:
    """Return each image's share of right answers; every corruption counts the same."""
    _require_same_images(correct)
    return torch.stack([of_one.double().mean(0) for of_one in correct.values()]).mean(0)


def mean_corruption_error(correct: Correct, baseline: Baseline) -> Float[Tensor, " images"]:
    """Return per-image values whose mean is the mCE of Hendrycks & Dietterich, 1 = baseline.

    The error over all severities of each corruption is divided by the baseline's, then
    averaged over corruptions (arXiv 1903.12261, section 4.2). A value of one image can exceed 1.

    Raises UserError if the baseline has no error on a corruption, or makes none there.
    """
    _require_same_images(correct)
    parts = []
    for name, of_one in correct.items():
        scale = _error_of(baseline, name)
        if scale <= 0:
            raise UserError(
                f"{baseline.name} makes no error on {name}, so nothing can be measured by it: "
                "choose another baseline"
            )
        parts.append((1 - of_one.double().mean(0)) / scale)
    return torch.stack(parts).mean(0)


def relative_mean_corruption_error(
    correct: Correct, clean_correct: Bool[Tensor, " images"], baseline: Baseline
) -> Float[Tensor, " images"]:
    """Return per-image values whose mean is the relative mCE, 1 = baseline.

    Like mCE, of the errors that corruption adds to those on clean images. Raises UserError if
    corruption adds none to the baseline's, so that nothing can be measured by them.
    """
    _require_same_images({**correct, "the clean images": clean_correct[None]})
    parts = []
    for name, of_one in correct.items():
        scale = _error_of(baseline, name) - baseline.clean_error
        if scale <= 0:
            raise UserError(
                f"{name} adds nothing to the errors of {baseline.name}, so nothing can be "
                "measured by it: choose another baseline"
            )
        parts.append((clean_correct.double() - of_one.double().mean(0)) / scale)
    return torch.stack(parts).mean(0)


def _error_of(baseline: Baseline, name: str) -> float:
    if name not in baseline.errors:
        raise UserError(
            f"{baseline.name} was not measured on {name}: leave {name} out, or measure it there"
        )
    return baseline.errors[name]


def _require_same_images(correct: Correct) -> None:
    if not correct:
        raise UserError("no corruption was measured: give at least one")
    counts = {name: of_one.shape[1] for name, of_one in correct.items()}
    first = next(iter(counts))
    for name, count in counts.items():
        if count != counts[first] or count == 0:
            raise UserError(
                f"{name} was measured on {count} images and {first} on {counts[first]}: "
                "measure all on the same images"
            )
