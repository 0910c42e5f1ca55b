"""What a teacher says of each image's class before and after CLARID takes its extraneous part out.

The evidence is that of `clarid.class_posterior`, of the inverted latent and of the projected one at
sigma_te, under the same noise and beside the same rivals, so that the two can be compared in pairs.
An image that another class explained better before and its own does after was doubted for what has
been taken out, a cue say, and not for its object.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from clarep.clarid.clareps import CLAReps
from clarep.clarid.class_posterior import ClassPosterior, class_posterior
from clarep.clarid.diffusion_classifier import own_and_rivals
from clarep.engine.bounds import check_seed
from clarep.engine.progress import progress
from clarep.engine.statistics import bootstrap_interval
from clarep.errors import UserError
from clarep.select.class_evidence import LEVELS, MOST_LABELS
from clarep.teachers.teacher import Teacher

_BLOCK = 100  # images in memory, and between two steps of the bar


@dataclass(frozen=True)
class EvidenceChange:
    """Class evidence of some images before and after the projection, in nats."""

    images: int
    before: float
    """Mean of log p(label | x) - log(1 / labels) of the inverted latents: 0 is chance."""
    after: float
    """The same of the projected ones."""
    change: float
    """Mean of after - before, image by image."""
    change_interval: tuple[float, float]
    """Its 95 % interval (bootstrap over images)."""
    against_before: int
    """Images of which the teacher finds another class at least as likely as their own."""
    against_after: int
    against_no_longer: int
    """Of `against_before`, those whose own class is the likeliest after the projection."""
    labels_tried: int
    """Classes that each image was asked about, its own among them."""
    denoiser_evaluations: int


@dataclass(frozen=True)
class ProjectedEvidence:
    """Class evidence of each image's latent before and after the projection."""

    index: Int64[Tensor, " n"]
    """Which images of the data set."""
    labels: Int64[Tensor, " n"]
    before: Float64[Tensor, " n"]
    """log p(label | x) - log(1 / labels), in nats, of the inverted latent."""
    after: Float64[Tensor, " n"]
    """The same of the projected one."""
    right_before: Bool[Tensor, " n"]
    """Whether the own class was likelier than every other that was tried."""
    right_after: Bool[Tensor, " n"]
    labels_tried: int

    @property
    def against_no_longer(self) -> Bool[Tensor, " n"]:
        """Whether another class was as likely before, and the own is the likeliest after."""
        return self.right_after & ~self.right_before

    def of(self, members: Bool[Tensor, " n"]) -> EvidenceChange:
        """Return what it says of some of the images, at least one."""
        before, after = self.before[members], self.after[members]
        return EvidenceChange(
            images=len(before),
            before=float(before.mean()),
            after=float(after.mean()),
            change=float((after - before).mean()),
            change_interval=bootstrap_interval(after - before),
            against_before=int((~self.right_before[members]).sum()),
            against_after=int((~self.right_after[members]).sum()),
            against_no_longer=int(self.against_no_longer[members].sum()),
            labels_tried=self.labels_tried,
            denoiser_evaluations=len(before) * 2 * 2 * LEVELS * self.labels_tried,
        )


def projected_evidence(
    teacher: Teacher, canonical: CLAReps, *, seed: int = 0, batch_size: int = 25
) -> ProjectedEvidence:
    """Return the class evidence of latents before and after the projection, with a progress bar.

    Costs 12 denoiser evaluations an image and class, of at most ten classes.

    Args:
        teacher: the one that made them.
        canonical: latents before (`x_te`) and after (`latent`), at least of one image.
        seed: of noise and rivals, which follow from it and an image's index: with the seed of the
            set they are those of the measures of `clarep identify`.
        batch_size: images that go through the teacher at once; it changes last digits alone.

    Raises:
        UserError: for a teacher of one class, and where it gives what is not finite.
    """
    check_seed(seed)
    if teacher.num_classes < 2:
        raise UserError(
            "the teacher knows one class, beside which there is no evidence for any: give a "
            "teacher of two classes or more"
        )
    index, sigma_te = canonical.index.numpy(), canonical.sigma_te
    rngs = [np.random.default_rng([seed, int(i)]) for i in index]
    tried = own_and_rivals(canonical.label, teacher.num_classes, MOST_LABELS, rngs)
    found: tuple[list[ClassPosterior], list[ClassPosterior]] = ([], [])
    with progress("evidence before and after", "images", len(index)) as advance:
        for start in range(0, len(index), _BLOCK):
            some = slice(start, start + _BLOCK)
            reps = canonical[some]
            for latents, posteriors in zip((reps.x_te, reps.latent), found, strict=True):
                one = class_posterior(
                    teacher,
                    latents.to(teacher.dtype),
                    tried[some],
                    sigma_te,
                    index[some],
                    levels=LEVELS,
                    seed=seed,
                    batch_size=batch_size,
                )
                posteriors.append(one)
            advance(len(reps))
    before, after = (torch.cat([one.nats for one in each]) for each in found)
    right_before, right_after = (torch.cat([one.right for one in each]) for each in found)
    return ProjectedEvidence(
        canonical.index, canonical.label, before, after, right_before, right_after, tried.shape[1]
    )
