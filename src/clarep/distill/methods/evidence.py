"""Input gradients aligned with the teacher's evidence for a class, which an audit holds.

Perceptually aligned gradients, "Do Perceptually Aligned Gradients Imply Robustness?", Ganz, Kawar &
Elad 2023, arXiv 2207.11378, which take one class against none. Here it is the class against a
rival: the gradient of z_y - z_c, along which an attack goes, follows the difference of what the
teacher denoises the image to under the two. With the twin that has no teacher, and controls of what
the teacher must say.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.audit.audit_config import Part
from clarep.distill.losses import instance_alignment
from clarep.distill.losses.input_gradient import input_gradient
from clarep.distill.methods.base import Batch, Ingredients, Method
from clarep.distill.methods.cadistill import ramp
from clarep.distill.trainer.train_images import seed_of
from clarep.distill.trainer.views import draw_lines, take_lines, to_student_range
from clarep.engine.bounds import Within
from clarep.errors import UserError
from clarep.students.student import Student

_OWN = 1 / 3  # of the images show the gradient of their own class against none


@dataclass(frozen=True)
class EvidenceConfig:
    """Options of evidence."""

    evidence_weight: Annotated[float, Within(0)] = 2.0
    """evidence: weight of 1 - cos between the gradient in the image and the teacher's evidence."""
    evidence_norm: Annotated[float, Within(0)] = 0.02
    """evidence: weight of that gradient's L1 norm, in units of images in [0, 1]."""
    evidence_contrast: Literal["rival", "null"] = "rival"
    """evidence: gradients of the class's logit less another's, or of one logit alone beside the
    teacher's evidence for it against no class."""
    evidence_batch_share: Annotated[float, Within(0, 1, "()")] = 1 / 3
    """evidence: share of each batch that is drawn from the images with evidence in its place."""
    evidence_warmup: Annotated[float, Within(0, 1)] = 0.15
    """evidence: share of the epochs over which both weights rise from 0."""


