"""Composed images: the object of one on the background of another, told apart by masks.

After "Noise or Signal: The Role of Image Backgrounds in Object Recognition", Xiao et al. 2020,
arXiv 2006.09994, whose students learn from objects on other images' backgrounds. There masks are
drawn by hand; here the teacher's audit says where the object is. With controls of that: one mask
for all images, and the true masks of data that know them, an oracle.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.nn import functional as F

from clarep.audit.audit_config import Part
from clarep.audit.object_masks import largest
from clarep.data.foregrounds import separate
from clarep.data.held_out import Indices
from clarep.distill.methods.base import Ingredients, Method
from clarep.distill.methods.vanilla import Vanilla
from clarep.engine.bounds import Within
from clarep.errors import UserError
from clarep.students.student import Student

_PART = 200  # images filled at once
_WINDOW = 9 / 32  # of the blur, as a share of the image's side
_ROUNDS = 4  # blurs more, for what is deep inside an object
_ENOUGH = 0.02  # share of background in a window that is enough to fill from


@dataclass(frozen=True)
class ComposeConfig:
    """Options of compose."""

    compose_share: Annotated[float, Within(0, 1)] = 0.5
    """compose: share of the images whose background is replaced by another training image's."""


class Composed(Method):
    """What any method becomes on images whose backgrounds are exchanged before they are viewed.

    x_i becomes M_i x_i + (1 - M_i) B_j with the label of i: M_i is the mask of its object, j any
    training image, and B_j that image with its object filled from around it.
    """

    Config = ComposeConfig
    audit_reads: ClassVar[tuple[Part, ...]] = ("masks",)
    options: ComposeConfig

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        positions, masks = self.known_masks(ingredients)
        whole = masks.flatten(1)
        usable = whole.any(1) & ~whole.all(1)
        if not bool(usable.any()):
            raise UserError(
                f"method {self.name} has a mask of an object in none of its training images: give "
                "an audit or data that have"
            )
        at = torch.from_numpy(positions)[usable]
        self._donors = at.numpy()
        self._masks = torch.ones(len(self.images), *masks.shape[1:], dtype=torch.bool)
        self._masks[at] = masks[usable]
        self._filled: Tensor | None = None
        if self.images.stored is not None:
            parts = torch.arange(len(self.images)).split(_PART)
            self._filled = torch.cat([self._backgrounds(part.numpy()) for part in parts])

    def known_masks(self, ingredients: Ingredients) -> tuple[Indices, Bool[Tensor, "n h w"]]:
        """Return which of the training images have a mask, and these; others stay as they are."""
        audit = ingredients.audit
        assert audit is not None  # checked by the run
        if audit.masks is None:
            why = audit.manifest.get("masks", {}).get("refused", "they were not asked for")
            raise UserError(
                f"{audit.folder} holds no object masks, which method {self.name} needs ({why}): "
                "give an audit that has"
            )
        _, positions, rows = np.intersect1d(
            self.images.index, audit.index.numpy(), return_indices=True
        )
        return positions, audit.masks[torch.from_numpy(rows)]

    def prepare(
        self, images: UInt8[Tensor, "batch c h w"], positions: Indices, generator: torch.Generator
    ) -> UInt8[Tensor, "batch c h w"]:
        count = len(images)
        replaced = torch.rand(count, generator=generator) < self.options.compose_share
        drawn = torch.randint(len(self._donors), (count,), generator=generator)
        backgrounds = self._backgrounds(self._donors[drawn.numpy()])
        kept = self._masks[torch.from_numpy(positions)] | ~replaced[:, None, None]
        return torch.where(kept[:, None], images, backgrounds)

    def _backgrounds(self, positions: Indices) -> UInt8[Tensor, "batch c h w"]:
        """Return training images with their objects filled."""
        at = torch.from_numpy(positions)
        if self._filled is not None:
            return self._filled[at]
        return filled(self.images.images(positions), self._masks[at])


class Compose(Composed, Vanilla):
    """Cross-entropy on images whose backgrounds are exchanged, by masks of a teacher's audit."""

    name, needs_audit = "compose", True


class ComposeCentre(Compose):
    """The control with one mask for all images: the places where most of the audit's masks are.

    Does the teacher say more of an image than that its object is somewhere in the middle? The area
    is the mean of the others'.
    """

    name = "compose-centre"

    def known_masks(self, ingredients: Ingredients) -> tuple[Indices, Bool[Tensor, "n h w"]]:
        positions, masks = super().known_masks(ingredients)
        mean = masks.float().sum(0) / max(1, len(masks))
        return positions, largest(mean[None], float(mean.mean())).expand_as(masks)


class ComposeTrue(Composed, Vanilla):
    """The oracle: the true masks, of data that know their foregrounds."""

    name = "compose-true"

    def known_masks(self, ingredients: Ingredients) -> tuple[Indices, Bool[Tensor, "n h w"]]:
        data, index = self.images.data, self.images.index
        known = separate(data)
        if known is None or known.masks is None:
            raise UserError(
                f"{data.name} does not know where its objects are, which the oracle {self.name} "
                "reads: give data that do, such as backdrops, or take method compose"
            )
        positions = np.flatnonzero(np.isin(index, known.usable))
        if not len(positions):
            raise UserError(
                f"{data.name} has a usable mask of none of the training images: give data that "
                "have, or take method compose"
            )
        return positions, known.masks(index[positions])


METHODS = (Compose, ComposeCentre, ComposeTrue)


def filled(
    images: UInt8[Tensor, "batch c h w"], masks: Bool[Tensor, "batch h w"]
) -> UInt8[Tensor, "batch c h w"]:
    """Return images whose masked pixels are the mean of those around that are not masked.

    Around is a square of 9/32 of the image's side. Where it holds next to none, the sums in it
    are blurred again, which reaches farther.
    """
    free = (~masks)[:, None].float()
    side = 2 * max(1, round(_WINDOW / 2 * max(images.shape[2:]))) + 1
    sums, share = _blurred(images.float() * free, side), _blurred(free, side)
    for _ in range(_ROUNDS):
        enough = share > _ENOUGH
        sums = torch.where(enough, sums, _blurred(sums, side))
        share = torch.where(enough, share, _blurred(share, side))
    means = (sums / share.clamp_min(1e-6)).round().clamp(0, 255).to(torch.uint8)
    return torch.where(masks[:, None], means, images)


def _blurred(values: Tensor, side: int) -> Tensor:
    """Return the mean of each square of that odd side; what is outside repeats the border."""
    reach = side // 2
    padded = F.pad(values, (reach,) * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, (side, 1), 1), (1, side), 1)
