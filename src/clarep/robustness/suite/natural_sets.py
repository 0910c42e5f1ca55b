"""Natural test sets beyond the student's own, read and matched with the student's classes."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.labelled import LabelledImages
from clarep.data.sets.natural import (
    SubsetImages,
    imagenet_columns,
    load_cifar10_1,
    load_imagenet_a,
    load_imagenet_v2,
    read_real,
    real_correct,
    real_of,
)
from clarep.errors import UserError, unknown_name
from clarep.students.student import Student


@dataclass(frozen=True)
class BeyondSet:
    """A natural test set, its classes found among the student's."""

    name: str
    """One of BEYOND."""
    subset: SubsetImages
    """The images, and the logits that they are classified by."""
    place: str
    """Where it lies."""
    accepted: Sequence[Sequence[int]] | None = None
    """ReaL alone: the labels that are right of each image; none for one that does not count."""

    @property
    def images(self) -> LabelledImages:
        """The images; their labels are places in the subset of the logits."""
        return self.subset.images

    def correct(
        self, logits: Float[Tensor, "images classes"], chosen: NDArray[np.int64]
    ) -> tuple[Bool[Tensor, " kept"], NDArray[np.int64]]:
        """Return which of the chosen images are right, and which of them count, as indices."""
        predicted = self.subset.logits(logits).argmax(dim=1)
        if self.accepted is None:
            return predicted == torch.from_numpy(self.images.labels[chosen]), chosen
        right, kept = real_correct(predicted, [self.accepted[i] for i in chosen])
        return right, chosen[kept]

    def fingerprint(self, chosen: NDArray[np.int64]) -> dict[str, Any]:
        """Return what tells this set from another, as JSON values."""
        found = {"place": self.place, "sha256": self.images.sha256(chosen)}
        if self.accepted is None:
            return found
        accepted = json.dumps([list(self.accepted[i]) for i in chosen])
        return found | {"accepted_sha256": hashlib.sha256(accepted.encode()).hexdigest()}


def load_beyond(
    paths: Mapping[str, Path], student: Student, data: LabelledImages
) -> list[BeyondSet]:
    """Load test sets by name and path; `data`, the student's own test set, is what ReaL relabels.

    Raises UserError for an unknown name, a path that does not hold that set, a student whose
    classes or image shape do not fit it.
    """
    return [
        _load(name, Path(os.path.expanduser(path)), student, data) for name, path in paths.items()
    ]


def _load(name: str, path: Path, student: Student, data: LabelledImages) -> BeyondSet:
    if name not in _READERS:
        raise unknown_name("test set", name, _READERS)
    try:
        found = _READERS[name](path, student, data)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    subset, accepted = found if isinstance(found, tuple) else (found, None)
    one = BeyondSet(name, subset, str(path), accepted)
    height, width, channels = one.images.read(0).shape
    if (channels, height, width) != student.info.image_shape:
        wanted = student.info.image_shape
        raise UserError(
            f"{name}: its images are {width}x{height} and the student takes "
            f"{wanted[2]}x{wanted[1]}: give a student of that size"
        )
    return one


def _cifar10_1(path: Path, student: Student, data: LabelledImages) -> SubsetImages:
    images = load_cifar10_1(path)
    place = {name: i for i, name in enumerate(student.info.class_names)}
    for name in images.class_names:
        if name not in place:
            raise UserError(
                f"the student has no class '{name}': give a student of CIFAR-10's classes, "
                f"{', '.join(images.class_names)}"
            )
    return SubsetImages(images, torch.tensor([place[name] for name in images.class_names]))


def _imagenet_a(path: Path, student: Student, data: LabelledImages) -> SubsetImages:
    return load_imagenet_a(path, student.info.class_names, student.info.image_shape[1])


def _imagenet_v2(path: Path, student: Student, data: LabelledImages) -> SubsetImages:
    columns = imagenet_columns(student.info.class_names)  # before hundreds of files are listed
    return SubsetImages(load_imagenet_v2(path, student.info.image_shape[1]), columns)


def _real(
    path: Path, student: Student, data: LabelledImages
) -> tuple[SubsetImages, list[list[int]]]:
    columns = imagenet_columns(student.info.class_names)
    return SubsetImages(data, columns), real_of(data.sources, read_real(path))


_Found = SubsetImages | tuple[SubsetImages, list[list[int]]]
_READERS: dict[str, Callable[[Path, Student, LabelledImages], _Found]] = {
    "cifar10.1": _cifar10_1,
    "imagenet-a": _imagenet_a,
    "imagenet-r": _imagenet_a,
    "imagenet-v2": _imagenet_v2,
    "real": _real,
}
BEYOND = tuple(_READERS)
"""Names of the sets."""
