"""What a student answers with, asked on a few test images before any figure is believed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.labelled import LabelledImages
from clarep.engine.arrays import logits_in
from clarep.errors import UserError, refusing
from clarep.robustness.attacks.passes import Gradient, gradient_at
from clarep.robustness.tested_student import Subject, as_float, named
from clarep.students.student import FAULTS, Student

_PROBED = 8  # images
_ROUNDING = 1e-6  # of probabilities, outside [0, 1]
_SUM = 1e-2  # how far a row of probabilities may be from 1: half precision is
_TWICE, _ALONE = 1e-4, 1e-2  # of the logits' range: rounding differs with the size of a batch

Kind = Literal["graded", "one class alone", "in [0, 1]"]


@dataclass(frozen=True)
class Answers:
    """What was found of a student's answers."""

    images: int
    """How many test images were asked for."""
    twice: float
    """Largest difference between two passes of one batch, as a share of the logits' range."""
    alone: float
    """Likewise between images alone and the same in a batch."""
    kind: Kind
    """One class alone: two values, one of them once a row. In [0, 1]: as sigmoids are."""
    gradient: Gradient
    """Of the logits with respect to the image."""

    @property
    def doubts(self) -> dict[str, str]:
        """Why figures must not be trusted, by the beginning of their keys; "" is all of them."""
        if self.twice > _TWICE:
            return {
                "": "two passes of one image differ (the model was traced in training mode, or "
                "draws noise)"
            }
        if self.alone > _ALONE:
            return {
                "": "an image's answer depends on the batch it comes in (the model was traced in "
                "training mode)"
            }
        if self.kind == "in [0, 1]":
            reason = "all answers lie in [0, 1], as sigmoids do, whose softmax is no probability"
            return dict.fromkeys(("calibration/", "ood/"), reason)
        return {}

    @property
    def warnings(self) -> list[str]:
        """What `doubts` holds, a sentence for each reason."""
        groups: dict[str, list[str]] = {}
        for start, why in self.doubts.items():
            groups.setdefault(why, []).append(f"{start[:-1]} figure".strip())
        return [f"no {' or '.join(of)} of it can be trusted: {why}" for why, of in groups.items()]

    @property
    def lacking(self) -> dict[str, str]:
        """What groups of the suite need and the answers do not have."""
        found: dict[str, str] = {}
        if self.gradient != "reaches the image":
            found |= dict.fromkeys(
                ("attacks", "focus"), f"a gradient that reaches the image ({self.gradient} here)"
            )
        if self.kind == "one class alone":
            found |= dict.fromkeys(
                ("calibration", "ood"), "confidences, and the answers name one class alone"
            )
        return found


def probe(subject: Subject, data: LabelledImages, indices: NDArray[np.int64]) -> Answers:
    """Ask a student about a few of the images at `indices`: together, again, each alone.

    Raises:
        UserError: if it takes no such images, an answer is not finite or not of shape
            (B, classes), or probabilities come where logits are expected or the other way round.
    """
    chosen = indices[np.linspace(0, len(indices) - 1, min(_PROBED, len(indices)), dtype=int)]
    images, sources, student = data.images(chosen), named(data, chosen), subject.student
    what = f"{student.info.name} fails on images of {data.name}"
    mend = "give a model that takes float32 images in [0, 1], (B, C, H, W), one or many at once"
    with refusing(what, mend, FAULTS):
        _, logits = subject.both(images, sources)
        _, again = subject.both(images, sources)
        alone = [subject.both(images[i : i + 1], [at])[1] for i, at in enumerate(sources)]
        with torch.no_grad():
            whole = logits_in(student.answers(as_float(images).to(subject.device))).float().cpu()
    kind = _kind(student, whole)
    scale = _range(logits)
    return Answers(
        images=len(images),
        twice=float((again - logits).abs().max() / scale),
        alone=float((torch.cat(alone) - logits).abs().max() / scale),
        kind=kind,
        gradient=gradient_at(subject, as_float(images)),
    )


def _range(logits: Float[Tensor, "batch classes"]) -> float:
    """Return the largest distance of a logit from its row's mean: what a softmax sees."""
    return max(float((logits - logits.mean(dim=1, keepdim=True)).abs().max()), 1e-30)


def _kind(student: Student, whole: Float[Tensor, "batch classes"]) -> Kind:
    """Return what the answers are; raises UserError unless they are what they are taken for."""
    low, high = float(whole.min()), float(whole.max())
    in_unit = low >= -_ROUNDING and high <= 1 + _ROUNDING
    are_probabilities = in_unit and bool(((whole.sum(dim=1) - 1).abs() < _SUM).all())
    if student.outputs == "probabilities":
        if are_probabilities:
            return "graded"
        raise UserError(
            f"{student.info.name} answers with rows that are no probabilities (from {low:.3g} to "
            f"{high:.3g}, the first sums to {float(whole[0].sum()):.3g}): leave out "
            "`outputs=probabilities`"
        )
    values = whole.unique()
    once = bool((whole == high).sum(dim=1).eq(1).all())
    if len(values) == 2 and once and (whole.shape[1] > 2 or values.tolist() == [0, 1]):
        return "one class alone"
    if are_probabilities:
        raise UserError(
            f"{student.info.name} answers with probabilities (rows in [0, 1] that sum to 1), of "
            "which calibration and attacks would be wrong: give `outputs=probabilities`, or a "
            "model without its softmax"
        )
    return "in [0, 1]" if in_unit else "graded"
