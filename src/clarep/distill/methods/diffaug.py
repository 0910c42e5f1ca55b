"""Images that a teacher denoised in one step, as augmentation.

"DiffAug: A Diffuse-and-Denoise Augmentation for Training Robust Classifiers", Sastry, Dumpala &
Oore 2024, arXiv 2306.09192.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.distill.methods.base import Batch, Ingredients
from clarep.distill.methods.vanilla import Vanilla
from clarep.engine.bounds import Within
from clarep.errors import UserError
from clarep.students.student import Student
from clarep.teachers.teacher import Teacher

_LEVELS = 1000  # noise levels evenly over the teacher's time axis


@dataclass(frozen=True)
class DiffAugConfig:
    """Options of diffaug."""

    diffaug_share: Annotated[float, Within(0, 1, "(]")] = 1 / 3
    """diffaug: share of each batch that is noised and denoised; an image is one pass of the
    teacher."""


class DiffAug(Vanilla):
    """Cross-entropy on the batch, a share of it noised at random levels and denoised once each.

    The teacher is not told the class. Levels are uniform on its time axis.
    """

    name, Config, needs_teacher = "diffaug", DiffAugConfig, True
    options: DiffAugConfig

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        teacher = ingredients.teacher
        assert teacher is not None  # checked by the run
        if not teacher.has_null:
            raise UserError(
                "diffaug shows the teacher images without their class, and this teacher has no "
                "null class: give `teacher` one that has"
            )
        self._sigmas = _levels(teacher)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        count = max(1, round(self.options.diffaug_share * len(batch.images)))
        denoised = self.denoised(batch.images[:count], batch.generator)
        images = torch.cat([denoised, batch.images[count:]])
        return super().terms(replace(batch, images=images))

    @torch.no_grad()
    def denoised(
        self, images: Float[Tensor, "batch c h w"], generator: torch.Generator
    ) -> Float[Tensor, "batch c h w"]:
        """Return the teacher's one-step estimates of noised images, in [0, 1] as they are."""
        teacher, count = self.ingredients.teacher, len(images)
        assert teacher is not None
        x0 = teacher.encode((2 * images - 1).to(teacher.device, teacher.dtype))
        drawn = torch.randint(len(self._sigmas), (count,), generator=generator)
        sigma = self._sigmas[drawn].to(x0)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        null = torch.full((count,), teacher.null_label, device=teacher.device)
        x = x0 + sigma[:, None, None, None] * noise
        found = teacher.decode(teacher.denoise(x, sigma, teacher.condition(null)))
        return ((found.to(images) + 1) / 2).clamp(0, 1)


def _levels(teacher: Teacher) -> Float[Tensor, " levels"]:
    """Return the noise levels at even steps of a teacher's time axis, as far as it knows them."""
    found = []
    for step in range(1, _LEVELS):
        with suppress(UserError):  # outside of what it was trained on
            found.append(teacher.sigma_from_t(step / _LEVELS))
    return torch.tensor(found)


METHODS = (DiffAug,)