class Evidence(Method):
    """CE + weight * (1 - cos) + norm * mean of (1 - p_y) |g|_1, of input gradients g.

    A share of each batch is replaced by images of which the audit holds evidence, drawn with
    replacement, cropped and mirrored together with it.
    """

    name, Config, needs_audit = "evidence", EvidenceConfig, True
    audit_reads: ClassVar[tuple[Part, ...]] = ("targets",)
    options: EvidenceConfig
    said_of: ClassVar[Literal["image", "another", "class"]] = "image"
    """Whose evidence an image meets: its own, that of another of its class, its class's mean."""

    def __init__(self, student: Student, ingredients: Ingredients) -> None:
        super().__init__(student, ingredients)
        audit, device, images = ingredients.audit, ingredients.device, self.images
        assert audit is not None  # checked by the run
        if audit.targets is None:
            raise UserError(f"{audit.folder} holds no class evidence: audit with `target_share`")
        targets, index = audit.targets, audit.targets.index.numpy()
        _, positions, rows = np.intersect1d(images.index, index, return_indices=True)
        if not len(positions):
            raise UserError(
                f"{audit.folder} holds class evidence of none of the training images: raise "
                "`target_share` there, or lower `validation_share`"
            )
        classes = len(images.data.class_names)
        denoised, tried = targets.denoised[torch.from_numpy(rows)], targets.tried
        if tried is None:
            self._tried = torch.arange(denoised.shape[1]).expand(len(rows), -1)
        elif self.said_of == "class":
            raise UserError(
                f"{self.name} takes the mean of a class's evidence, and this audit's is of other "
                "classes for each image: audit without `target_rivals`"
            )
        else:
            self._tried = tried[torch.from_numpy(rows)]
        self._rivals = int((self._tried[0] < classes).sum()) - 1
        if self.options.evidence_contrast == "null" and self._tried.shape[1] == 1 + self._rivals:
            raise UserError(
                "`evidence_contrast=null` needs a teacher that knows no class, and this audit's "
                "does not: give rival"
            )
        self._labels = images.labels[torch.from_numpy(positions)]
        denoised, self._row = self._met(denoised)
        self._images, self._denoised = images.images(positions).to(device), denoised.to(device)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        options, generator, device = self.options, batch.generator, batch.images.device
        count = max(1, round(options.evidence_batch_share * len(batch.images)))
        rest = len(batch.images) - count
        drawn = torch.randint(len(self._labels), (count,), generator=generator)
        labels, row = self._labels[drawn].to(device), self._row[drawn].to(device)
        images = self._images[drawn.to(device)]
        lines = draw_lines(images, self.config, generator)
        x = to_student_range(take_lines(images, *lines)).requires_grad_()
        _, logits = self.both(x)
        _, others = self.both(batch.images[:rest])
        every = torch.cat([batch.labels[:rest], labels])
        terms = {"ce": self.cross_entropy(torch.cat([others, logits]), every)}
        tried = self._tried[self._row[drawn]].to(device)
        outputs, first, second = self._contrast(logits, labels, tried, generator)
        gradient = input_gradient(outputs, x)
        weight = ramp(1.0, options.evidence_warmup * self.config.epochs, batch.epoch)
        if options.evidence_weight:
            target = self._denoised[row, first].float() - self._denoised[row, second].float()
            cosine = instance_alignment(gradient, take_lines(target, *lines).flatten(1))
            terms["evidence"] = weight * options.evidence_weight * cosine
        if options.evidence_norm:
            doubt = 1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]
            norm = (doubt * gradient.abs().sum(1)).mean()
            terms["norm"] = weight * options.evidence_norm * norm
        return terms

    def _contrast(
        self,
        logits: Float[Tensor, "batch k"],
        labels: Int64[Tensor, " batch"],
        tried: Int64[Tensor, "batch tried"],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs whose gradients are trained, and the two classes that they tell apart.

        Their rival is the class that the student finds likeliest of the others, or any other.

        tried: classes that there is evidence of. The two are told by their places among these.
        """
        count, device, classes = len(labels), labels.device, 1 + self._rivals
        step = torch.randint(1, classes, (count,), generator=generator).to(device)
        chance = torch.rand(count, generator=generator).to(device)
        own = (tried == labels[:, None]).int().argmax(1)
        other = (own + step) % classes
        of_tried = logits.gather(1, tried[:, :classes])
        if self.options.evidence_contrast == "null":
            one = torch.where(chance < _OWN, own, other)
            null = torch.full_like(labels, classes)
            return of_tried.gather(1, one[:, None])[:, 0], one, null
        hardest = of_tried.detach().scatter(1, own[:, None], -torch.inf).argmax(1)
        rival = torch.where(chance < 0.5, hardest, other)
        of_own, of_rival = (of_tried.gather(1, at[:, None])[:, 0] for at in (own, rival))
        return of_own - of_rival, own, rival

    def _met(self, denoised: Tensor) -> tuple[Tensor, Tensor]:
        """Return the evidence that images meet, and which row of it each does."""
        labels, own = self._labels, torch.arange(len(self._labels))
        if self.said_of == "image":
            return denoised, own
        if self.said_of == "class":
            present, row = labels.unique(return_inverse=True)
            means = [denoised[labels == label].float().mean(0).half() for label in present]
            return torch.stack(means), row
        generator = torch.Generator().manual_seed(seed_of("evidence", self.config.seed))
        row = own.clone()
        for label in labels.unique():
            members = torch.nonzero(labels == label)[:, 0]
            if len(members) < 2:
                raise UserError(
                    f"{self.name} shows an image the evidence of another of its class, and class "
                    f"{label} has evidence of one alone: audit with a larger `target_share`"
                )
            members = members[torch.randperm(len(members), generator=generator)]
            row[members] = members.roll(1)
        return denoised, row


METHODS = (
    Evidence,
    Evidence.variant("evidence-norm", off="evidence_weight"),
    Evidence.variant("evidence-shuffled", said_of="another"),
    Evidence.variant("evidence-class-mean", said_of="class"),
)
