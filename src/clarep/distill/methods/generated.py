"""Training on a diffusion model's samples beside the images.

"Synthetic Data from Diffusion Models Improves ImageNet Classification", Azizi et al. 2023, arXiv
2304.08466.
"""

from dataclasses import replace

import torch
from torch import Tensor

from clarep.data.labelled import to_uint8
from clarep.distill.methods.base import Ingredients
from clarep.distill.methods.cached import computed_once
from clarep.distill.methods.vanilla import Vanilla
from clarep.distill.train_data import seed_of
from clarep.engine.progress import progress
from clarep.sampling.walks import decode
from clarep.teachers.teacher import Teacher

CACHE_NAME = "generated.safetensors"
_CHUNK = 50


class Generated(Vanilla):
    """Cross-entropy on training images and the teacher's samples, the same number of each class.

    The samples are made once, from pure noise, and kept. An epoch grows by them.
    """

    @classmethod
    def prepare(cls, ingredients: Ingredients) -> Ingredients:
        config, teacher = ingredients.config, ingredients.teacher
        assert teacher is not None  # checked by the run
        rivals = config.rivals
        per_class = round(rivals.generated_share * len(ingredients.images) / teacher.num_classes)
        labels = torch.arange(teacher.num_classes).repeat(max(1, per_class))
        described = {
            "teacher": teacher.fingerprint,
            "images": len(labels),
            "guidance": rivals.generated_guidance,
            "steps": rivals.generated_steps,
            "seed": config.seed,
        }

        def compute() -> dict[str, Tensor]:
            seed = seed_of("generated", config.seed)
            samples = _samples(
                teacher, labels, rivals.generated_guidance, rivals.generated_steps, seed
            )
            return {"images": samples, "labels": labels}

        made = computed_once(ingredients.folder / CACHE_NAME, described, compute)
        images = ingredients.images.with_added(made["images"], made["labels"])
        return replace(ingredients, images=images)


@torch.no_grad()
def _samples(teacher: Teacher, labels: Tensor, guidance: float, steps: int, seed: int) -> Tensor:
    """Return one sample of each label, uint8 (N, C, H, W), by Heun's method from pure noise."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    with progress("generating", "images", len(labels)) as advance:
        for some in labels.split(_CHUNK):
            noise = torch.randn(len(some), *teacher.latent_shape, generator=generator)
            latents = decode(
                teacher.denoiser(some.to(teacher.device), guidance),
                teacher.sigma_max * noise.to(teacher.device),
                teacher.sigma_max,
                teacher.sigma_min,
                steps,
                solver="heun",
            )
            parts.append(to_uint8(teacher.decode(latents).cpu()))
            advance(len(some))
    return torch.cat(parts)
