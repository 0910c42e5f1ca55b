"""What an audit asks a teacher, checked against teacher and data before anything is computed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.audit.audit import Audit, num_doubted
from clarep.audit.audit_config import AuditConfig, setting_of
from clarep.audit.audit_parts import Rows, Stage
from clarep.audit.object_masks import ObjectMasks, evidence_maps, learn_masks
from clarep.audit.targets import check_targets, every_class, evidence_targets
from clarep.clarid.diffusion_classifier import drawn_errors, own_and_rivals
from clarep.clarid.noise_draws import ERRORS, MASKS, noise_of
from clarep.data.class_balance import class_balanced_choice
from clarep.data.fits import check_data
from clarep.data.labelled import LabelledImages, in_memory, to_unit_range
from clarep.engine.bounds import check_bounds
from clarep.engine.printable import counted
from clarep.errors import UserError, check_type
from clarep.select.class_match import of_the_datas_classes
from clarep.teachers.teacher import Teacher

_RIVALS = 3  # beside seed and image: the key of the choice of rivals, apart from any noise's


def _check_asked(teacher: Teacher, config: AuditConfig) -> None:
    """Raise UserError for what no teacher, or not this one, can be asked."""
    if not config.sigmas:
        raise UserError("`sigmas` names no noise level: give at least one, such as 0.25")
    if len(set(config.sigmas)) < len(config.sigmas):
        raise UserError(f"`sigmas` {list(config.sigmas)} names a noise level twice: give each once")
    for sigma in config.sigmas:
        teacher.check_sigma(sigma)
    for option in ("rivals", "target_rivals"):
        if (getattr(config, option) or 0) >= teacher.num_classes:
            raise UserError(
                f"`{option}={getattr(config, option)}` is more than the "
                f"{teacher.num_classes - 1} classes beside an image's own: leave it out for "
                "all of them, or give fewer"
            )
    if config.rivals == 0:
        teacher.check_null()
        if config.mask_draws:
            raise UserError(
                "object masks are learnt from what speaks for another class, and `rivals=0` "
                "tries none: give `mask_draws=0` with it, or `rivals=3`"
            )


@dataclass(frozen=True)
class Questions:
    """A teacher, the images that it is asked about, and what."""

    teacher: Teacher
    data: LabelledImages
    index: Rows
    """Which of the data are asked about."""
    config: AuditConfig

    @classmethod
    def of(
        cls, teacher: Teacher, data: LabelledImages, config: AuditConfig, chosen: object
    ) -> "Questions":
        """Return them, the images read; raises UserError for what does not fit each other.

        chosen: indices of the images; all with None.
        """
        check_type("teacher", teacher, Teacher, "what load_teacher('backdrops') gives, say")
        check_data(data)
        check_type("config", config, AuditConfig, "an AuditConfig")
        check_bounds(config)
        teacher, _ = of_the_datas_classes(teacher, data)
        if teacher.num_classes < 2:
            raise UserError(
                "the teacher knows one class, beside which no other can explain an image: give a "
                "teacher of two classes or more"
            )
        if teacher.num_classes != len(data.class_names):
            raise UserError(
                f"the teacher knows {counted(teacher.num_classes, 'class')} and {data.name} has "
                f"{len(data.class_names)}: give a teacher of the data's classes, or one that "
                "knows them by name (`class_names`)"
            )
        _check_asked(teacher, config)
        given = data.each_once(chosen)
        held, index, _ = in_memory(data, skip_bad=False, chosen=given)
        teacher.accept_images(to_unit_range(held.images(index[:1])))
        teacher.check_labels(torch.from_numpy(held.labels[index]))
        asked = cls(teacher, held, index, config)
        if config.target_share:
            count = asked.targets_each
            check_targets(teacher, len(asked.target_rows), count, config.target_sigma)
        return asked

    def described(self) -> dict[str, Any]:
        """Return what all answers follow from, as JSON values."""
        return {
            "audit": setting_of(self.config),
            "images": len(self.index),
            "data": self.data.name,
            "data_sha256": self.data.sha256(self.index),
            "class_names": list(self.data.class_names),
            "teacher_sha256": self.teacher.fingerprint,
        }

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """Classes of the images."""
        return torch.from_numpy(self.data.labels[self.index])

    @property
    def num_tried(self) -> int:
        """Classes that each image is denoised under."""
        rivals = self.config.rivals
        return self.teacher.num_classes if rivals is None else 1 + max(rivals, 1)

    def stages(self) -> tuple[Stage, Stage, Stage]:
        """Return what errors, maps of the doubted, and targets take."""
        return self.error_stage(), self.map_stage(), self.target_stage()

    def error_stage(self) -> Stage:
        """Return what denoising errors take."""
        levels, draws = len(self.config.sigmas), self.config.draws
        return Stage("errors", len(self.index), self.num_tried * levels * draws)

    def errors(self, rows: Rows) -> dict[str, Tensor]:
        """Return denoising errors of some images, batch first, beside what they are of."""
        config, index = self.config, self.index[rows]
        latents, tried = self.latents(rows), self._tried(rows, config.rivals)

        def noise(level: int, draw: int) -> Tensor:
            shape, seed = self.teacher.latent_shape, config.seed
            return noise_of(index, shape, seed=seed, purpose=ERRORS, level=level, draw=draw)

        errors = drawn_errors(
            self.teacher,
            latents,
            tried,
            config.sigmas,
            noise,
            draws=config.draws,
            batch_size=config.batch_size,
        )
        return {
            "index": torch.from_numpy(index),
            "labels": tried[:, 0].clone(),
            "tried": tried,
            "errors": errors.float().movedim(2, 0),
        }

    def map_stage(self) -> Stage:
        """Return what the evidence in the doubted images takes, of which masks are learnt."""
        share, draws = self.config.doubted_share, self.config.mask_draws
        counts = [num_doubted(int(count), share) for count in self.labels.bincount() if count]
        return Stage("maps", sum(counts) if draws else 0, 2 * draws)

    def maps(self, rows: Rows, said: Audit) -> dict[str, Tensor]:
        """Return where some images speak for their class; said: their errors and all others'."""
        config, index = self.config, self.index[rows]

        def noise(draw: int) -> Tensor:
            shape = self.teacher.latent_shape
            return noise_of(index, shape, seed=config.seed, purpose=MASKS, draw=draw)

        evidence = evidence_maps(
            self.teacher,
            self.latents(rows),
            said.labels[rows],
            said.rivals[rows],
            sigma=config.sigmas[0],
            noise=noise,
            draws=config.mask_draws,
            batch_size=config.batch_size,
        )
        return {"evidence": evidence}

    def masks(self, said: Audit, evidence: Tensor) -> ObjectMasks:
        """Return where the object is in every image, learnt from the evidence in the doubted."""
        config = self.config
        return learn_masks(
            self.data,
            self.index,
            said.doubted(),
            evidence,
            area=config.mask_area,
            seed=config.seed,
            device=self.teacher.device,
        )

    @property
    def target_rows(self) -> Rows:
        """Images that get class evidence targets, a share of each class, in their order."""
        if not self.config.target_share:
            return np.empty(0, np.int64)
        labels = self.data.labels[self.index]
        return class_balanced_choice(labels, self.config.target_share, self.config.seed)

    def target_stage(self) -> Stage:
        """Return what class evidence targets take."""
        passes = self.targets_each * self.config.target_draws
        return Stage("targets", len(self.target_rows), passes)

    @property
    def targets_each(self) -> int:
        """Classes that class evidence of an image is of, and none where the teacher has that."""
        rivals = self.config.target_rivals
        left_out = 0 if rivals is None else self.teacher.num_classes - 1 - rivals
        return len(every_class(self.teacher)) - left_out

    def targets(self, rows: Rows) -> dict[str, Tensor]:
        """Return class evidence of some images, beside which they are."""
        config, index, few = self.config, self.index[rows], {}
        if config.target_rivals is not None:
            none = every_class(self.teacher)[self.teacher.num_classes :].expand(len(rows), -1)
            few = {"tried": torch.cat([self._tried(rows, config.target_rivals), none], dim=1)}
        denoised = evidence_targets(
            self.teacher,
            self.images(rows),
            few.get("tried"),
            sigma=config.target_sigma,
            draws=config.target_draws,
            index=index,
            seed=config.seed,
            batch_size=config.batch_size,
        )
        return {"index": torch.from_numpy(index), "denoised": denoised, **few}

    def images(self, rows: Rows) -> Float[Tensor, "batch c h w"]:
        """Return some of the images as the teacher takes them."""
        return self.teacher.accept_images(to_unit_range(self.data.images(self.index[rows])))

    def latents(self, rows: Rows) -> Float[Tensor, "batch c h w"]:
        """Return the clean latents of some of the images."""
        parts, device = self.images(rows).split(self.config.batch_size), self.teacher.device
        with torch.no_grad():
            return torch.cat([self.teacher.encode(part.to(device)) for part in parts])

    def _tried(self, rows: Rows, rivals: int | None) -> Int64[Tensor, "batch k"]:
        """Return the classes to try with each image: its own, then others, by seed and image.

        rivals: how many others; all with None, and no class instead of any with 0.
        """
        index = self.index[rows]
        own = torch.from_numpy(self.data.labels[index])
        if rivals == 0:
            return torch.stack([own, torch.full_like(own, self.teacher.null_label)], dim=1)
        classes, seed = self.teacher.num_classes, self.config.seed
        rngs = [np.random.default_rng([seed, _RIVALS, int(i)]) for i in index]
        return own_and_rivals(own, classes, classes if rivals is None else 1 + rivals, rngs)
