"""Whether a teacher knows the classes of images: its denoising error given each label tells.

A diffusion classifier (Li et al. 2023, arXiv 2303.16203) gives an image the label under which it
is denoised best. A round trip cannot tell: any image that is inverted comes back.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.class_balance import rank_within_class
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.engine.arrays import check_finite
from clarep.engine.statistics import binomial_interval, bootstrap_interval
from clarep.teachers.teacher import Teacher

_SIGMAS = (0.5, 1.0, 2.0)  # where it tells best on the bundled teachers: docs/method.md
_IMAGES = 30
_LABELS = 10  # an image's own and at most nine others


@dataclass(frozen=True)
class Recognition:
    """How often images are denoised best given their own label, among a few."""

    images: int
    """How many images, evenly from the classes."""
    labels: int
    """Labels that each of them was denoised with, its own among them."""
    right: int
    """Images whose error is the least with their own label."""
    accuracy: float
    interval: tuple[float, float]
    """Of the accuracy, 95 %, exact binomial."""
    chance: float
    """What labels that mean nothing would reach: 1 / labels, or the share of the largest class,
    which a teacher that sees one class in all images gets right."""
    margin: float
    """By which share the error with the own label is lower than with the others, on average."""
    margin_interval: tuple[float, float]
    """Its 95 % interval (bootstrap over images)."""
    sigmas: tuple[float, ...]
    denoiser_evaluations: int
    """What it cost: passes of one image through the network."""

    @property
    def verdict(self) -> str:
        """`known`, `near chance`, or `too few` to tell.

        They are where not even all images right would tell, and where the interval reaches chance
        though a third of what lies between chance and all are right.
        """
        if self.interval[0] > self.chance:
            return "known"
        all_right = binomial_interval(self.images, self.images)[0]
        unsure = all_right <= self.chance or self.accuracy >= (1 + 2 * self.chance) / 3
        return "too few" if unsure else "near chance"

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, its verdict and the sentence that says it, as JSON values."""
        return asdict(self) | {"verdict": self.verdict, "said": str(self)}

    def __str__(self) -> str:
        low, high = self.interval
        largest = self.chance > 1 / self.labels  # which a reader who knows of `labels` wonders at
        why = " (the share of the largest class)" if largest else ""
        return (
            f"{self.right} of {self.images} images are denoised best with their own label among "
            f"{self.labels}: {self.accuracy:.2f} [{low:.2f}, {high:.2f}], chance {self.chance:.2f}"
            f"{why}"
        )


def denoising_residuals(
    teacher: Teacher,
    latents: Float[Tensor, "batch c h w"],
    labels: Int64[Tensor, "batch labels"],
    sigma: float,
    noise: Float[Tensor, "batch c h w"],
    *,
    batch_size: int,
    sigma_held: float = 0.0,
) -> Iterator[tuple[Int64[Tensor, " pairs"], Int64[Tensor, " pairs"], Tensor]]:
    """Yield (images, columns, D(x_0 + sigma eps; label) - x_0) until each label met its image once.

    All labels of an image share its noise, so that what they give can be compared in pairs.

    Of latents x at a noise level of their own, sigma_held, y = x + sigma eps lies at the level
    root(sigma_held^2 + sigma^2), and what is yielded is x^ - x with the posterior mean of x,
    x^ = y + w (D(y; label) - y), w = sigma^2 / (sigma_held^2 + sigma^2).

    Args:
        teacher: with or without a null class.
        latents: clean, from `teacher.encode`, or at sigma_held.
        labels: those to try with each image, classes of the teacher or its null label.
        sigma: what is added; the noise level that comes of it must be one of the teacher.
        noise: eps of each image.
        batch_size: images that go through the teacher at once.
        sigma_held: noise level that the latents hold already.
    """
    held, added = sigma_held**2, sigma**2
    w, at = added / (held + added), sigma if held == 0 else math.sqrt(held + added)
    x0, given = latents.to(teacher.device), labels.to(teacher.device)
    noisy = x0 + sigma * noise.to(x0)
    pairs = torch.cartesian_prod(torch.arange(len(x0)), torch.arange(labels.shape[1]))
    for some in pairs.split(batch_size):
        image, column = some.unbind(1)
        level = x0.new_full((len(some),), at)
        with torch.no_grad():
            cond = teacher.condition(given[image, column])
            residual = teacher.denoise(noisy[image], level, cond) - x0[image]
        if held:
            residual = w * residual + (1 - w) * (noisy[image] - x0[image])
        yield image, column, residual


