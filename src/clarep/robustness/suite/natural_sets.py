"""Natural test sets beyond the student's own, read and matched with the student's classes."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.fits import check_alike, kind_of
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

BEYOND = ("cifar10.1", "imagenet-a", "imagenet-r", "imagenet-v2", "real")
"""Names of the sets."""


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


def named_paths(given: Sequence[str]) -> dict[str, Path]:
    """Read NAME=PATH of each set; raises UserError for an unknown name, or one given twice."""
    paths: dict[str, Path] = {}
    for text in given:
        name, _, path = text.partition("=")
        if name not in BEYOND:
            raise unknown_name("test set", name, BEYOND)
        if not path:
            raise UserError(f"`beyond={text}` names no path: give {name}=PATH")
        if name in paths:
            raise UserError(f"`beyond` gives {name} twice: name each set once")
        paths[name] = Path(path)
    return paths


def load_beyond(
    paths: Mapping[str, Path], student: Student, data: LabelledImages
) -> list[BeyondSet]:
    """Load test sets by name and path; `data`, the student's own test set, is what ReaL relabels.

    Raises UserError for an unknown name, a path that does not hold that set, a student whose
    classes or image shape do not fit it.
    """
    loaded = []
    for name, given in paths.items():
        if name not in BEYOND:
            raise unknown_name("test set", name, BEYOND)
        path = Path(os.path.expanduser(given))
        try:
            subset, accepted = _read(name, path, student, data)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        names, shape = kind_of(subset.images)
        check_alike("the student's", (names, student.info.image_shape), name, (names, shape))
        loaded.append(BeyondSet(name, subset, str(path), accepted))
    return loaded


def _read(
    name: str, path: Path, student: Student, data: LabelledImages
) -> tuple[SubsetImages, list[list[int]] | None]:
    """Return a set's images with the student's logits for them, and of ReaL the right labels."""
    own, side = student.info.class_names, student.info.image_shape[1]
    if name == "cifar10.1":
        images = load_cifar10_1(path)
        for wanted in images.class_names:
            if wanted not in own:
                raise UserError(
                    f"the student has no class '{wanted}': give a student of CIFAR-10's classes, "
                    f"{', '.join(images.class_names)}"
                )
        return SubsetImages(images, torch.tensor([own.index(c) for c in images.class_names])), None
    if name in ("imagenet-a", "imagenet-r"):
        return load_imagenet_a(path, own, side), None
    columns = imagenet_columns(own)  # before hundreds of files are listed
    if name == "imagenet-v2":
        return SubsetImages(load_imagenet_v2(path, side), columns), None
    return SubsetImages(data, columns), real_of(data.sources, read_real(path))
