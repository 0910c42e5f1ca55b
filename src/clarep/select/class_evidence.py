"""Is the class still in a latent? Asked so that the answer cannot be told.

A sample decoded under its class shows the class because the label says so, and features given the
class hold it for the same reason. Here the label is left out, or stands beside its rivals:

- the posterior log p(label | x) of a latent x at sigma_te, by the teacher's own likelihoods
  (a diffusion classifier, Li et al. 2023, arXiv 2303.16203), which needs no judge;
- the null decode: x decoded under no class, and what a judge, and the teacher itself, take it for;
- the swap test: x decoded under another class, and whether a judge still sees its own.

"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.clarid import Clarid
from clarep.clarid.class_posterior import ClassPosterior, class_posterior
from clarep.clarid.diffusion_classifier import own_and_rivals
from clarep.engine.arrays import as_labels, check_finite
from clarep.engine.bounds import check_seed
from clarep.errors import UserError
from clarep.select.judging import Scorer, answers
from clarep.teachers.teacher import Teacher

LEVELS = 3
MOST_LABELS = 10

Right = Bool[Tensor, " batch"]
Nats = Float64[Tensor, " batch"]


@dataclass(frozen=True)
class ClassEvidence:
    """What of its class each latent holds; the same images' can be compared in pairs."""

    nats: Nats
    """log p(label | x) - log(1 / labels) at sigma_te: 0 is chance, log(labels) is certainty, and
    below 0 the latent speaks against its label."""
    posterior_right: Right
    """Whether the own label is the likeliest at sigma_te."""
    below_nats: Nats | None
    """As `nats`, of the latent decoded under no class: what the teacher takes that for."""
    below_right: Right | None
    """As `posterior_right`, of the latent decoded under no class."""
    null_right: Right | None
    """Whether the judge gives the own label to what is decoded under no class, guidance 1."""
    swap_kept: Right | None
    """Whether it does to what is decoded under another class, guidance 1."""
    swap_kept_guided: Right | None
    """Whether it does at the setting's guidance."""
    labels: int
    """Labels that each latent was tried with, its own among them."""
    without_null: str
    """Why nothing is decoded under no class, "" where it is."""
    denoiser_evaluations: int
    """What it cost: passes of one image through the network."""


@torch.no_grad()
def class_evidence(
    clarid: Clarid,
    latents: Float[Tensor, "batch c h w"],
    labels: Int64[Tensor, " batch"],
    judge: Scorer | None = None,
    *,
    indices: Int64[Tensor, " images"] | None = None,
    seed: int = 0,
    levels: int = LEVELS,
    most_labels: int = MOST_LABELS,
) -> ClassEvidence:
    """Return the class evidence of latents at sigma_te.

    An image's noise and rivals follow from seed and index alone, its other class from the classes
    that `labels` hold too: its latents before and after a projection are asked the same, and
    `batch_size` changes nothing but rounding.

    Args:
        clarid: teacher and setting (sigma_te, solver, steps, guidance).
        latents: at sigma_te.
        labels: their classes.
        judge: of the teacher's classes; without it, what it says is None.
        indices: of the images; 0, 1, ... by default.
        seed: of noise, rivals, and other classes (among those of `labels` where there are two).
        levels: at how many noise levels, two denoiser evaluations a label each, a posterior is
            taken.
        most_labels: labels tried with each latent; its own, and of more classes random others.

    Raises:
        UserError: if the teacher knows one class alone, fewer than two labels or no level is asked
            for, latents and labels do not fit the teacher or each other, or what the teacher or the
            judge gives is not finite.
    """
    check_seed(seed)
    teacher, guidance = clarid.teacher, clarid.config.guidance
    if min(teacher.num_classes, most_labels) < 2 or levels < 1:
        raise UserError(
            f"class evidence of {teacher.num_classes} classes, `most_labels={most_labels}`, "
            f"`levels={levels}`: it takes two classes, two labels and one level at least"
        )
    latents, labels, index = _accepted(teacher, latents, labels, indices)
    tried, other = _rivals(labels, index, seed, teacher.num_classes, most_labels)
    before = clarid.ledger.denoiser_evaluations

    def posterior(x: Tensor, sigma: float) -> ClassPosterior:
        size = clarid.config.batch_size
        given: dict[str, int] = {"levels": levels, "seed": seed, "batch_size": size}
        found = class_posterior(teacher, x, tried, sigma, index, **given)
        clarid.ledger.denoiser_evaluations += found.denoiser_evaluations
        return found

    below = null_right = kept = kept_guided = None
    with clarid.ledger.stage("class evidence"):
        at_te = posterior(latents, clarid.sigma_te)
        if teacher.has_null:
            clean = _decoded(clarid, latents, torch.full_like(labels, teacher.null_label), 1.0)
            below = posterior(clean, 0.0)
            null_right = _judged(clarid, judge, clean, labels)
        if judge is not None:
            kept = _judged(clarid, judge, _decoded(clarid, latents, other, 1.0), labels)
            kept_guided = kept
            if guidance != 1:
                swapped = _decoded(clarid, latents, other, guidance)
                kept_guided = _judged(clarid, judge, swapped, labels)
    return ClassEvidence(
        nats=at_te.nats,
        posterior_right=at_te.right,
        below_nats=None if below is None else below.nats,
        below_right=None if below is None else below.right,
        null_right=null_right,
        swap_kept=kept,
        swap_kept_guided=kept_guided,
        labels=tried.shape[1],
        without_null="" if teacher.has_null else "this teacher has no null class",
        denoiser_evaluations=clarid.ledger.denoiser_evaluations - before,
    )