def drawn_errors(
    teacher: Teacher,
    latents: Float[Tensor, "batch c h w"],
    labels: Int64[Tensor, "batch labels"],
    sigmas: Sequence[float],
    noise: Callable[[int, int], Float[Tensor, "batch c h w"]],
    *,
    draws: int,
    batch_size: int,
    sigma_held: float = 0.0,
) -> Float[Tensor, "sigmas draws batch labels"]:
    """Return |D(x_0 + sigma eps; label) - x_0|^2, summed over the latent, of every draw of eps.

    Of latents at sigma_held it is |x^ - x|^2, as `denoising_residuals` says.

    noise: from the place of a noise level in `sigmas`, and of a draw, to eps of each image. The
    rest as for `denoising_residuals`.

    Raises:
        UserError: if an error is not finite.
    """
    errors = torch.zeros(len(sigmas), draws, *labels.shape, dtype=torch.float64)
    for s, sigma in enumerate(sigmas):
        for draw in range(draws):
            eps = noise(s, draw)
            for image, column, residual in denoising_residuals(
                teacher, latents, labels, sigma, eps, batch_size=batch_size, sigma_held=sigma_held
            ):
                squared = residual.double().square().flatten(1).sum(1)
                errors[s, draw, image, column] = squared.cpu()
    levels = ", ".join(f"{sigma:g}" for sigma in sigmas)
    what = f"the denoiser's estimates at sigma {levels}"
    check_finite(errors, what, "check the weights, or leave out bf16")
    return errors


def denoising_errors(
    teacher: Teacher,
    latents: Float[Tensor, "batch c h w"],
    labels: Int64[Tensor, "batch labels"],
    sigmas: Sequence[float],
    *,
    draws: int = 1,
    seed: int = 0,
    batch_size: int = 25,
) -> Float[Tensor, "sigmas batch labels"]:
    """Return `drawn_errors` as their mean over draws of noise, which a seed gives on the CPU.

    Divided by sigma^2 and added over equal steps of log sigma they are, up to a constant of the
    image, its negative log-likelihood given the label.

    Raises:
        UserError: if an error is not finite.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(level: int, draw: int) -> Tensor:
        return torch.randn(latents.shape, generator=generator)  # asked for in this order

    drawn = drawn_errors(
        teacher, latents, labels, sigmas, noise, draws=draws, batch_size=batch_size
    )
    return drawn.mean(1)


def recognise(
    teacher: Teacher,
    data: LabelledImages,
    chosen: NDArray[np.int64],
    *,
    seed: int = 0,
    batch_size: int = 25,
) -> Recognition | None:
    """Try a few of the chosen images with their own label and with others; None for one class.

    The others are drawn for each image, from the classes of the chosen images first.

    Raises:
        UserError: if an image or label does not fit the teacher, or an error is not finite.
    """
    if teacher.num_classes < 2:
        return None
    rng = np.random.default_rng(seed)
    few = evenly(data.labels, chosen, _IMAGES, rng)
    own = torch.from_numpy(data.labels[few])
    images = teacher.accept_images(to_unit_range(data.images(few)))
    teacher.check_labels(own)
    labels = _with_others(data.labels[few], np.unique(data.labels[chosen]), teacher, rng)
    sigmas = [s for s in _SIGMAS if teacher.sigma_min < s <= teacher.sigma_max]
    sigmas = sigmas or [(teacher.sigma_min * teacher.sigma_max) ** 0.5]
    parts = images.split(batch_size)
    latents = torch.cat([teacher.encode(part.to(teacher.device)) for part in parts])
    errors = denoising_errors(teacher, latents, labels, sigmas, seed=seed, batch_size=batch_size)
    weighted = (errors / torch.tensor(sigmas).double().square()[:, None, None]).sum(0)
    # Where the label changes nothing all errors are equal, and none of them is the least.
    right = int((weighted[:, :1] < weighted[:, 1:]).all(1).sum())
    margin = 1 - weighted[:, 0] / weighted[:, 1:].mean(1).clamp_min(1e-30)
    return Recognition(
        images=len(few),
        labels=labels.shape[1],
        right=right,
        accuracy=right / len(few),
        interval=binomial_interval(right, len(few)),
        chance=max(1 / labels.shape[1], float(own.bincount().max()) / len(few)),
        margin=float(margin.mean()),
        margin_interval=bootstrap_interval(margin),
        sigmas=tuple(sigmas),
        denoiser_evaluations=errors.numel(),
    )


def evenly(
    labels: NDArray[np.int64], chosen: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return at most `count` of the chosen images at random, evenly from their classes."""
    shuffled = rng.permutation(chosen)
    rank = rank_within_class(labels[shuffled])
    return shuffled[np.argsort(rank, kind="stable")[:count]]


def own_and_rivals(
    labels: Int64[Tensor, " batch"],
    num_classes: int,
    most: int,
    rngs: Iterable[np.random.Generator],
) -> Int64[Tensor, "batch labels"]:
    """Return each label and then all others or, of more than `most` in all, some by its rng."""
    classes, rows = np.arange(num_classes), []
    for label, rng in zip(labels.tolist(), rngs, strict=True):
        others = classes[classes != label]
        if num_classes > most:
            others = rng.choice(others, most - 1, replace=False)
        rows.append([label, *others])
    return torch.from_numpy(np.array(rows, np.int64))


def _with_others(
    own: NDArray[np.int64], present: NDArray[np.int64], teacher: Teacher, rng: np.random.Generator
) -> Int64[Tensor, "batch labels"]:
    """Return the labels to try, each image's own first."""
    absent = np.setdiff1d(np.arange(teacher.num_classes), present)
    rows = []
    for label in own:
        others = [*rng.permutation(present[present != label]), *rng.permutation(absent)]
        rows.append([label, *others[: _LABELS - 1]])
    return torch.from_numpy(np.array(rows, np.int64))
