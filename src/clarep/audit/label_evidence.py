"""How far a teacher's evidence speaks against each image's label, and how sure that is.

The doubt of an image at a noise level is the denoising error under its own label less the least
under another: above 0 the teacher finds another class more likely. Classes share their noise, so
that the standard error is of the differences, draw by draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.engine.statistics import binomial_interval, bootstrap_interval, t_quantile


@dataclass(frozen=True)
class ClassDoubts:
    """What a noise level says of the images of a class."""

    label: int
    images: int
    against: int
    """Images that another class explains better: those that the class's cue speaks against."""
    share_interval: tuple[float, float]
    """Of against / images, 95 %, exact binomial."""
    doubt: float
    """Mean over the images."""
    doubt_interval: tuple[float, float]
    """Its 95 % interval (bootstrap over images)."""
    rival: int | None
    """The other class that most of `against` are explained by; None without any."""


@dataclass(frozen=True)
class Evidence:
    """Evidence against the label of each image, at each noise level."""

    sigmas: tuple[float, ...]
    """Noise levels."""
    labels: Int64[Tensor, " n"]
    """Classes of the images."""
    doubt: Float[Tensor, "levels n"]
    """In the teacher's squared units, summed over the latent, mean over draws."""
    standard_error: Float[Tensor, "levels n"] | None
    """Of the doubt, over draws; None where there was one."""
    interval: Float[Tensor, "levels n 2"] | None
    """Of the doubt, 95 %, by Student's t over the draws, for the rival as it was found; None where
    there was one. Of two draws it is 13 standard errors to either side: it excludes 0 seldom."""
    rival: Int64[Tensor, "levels n"]
    """The other class of the least error."""

    @classmethod
    def of(
        cls,
        errors: Float[Tensor, "levels draws n k"],
        tried: Int64[Tensor, "n k"],
        sigmas: Sequence[float],
    ) -> "Evidence":
        """Return it from denoising errors under the classes `tried`, an image's own first."""
        draws = errors.shape[1]
        column = errors.mean(1)[..., 1:].argmin(-1) + 1  # (levels, n)
        best = column[:, None, :, None].expand(-1, draws, -1, 1)
        gaps = errors[..., 0] - errors.gather(-1, best)[..., 0]  # (levels, draws, n)
        doubt, spread, interval = gaps.double().mean(1), None, None
        if draws > 1:
            spread = gaps.double().std(1) / draws**0.5
            half = t_quantile(0.975, draws - 1) * spread
            interval = torch.stack([doubt - half, doubt + half], dim=-1)
        rival = tried[torch.arange(len(tried)), column]
        return cls(tuple(sigmas), tried[:, 0], doubt, spread, interval, rival)

    def by_class(self, level: int = 0) -> list[ClassDoubts]:
        """Return what a noise level, by its place, says of each class that has images."""
        return [self._of_class(int(label), level) for label in self.labels.unique()]

    def _of_class(self, label: int, level: int) -> ClassDoubts:
        members = self.labels == label
        doubt, rival = self.doubt[level, members], self.rival[level, members]
        against = rival[doubt > 0]
        return ClassDoubts(
            label,
            images=len(doubt),
            against=len(against),
            share_interval=binomial_interval(len(against), len(doubt)),
            doubt=float(doubt.mean()),
            doubt_interval=bootstrap_interval(doubt),
            rival=int(against.bincount().argmax()) if len(against) else None,
        )
