"""Training on a diffusion model's samples beside the images.

"Synthetic Data from Diffusion Models Improves ImageNet Classification", Azizi et al. 2023, arXiv
2304.08466.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from clarep.data.labelled import to_uint8
from clarep.distill.methods.base import Ingredients
from clarep.distill.methods.vanilla import Vanilla
from clarep.distill.trainer.train_images import seed_of
from clarep.engine.bounds import Within
from clarep.engine.progress import progress
from clarep.engine.tensors import computed_once
from clarep.sampling.ode import decode
from clarep.students.student import Student
from clarep.teachers.teacher import Teacher

_CHUNK = 50


@dataclass(frozen=True)
class GeneratedConfig:
    """Options of generated."""

    generated_share: Annotated[float, Within(0, 1, "(]")] = 0.1
    """generated: samples of the teacher that are added, as a share of the training images."""
    generated_guidance: Annotated[float, Within(0)] = 3.0
    """generated: classifier-free guidance; 1 is none."""
    generated_steps: Annotated[int, Within(1)] = 18
    """generated: Heun steps of each sample."""


class Generated(Vanilla):
    """Cross-entropy on training images and the teacher's samples, the same number of each class.

    The samples are made once, from pure noise, and kept. An epoch grows by them.
    """

    name, Config, needs_teacher = "generated", GeneratedConfig, True
    options: GeneratedConfig

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        options, seed, teacher = self.options, self.config.seed, ingredients.teacher
        assert teacher is not None  # checked by the run
        per_class = round(options.generated_share * len(self.images) / teacher.num_classes)
        labels = torch.arange(teacher.num_classes).repeat(max(1, per_class))
        described = {
            "teacher": teacher.fingerprint,
            "images": len(labels),
            "guidance": options.generated_guidance,
            "steps": options.generated_steps,
            "seed": seed,
        }
        made = computed_once(
            ingredients.folder / "generated.safetensors",
            described,
            lambda: {"images": _samples(teacher, labels, options, seed), "labels": labels},
        )
        self.images = self.images.with_added(made["images"], made["labels"])


@torch.no_grad()
def _samples(teacher: Teacher, labels: Tensor, options: GeneratedConfig, seed: int) -> Tensor:
    """Return one sample of each label, uint8 (N, C, H, W), by Heun's method from pure noise."""
    generator = torch.Generator().manual_seed(seed_of("generated", seed))
    parts = []
    with progress("generating", "images", len(labels)) as advance:
        for some in labels.split(_CHUNK):
            noise = torch.randn(len(some), *teacher.latent_shape, generator=generator)
            latents = decode(
                teacher.denoiser(some.to(teacher.device), options.generated_guidance),
                teacher.sigma_max * noise.to(teacher.device),
                teacher.sigma_max,
                teacher.sigma_min,
                options.generated_steps,
                solver="heun",
            )
            parts.append(to_uint8(teacher.decode(latents).cpu()))
            advance(len(some))
    return torch.cat(parts)


METHODS = (Generated,)
