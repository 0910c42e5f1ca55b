"""`Subject`: a student under test, with every pass counted."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from clarep.data.class_balance import class_balanced_choice
from clarep.data.labelled import LabelledImages
from clarep.engine.arrays import logits_in
from clarep.engine.tensors import sha256_state
from clarep.errors import UserError
from clarep.robustness.attacks.passes import evaluating
from clarep.robustness.attacks.shapes import Batch, Classes, Logits, Values
from clarep.students.matched_student import MatchedStudent
from clarep.students.student import Student

BATCH = 250  # images a pass


class NotFinite(UserError):
    """A logit that is no number: `image` (C, H, W) got it, and `source` names that where known."""

    def __init__(self, student: str, value: float, image: Tensor, source: str) -> None:
        self.student, self.value, self.image, self.source = student, value, image, source
        super().__init__(
            f"{student} answers with {value} to {source or 'an image'}: give a model whose "
            "answers are finite"
        )


class Subject(nn.Module):
    """A student that answers in batches and counts how many images it was shown.

    It answers where its images are, wherever the student is: attacks on the CPU may ask one on a
    GPU.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.device = next((one.device for one in student.parameters()), torch.device("cpu"))
        """Where the student is."""
        self.passes = 0
        """Forward passes of one image so far."""
        self.sources: Sequence[str] = ()
        """Names of the images that are shown next; of none where these are not known."""
        own = student.info.class_names
        self._classes = len(student.columns if isinstance(student, MatchedStudent) else own)

    def forward(self, x: Batch) -> Logits:
        """Return the logits of images in [0, 1]: what attacks see.

        Raises UserError for an answer that is not (B, classes), NotFinite for a logit that is not.
        """
        self.passes += len(x)
        # A copy: there are models that change their images in place.
        return self._checked(self.student(x.to(self.device, copy=True)), x)

    @torch.no_grad()
    def both(
        self, images: UInt8[Tensor, "batch c h w"], sources: Sequence[str] = ()
    ) -> tuple[Float[Tensor, "batch d"], Logits]:
        """Return features and logits of images; raises NotFinite, with the image's source."""
        features, logits = [], []
        for x in self._batches(images, sources):
            self.passes += len(x)
            found, answer = self.student.both(x.to(self.device, copy=True))
            features.append(found.float().to(x.device))
            logits.append(self._checked(answer, x))
        return torch.cat(features), torch.cat(logits)

    @torch.no_grad()
    def predict(self, images: UInt8[Tensor, "batch c h w"], sources: Sequence[str] = ()) -> Classes:
        """Return the predicted class of each image; raises NotFinite, with the image's source."""
        return torch.cat([self(x).argmax(dim=1) for x in self._batches(images, sources)])

    def both_at(
        self, data: LabelledImages, indices: NDArray[np.int64]
    ) -> tuple[Float[Tensor, "batch d"], Logits]:
        """Return features and logits of the images at `indices`, read a batch at a time."""
        found = [self.both(data.images(part), named(data, part)) for part in batches(indices)]
        return torch.cat([f for f, _ in found]), torch.cat([logits for _, logits in found])

    def _batches(self, images: Tensor, sources: Sequence[str]) -> Iterator[Tensor]:
        for start in range(0, len(images), BATCH):
            self.sources = sources[start : start + BATCH]
            yield as_float(images[start : start + BATCH])
        self.sources = ()

    def _checked(self, answer: object, x: Tensor) -> Tensor:
        """Return the logits in an answer, (B, classes) and finite; raises UserError."""
        logits, name = logits_in(answer).float().to(x.device), self.student.info.name
        if logits.shape != (len(x), self._classes):
            raise UserError(
                f"{name} answers {len(x)} images with an array of shape {tuple(logits.shape)}: "
                f"give a model that returns logits, ({len(x)}, {self._classes})"
            )
        if logits.isfinite().all():
            return logits
        at = int((~logits.isfinite()).any(dim=1).nonzero()[0])
        value = next(one for one in logits[at].tolist() if not math.isfinite(one))
        source = self.sources[at] if len(self.sources) == len(x) else ""
        raise NotFinite(name, value, x[at].detach(), source)


def named(data: LabelledImages, indices: NDArray[np.int64]) -> list[str]:
    """Return where the images at `indices` come from."""
    return [data.sources[int(i)] for i in indices]


def as_float(images: UInt8[Tensor, "batch c h w"]) -> Batch:
    """Map uint8 in [0, 255] to float32 in [0, 1], the range that students take."""
    return images.float() / 255


def batches(indices: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cut indices into parts of at most BATCH."""
    return (indices[i : i + BATCH] for i in range(0, len(indices), BATCH))


def right_at(subject: Subject, data: LabelledImages, indices: NDArray[np.int64]) -> Values:
    """Return 1 for each image at `indices` that is classified rightly, else 0."""
    parts = [subject.predict(data.images(part), named(data, part)) for part in batches(indices)]
    return (torch.cat(parts) == torch.from_numpy(data.labels[indices])).float()


def choose_images(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Choose about `count` images, evenly from the classes; all of them if there are no more."""
    if count >= len(labels):
        return np.arange(len(labels))
    return class_balanced_choice(labels, count / len(labels), seed)


@contextmanager
def under_test(student: Student) -> Iterator[Subject]:
    """Yield the student as a subject: in evaluation mode, its weights without gradients.

    Afterwards its modes are what they were.
    """
    with evaluating(student):
        yield Subject(student).eval()


def fingerprint(student: Student) -> str:
    """Return the SHA-256 of a student's weights, names and shapes included.

    Of a foreign student its identity too: a TorchScript's code, a configuration's heads and so on
    are in no state dict.
    """
    state = sha256_state(student)
    if not student.identity:
        return state
    return hashlib.sha256(f"{student.identity} {state}".encode()).hexdigest()


def found_at(data: LabelledImages, indices: NDArray[np.int64]) -> dict[str, str]:
    """Return where a set's images at `indices` were found, and their content, which decides."""
    return {"place": data.name, "sha256": data.sha256(indices)}
