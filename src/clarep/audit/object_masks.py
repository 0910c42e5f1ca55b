"""Where the object is in an image, learnt from the teacher alone: no mask is read.

On an image that goes against its class's cue, the pixels of the object speak for its own class c,
and those of the cue for the rival c2 that explains the image best. So the difference of denoising
errors m(p) = |D(x + sigma n | c2) - x|^2(p) - |D(x + sigma n | c) - x|^2(p) is above 0 on the
object; but it is noisy. A small network that is trained on the sign of m, weighted by its size,
averages the noise away, and then knows objects on images that nobody doubts too.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from clarep.audit.segmenter import FOLDS, SIDE, train_segmenter
from clarep.data.held_out import Indices
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.engine.arrays import check_finite
from clarep.engine.statistics import bootstrap_interval
from clarep.errors import UserError
from clarep.teachers.teacher import Teacher

_FEWEST = 2 * FOLDS  # images to learn from
_PART = 200  # images in memory


class NothingLearnt(UserError):
    """The evidence of some images does not say where the object is in others."""


@dataclass(frozen=True)
class ObjectMasks:
    """Masks of objects, and how sure one may be of them."""

    masks: Bool[Tensor, "n h w"] = field(repr=False)
    """Where the object is, at the images' size."""
    images: int
    """How many they were learnt from."""
    held_out_loss: float
    """Of those images, each under the network that was not trained on it."""
    constant_loss: float
    """Of the best answer that is the same everywhere."""
    gain_interval: tuple[float, float]
    """95 % interval of how much less the former is (bootstrap over images); above 0."""

    def as_dict(self) -> dict[str, Any]:
        """Return all but the masks, as JSON values."""
        figures = asdict(self)
        del figures["masks"]
        return figures


@torch.no_grad()
def evidence_maps(
    teacher: Teacher,
    latents: Float[Tensor, "batch c h w"],
    own: Int64[Tensor, " batch"],
    rivals: Int64[Tensor, " batch"],
    *,
    sigma: float,
    noise: Callable[[int], Tensor],
    draws: int,
    batch_size: int = 200,
) -> Float[Tensor, "batch h w"]:
    """Return the squared error under the rival less that under the own class, at each place.

    Summed over channels of the latent, mean over draws of noise, which both classes share. Costs
    2 * draws denoiser evaluations an image.

    Args:
        teacher: with or without a null class.
        latents: clean, from `teacher.encode`.
        own, rivals: the two classes of each.
        sigma: a noise level of the teacher.
        noise: from a draw's number to standard normal noise of the latents' shape.
        draws: of noise.
        batch_size: images that go through the teacher at once.

    Raises:
        UserError: if an error is not finite.
    """
    total = torch.zeros(len(latents), *latents.shape[2:], dtype=torch.float64)
    for draw in range(draws):
        eps = noise(draw)
        for some in torch.arange(len(latents)).split(batch_size):
            clean = latents[some].to(teacher.device)
            noisy = clean + sigma * eps[some].to(clean)
            level = clean.new_full((len(clean),), sigma)
            for sign, labels in ((1, rivals), (-1, own)):
                condition = teacher.condition(labels[some].to(teacher.device))
                error = (teacher.denoise(noisy, level, condition) - clean).double().square()
                total[some] += sign * error.sum(1).cpu() / draws
    what = f"the denoiser's estimates at sigma {sigma:g}"
    check_finite(total, what, "check the weights, or leave out bf16")
    return total.float()


def learn_masks(
    data: LabelledImages,
    index: Indices,
    doubted: Bool[Tensor, " n"],
    evidence: Float[Tensor, "m h w"],
    *,
    area: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> ObjectMasks:
    """Learn from the evidence of some images where the object is, and say it of all.

    Args:
        data: the set.
        index: which of its images get a mask.
        doubted: those of them to learn from, `Audit.doubted()`.
        evidence: theirs, of `evidence_maps`; latents' lie at the same places of the images.
        area: share of every image that its mask takes; 0 for wherever an object is more likely
            than none.
        seed: of the networks, their batches and augmentation.
        device: that they are trained on.

    Raises:
        NothingLearnt: for fewer than eight doubted images, and if the networks do not foretell
            the evidence that was held out better than a constant does.
    """
    rows = np.flatnonzero(doubted.numpy())
    if len(rows) < _FEWEST:
        raise NothingLearnt(
            f"object masks are learnt from doubted images, of which there are {len(rows)} here "
            f"and {_FEWEST} are needed: audit more images or raise `doubted_share`; for none give "
            "`mask_draws=0`"
        )
    images = torch.cat([_shrunk(data, part) for part in _parts(index[rows])])
    maps = _resized(evidence[:, None], tuple(images.shape[2:]))[:, 0]
    segmenter = train_segmenter(images, maps, seed, torch.device(device))
    loss, constant = float(segmenter.losses.mean()), float(segmenter.constant.mean())
    low, high = bootstrap_interval(segmenter.constant - segmenter.losses)
    if low <= 0:
        raise NothingLearnt(
            f"the evidence of some of the {len(rows)} doubted images does not say where the object "
            f"is in others (loss {loss:.4f}, of a constant answer {constant:.4f}, difference "
            f"[{low:.4f}, {high:.4f}]): raise `mask_draws` or audit more images; for none "
            "give `mask_draws=0`"
        )
    masks = []
    shape = tuple(data.images(index[:1]).shape[2:])
    for part in _parts(index):
        logits = segmenter.logits(_shrunk(data, part))
        masks.append(largest(_resized(logits[:, None], shape)[:, 0], area))
    return ObjectMasks(torch.cat(masks), len(rows), loss, constant, (low, high))


def largest(logits: Float[Tensor, "n h w"], area: float) -> Bool[Tensor, "n h w"]:
    """Return each image's pixels of the largest logits, a share `area` of them; above 0 for 0."""
    if area == 0:
        return logits > 0
    flat = logits.flatten(1)
    top = flat.topk(max(1, round(area * flat.shape[1])), dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, top, True).view_as(logits)


def _parts(index: Indices) -> list[Indices]:
    return np.array_split(index, math.ceil(len(index) / _PART))


def _shrunk(data: LabelledImages, index: Indices) -> Float[Tensor, "batch c h w"]:
    """Return images in [-1, 1], of a size that the segmenter is meant for."""
    images = to_unit_range(data.images(index))
    height, width = images.shape[2:]
    ratio = min(1.0, SIDE / max(height, width))
    return _resized(images, (max(1, round(height * ratio)), max(1, round(width * ratio))))


def _resized(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return images of another size: means of areas where it is smaller, lines where larger."""
    if shape[0] < images.shape[2]:
        return F.interpolate(images, shape, mode="area")
    return F.interpolate(images, shape, mode="bilinear", align_corners=False)
