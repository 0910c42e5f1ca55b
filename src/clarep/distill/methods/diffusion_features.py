"""Matching a diffusion model's features of the training images themselves.

In the manner of RepFusion: "Diffusion Model as Representation Learner", Yang & Wang 2023, arXiv
2308.10916, which distils features at one noise level. Theirs is chosen image by image; ours is
one option for all.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clarep.data.class_balance import class_balanced_choice
from clarep.data.labelled import to_unit_range
from clarep.distill.losses.cka import linear_cka
from clarep.distill.losses.contrast import instance_alignment
from clarep.distill.methods.base import Batch, Ingredients, Method
from clarep.distill.trainer.train_images import seed_of
from clarep.engine.bounds import Within
from clarep.engine.progress import progress
from clarep.engine.tensors import computed_once
from clarep.errors import UserError
from clarep.students.student import Student

_CHUNK = 50
_FEWEST = 4  # of which the unbiased CKA can be taken


@dataclass(frozen=True)
class DiffusionFeaturesConfig:
    """Options of diffusion-features."""

    diffusion_t: float = 0.3
    """diffusion-features: noise level of the images whose features are matched, as a share of the
    teacher's time axis."""
    diffusion_form: Literal["cka", "cosine"] = "cka"
    """diffusion-features: 1 - CKA over the batch, or cosine distance behind a linear map."""
    diffusion_weight: Annotated[float, Within(0)] = 1.0
    """diffusion-features: weight of the matching term."""
    diffusion_share: Annotated[float, Within(0, 1, "(]")] = 1.0
    """diffusion-features: share of every class whose features are computed, once, one pass of the
    teacher up to the tap an image."""
    diffusion_tap: str = "mid"
    """diffusion-features: layer of the teacher; mid is the family's default."""


class DiffusionFeatures(Method):
    """CE + weight * (1 - CKA, or a cosine distance behind a linear map) to the teacher's features.

    The teacher sees each image once, noised, without its class; what it says of it is kept.
    """

    name, Config, needs_teacher = "diffusion-features", DiffusionFeaturesConfig, True
    options: DiffusionFeaturesConfig

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        options, config, teacher = self.options, self.config, ingredients.teacher
        assert teacher is not None  # checked by the run
        self.teacher, tap = teacher, options.diffusion_tap
        self.tap = teacher.default_tap if tap == "mid" else tap
        described = {
            "teacher": teacher.fingerprint,
            "data_sha256": self.images.data.sha256(self.images.index),
            "tap": self.tap,
            "t": options.diffusion_t,
            "share": options.diffusion_share,
            "pooled": config.teacher_features,
            "validation_share": config.validation_share,
            "seed": config.seed,
        }
        path = ingredients.folder / "teacher_features.safetensors"
        made = computed_once(path, described, self._compute)
        features, rows = made["features"], made["rows"]
        place = torch.full((len(self.images),), -1)
        place[rows] = torch.arange(len(rows))
        self._features, self._place = features.to(ingredients.device), place.to(ingredients.device)
        self.projector: nn.Linear | None = None
        if options.diffusion_form == "cosine":
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed_of("projector", config.seed))
                self.projector = nn.Linear(student.feature_dim, features.shape[1])

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        features, logits = self.both(batch.images)
        place = self._place[batch.positions]
        seen = place >= 0
        ours, theirs = features[seen], self._features[place[seen]]
        if self.projector is not None:
            match = instance_alignment(self.projector(ours), theirs)
        elif len(ours) < _FEWEST:
            match = 0 * ours.sum()
        else:
            match = 1 - linear_cka(ours, theirs, self.config.unbiased_cka)
        return {
            "ce": self.cross_entropy(logits, batch.labels),
            "match": self.options.diffusion_weight * match,
        }

    @torch.no_grad()
    def _compute(self) -> dict[str, Tensor]:
        """Return the teacher's features (N, D) of noised images, no class told, and which."""
        teacher, config, images = self.teacher, self.config, self.images
        if not teacher.has_null:
            raise UserError(
                "diffusion-features shows the teacher images without their class, and this teacher "
                "has no null class: give `teacher` one that has"
            )
        sigma = teacher.sigma_from_t(self.options.diffusion_t)
        teacher.check_tap(self.tap)
        teacher.check_sigma(sigma)
        seed, share = seed_of("features", config.seed) % 2**32, self.options.diffusion_share
        rows = class_balanced_choice(images.labels.numpy(), share, seed)
        generator = torch.Generator().manual_seed(seed_of("features", config.seed, 1))
        parts = []
        with progress("teacher features", "images", len(rows)) as advance:
            for chunk in np.array_split(rows, -(-len(rows) // _CHUNK)):
                x0 = teacher.encode(to_unit_range(images.images(chunk)).to(teacher.device))
                x = x0 + sigma * torch.randn(x0.shape, generator=generator).to(x0)
                null = torch.full((len(x),), teacher.null_label, device=teacher.device)
                sigmas = x.new_full((len(x),), sigma)
                features = teacher.features(x, sigmas, teacher.condition(null), self.tap)
                if config.teacher_features == "pooled" and features.ndim > 2:
                    features = features.flatten(2).mean(2)
                parts.append(features.flatten(1).cpu())
                advance(len(chunk))
        return {"rows": torch.from_numpy(rows), "features": torch.cat(parts)}


METHODS = (DiffusionFeatures,)