def _accepted(
    teacher: Teacher, latents: Tensor, labels: Tensor, indices: Tensor | None
) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Return latents, labels and indices as they are computed with, or refuse them."""
    labels = as_labels(labels, len(latents), teacher.num_classes, "the teacher's").cpu()
    index = np.arange(len(latents)) if indices is None else indices.cpu().numpy()
    latents = latents.to(teacher.dtype)
    if tuple(latents.shape[1:]) != teacher.latent_shape or len(index) != len(latents):
        raise UserError(
            f"latents of shape {tuple(latents.shape)} came with {len(index)} indices, and the "
            f"teacher takes {teacher.latent_shape}: give one index for each latent of its shape"
        )
    check_finite(latents, "the latents", "look for NaN in what they were made of")
    return latents, labels, index


def _rivals(
    labels: Int64[Tensor, " batch"],
    index: NDArray[np.int64],
    seed: int,
    num_classes: int,
    most: int,
) -> tuple[Int64[Tensor, "batch labels"], Int64[Tensor, " batch"]]:
    """Return the labels to try with each latent, its own first, and the class it is swapped to."""
    present, rngs = np.unique(labels.numpy()), [np.random.default_rng([seed, i]) for i in index]
    tried, other = own_and_rivals(labels, num_classes, most, rngs), []
    for (label, *beside), rng in zip(tried.tolist(), rngs, strict=True):
        among = present[present != label]
        other.append(rng.choice(among if len(among) else beside))
    return tried, torch.from_numpy(np.array(other, np.int64))


def _decoded(clarid: Clarid, latents: Tensor, labels: Tensor, guidance: float) -> Tensor:
    """Return clean latents, on the CPU, decoded from sigma_te under any labels, also the null's."""
    teacher, size = clarid.teacher, clarid.config.batch_size

    def batch(x: Tensor, given: Tensor) -> Tensor:
        x = x.to(teacher.device, teacher.dtype)
        return clarid.walked_down(x, given.to(teacher.device), guidance).cpu()

    parts = zip(latents.split(size), labels.split(size), strict=True)
    decoded = torch.cat([batch(*part) for part in parts])
    check_finite(decoded, "the decoded latents", "look for NaN in the teacher's weights")
    return decoded


def _judged(clarid: Clarid, judge: Scorer | None, clean: Tensor, labels: Tensor) -> Right | None:
    """Return whether a judge, if any, gives clean latents, decoded to images, their labels."""
    if judge is None:
        return None
    size, device = clarid.config.batch_size, clarid.teacher.device
    images = torch.cat([clarid.teacher.decode(part.to(device)).cpu() for part in clean.split(size)])
    return answers(judge, images.clamp(-1, 1)).argmax(1) == labels
