"""Matching a diffusion model's features of the training images themselves.

In the manner of RepFusion: "Diffusion Model as Representation Learner", Yang & Wang 2023, arXiv
2308.10916, which distils features at one noise level. Theirs is chosen image by image; ours is
one option for all.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from clarep.data.held_out import Indices
from clarep.data.labelled import class_balanced_choice, to_unit_range
from clarep.distill.losses.alignment import instance_alignment
from clarep.distill.losses.cka import linear_cka
from clarep.distill.methods.base import Batch, Ingredients, Method
from clarep.distill.methods.cached import computed_once
from clarep.distill.train_data import seed_of
from clarep.engine.progress import progress
from clarep.errors import UserError
from clarep.students.student import Student
from clarep.teachers.teacher import Teacher

CACHE_NAME = "teacher_features.safetensors"
_CHUNK = 50
_FEWEST = 4  # of which the unbiased CKA can be taken


class DiffusionFeatures(Method):
    """CE + weight * (1 - CKA, or a cosine distance behind a linear map) to the teacher's features.

    The teacher sees each image once, noised, without its class; what it says of it is kept.
    """

    @classmethod
    def prepare(cls, ingredients: Ingredients) -> Ingredients:
        config, teacher = ingredients.config, ingredients.teacher
        assert teacher is not None  # checked by the run
        rivals = config.rivals
        tap = teacher.default_tap if rivals.diffusion_tap == "mid" else rivals.diffusion_tap
        described = {
            "teacher": teacher.fingerprint,
            "data_sha256": ingredients.images.data.sha256(ingredients.images.index),
            "tap": tap,
            "t": rivals.diffusion_t,
            "share": rivals.diffusion_share,
            "pooled": config.teacher_features,
            "validation_share": config.validation_share,
            "seed": config.seed,
        }

        def compute() -> dict[str, Tensor]:
            labels = ingredients.images.labels.numpy()
            seed = seed_of("features", config.seed)
            rows = class_balanced_choice(labels, rivals.diffusion_share, seed % 2**32)
            sigma = teacher.sigma_from_t(rivals.diffusion_t)
            features = _features(ingredients, teacher, rows, tap, sigma)
            return {"rows": torch.from_numpy(rows), "features": features}

        made = computed_once(ingredients.folder / CACHE_NAME, described, compute)
        return replace(ingredients, features=made["features"], feature_rows=made["rows"])

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        features, rows = ingredients.features, ingredients.feature_rows
        assert features is not None and rows is not None  # by `prepare`
        self._features = features.to(ingredients.device)
        place = torch.full((len(ingredients.images),), -1)
        place[rows] = torch.arange(len(rows))
        self._place = place.to(ingredients.device)
        self.projector: nn.Linear | None = None
        if self.config.rivals.diffusion_form == "cosine":
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed_of("projector", self.config.seed))
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
            "match": self.config.rivals.diffusion_weight * match,
        }


@torch.no_grad()
def _features(
    ingredients: Ingredients, teacher: Teacher, rows: Indices, tap: str, sigma: float
) -> Tensor:
    """Return the teacher's features (N, D) of noised images, no class told."""
    if not teacher.has_null:
        raise UserError(
            "diffusion-features shows the teacher images without their class, and this teacher has "
            "no null class: give `teacher` one that has"
        )
    teacher.check_tap(tap)
    teacher.check_sigma(sigma)
    generator = torch.Generator().manual_seed(seed_of("features", ingredients.config.seed, 1))
    parts = []
    chunks = np.array_split(rows, -(-len(rows) // _CHUNK))
    with progress("teacher features", "images", len(rows)) as advance:
        for chunk in chunks:
            images = to_unit_range(ingredients.images.images(chunk)).to(teacher.device)
            x0 = teacher.encode(images)
            x = x0 + sigma * torch.randn(x0.shape, generator=generator).to(x0)
            null = torch.full((len(x),), teacher.null_label, device=teacher.device)
            features = teacher.features(
                x, x.new_full((len(x),), sigma), teacher.condition(null), tap
            )
            if ingredients.config.teacher_features == "pooled" and features.ndim > 2:
                features = features.flatten(2).mean(2)
            parts.append(features.flatten(1).cpu())
            advance(len(chunk))
    return torch.cat(parts)
