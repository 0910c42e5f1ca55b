"""Mean accuracy over corruptions, and mean corruption error against a named baseline.

`correct` is, for each corruption, whether each image was classified rightly at each severity:
bool (S, N), the same images in the same order everywhere. Both figures are means over images, so
each function returns their per-image values, and `mean_of` gives the interval.
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
    errors: Mapping[str, float]
    """For each corruption its error, mean over severities, in [0, 1]."""


def baseline_of(evaluation: Evaluation, name: str) -> Baseline:
    """Return an evaluated student as a baseline, by the 15 corruptions that it was measured on.

    Raises UserError if its evaluation holds no corruptions.
    """
    means = {corruption: f"corruption/{corruption}/mean" for corruption in COMMON}
    errors = {of: 1 - evaluation[key].value for of, key in means.items() if key in evaluation}
    if not errors:
        raise UserError(f"{name} cannot be the baseline: it was not measured on corruptions")
    return Baseline(name, errors)


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
    for name in correct:
        if name not in baseline.errors:
            raise UserError(
                f"{baseline.name} was not measured on {name}: leave {name} out, or measure it there"
            )
        if baseline.errors[name] <= 0:
            raise UserError(
                f"{baseline.name} makes no error on {name}, so nothing can be measured by it: "
                "choose another baseline"
            )
    errors = [(1 - one.double().mean(0)) / baseline.errors[name] for name, one in correct.items()]
    return torch.stack(errors).mean(0)


def _require_same_images(correct: Correct) -> None:
    counts = {name: of_one.shape[1] for name, of_one in correct.items()}
    if not any(counts.values()):
        raise UserError("no corruption was measured: give at least one")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} on {count}" for name, count in counts.items())
        raise UserError(f"{listed} images were measured: measure all on the same images")
