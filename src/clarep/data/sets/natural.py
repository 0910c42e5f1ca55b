"""Natural test sets beyond a student's own, matched with its classes.

ImageNet-A, -R, -V2 and -ReaL, and CIFAR-10.1, in their authors' layouts.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.cifar import CLASS_NAMES as CIFAR10_CLASSES
from clarep.data.files import load_class_folders
from clarep.data.labelled import LabelledImages
from clarep.data.npy_files import read_npy
from clarep.data.npz import array_images, checked_labels
from clarep.engine.artefacts import open_regular, parse_json
from clarep.errors import UserError, unknown_name

BEYOND = ("cifar10.1", "imagenet-a", "imagenet-r", "imagenet-v2", "real")
"""Names of the sets."""
_WNID = re.compile(r"n\d{8}")
_WNIDS_OF_A = 200  # of ImageNet-R too
_CLASSES = 1_000
_IMAGENET_ENDS = ("n01440764", "n15075141")  # labels 0 and 999
_VALIDATION_FILE = re.compile(r"ILSVRC2012_val_(\d{8})\.")


@dataclass(frozen=True)
class NaturalSet:
    """A natural test set, its classes found among a student's."""

    name: str
    """One of BEYOND."""
    place: str
    """Where it lies."""
    images: LabelledImages
    """Labels are places in `columns`."""
    columns: Int[Tensor, " subset"]
    """For each class of `images` its place among the student's logits."""
    accepted: Sequence[Sequence[int]] | None = None
    """ReaL alone: the labels that are right of each image; none for one that does not count."""

    def correct(
        self, logits: Float[Tensor, "images classes"], chosen: NDArray[np.int64]
    ) -> tuple[Bool[Tensor, " kept"], NDArray[np.int64]]:
        """Return which of the chosen images are right, and which of them count, as indices.

        Only logits of the set's own classes are compared. Raises UserError if no image counts.
        """
        predicted = logits[:, self.columns].argmax(dim=1)
        if self.accepted is None:
            return predicted == torch.from_numpy(self.images.labels[chosen]), chosen
        guesses = dict(zip(chosen.tolist(), predicted.tolist(), strict=True))
        kept = np.array([i for i in chosen if self.accepted[i]], np.int64)
        if not len(kept):
            raise UserError("no image has a label in ImageNet-ReaL: give others")
        return torch.tensor([guesses[i] in self.accepted[i] for i in kept]), kept

    def fingerprint(self, chosen: NDArray[np.int64]) -> dict[str, Any]:
        """Return what tells this set from another, as JSON values."""
        found = {"place": self.place, "sha256": self.images.sha256(chosen)}
        if self.accepted is None:
            return found
        accepted = json.dumps([list(self.accepted[i]) for i in chosen])
        return found | {"accepted_sha256": hashlib.sha256(accepted.encode()).hexdigest()}


def load_natural(
    name: str, path: Path, class_names: Sequence[str], image_size: int, data: LabelledImages
) -> NaturalSet:
    """Load one of BEYOND.

    Args:
        name: which.
        path: the folder; of ReaL its real.json.
        class_names: the student's, in the order of its logits.
        image_size: side that images of any size are brought to.
        data: the student's own test set, which ReaL relabels.

    Raises:
        UserError: for an unknown name, a path that does not hold that set, or classes that do not
            fit it.
    """
    if name not in BEYOND:
        raise unknown_name("test set", name, BEYOND)
    accepted = None
    if name == "cifar10.1":
        images = load_cifar10_1(path)
        columns = _places(images.class_names, class_names, "CIFAR-10's classes")
    elif name in ("imagenet-a", "imagenet-r"):
        images = load_imagenet_a(path, image_size)
        wanted = "the 1,000 ImageNet classes named by their wnids, or of all wnids of that folder"
        columns = _places(images.class_names, class_names, wanted)
    else:
        columns = imagenet_columns(class_names)  # before hundreds of files are listed
        images = load_imagenet_v2(path, image_size) if name == "imagenet-v2" else data
        accepted = read_real(path, data.sources) if name == "real" else None
    return NaturalSet(name, str(path), images, columns, accepted)


def _places(
    names: Sequence[str], class_names: Sequence[str], wanted: str
) -> Int[Tensor, " subset"]:
    """Return where each of a set's classes stands among the student's."""
    if len(set(class_names)) != len(class_names):
        raise UserError("a class of the student is listed twice: give each once")
    for name in names:
        if name not in class_names:
            raise UserError(f"the student has no class '{name}': give a student of {wanted}")
    place = {name: i for i, name in enumerate(class_names)}
    return torch.tensor([place[name] for name in names])


def load_imagenet_a(root: Path, image_size: int | None = 224) -> LabelledImages:
    """Load ImageNet-A (Hendrycks et al., arXiv 1907.07174) or -R: folders of some wnids.

    Raises UserError for folders that are no wnids, more than these sets have, and what
    `load_class_folders` refuses.
    """
    images = load_class_folders(root, image_size=image_size)
    for name in images.class_names:
        if not _WNID.fullmatch(name):
            raise UserError(
                f"{root / name} is no wnid such as n01440764: give the folder of ImageNet-A or "
                "-R itself, which holds one folder for each of 200 wnids"
            )
    if len(images.class_names) > _WNIDS_OF_A:
        raise UserError(
            f"{root} holds {len(images.class_names)} class folders, ImageNet-A and -R have "
            f"{_WNIDS_OF_A}: give the folder of one of these"
        )
    return images


def load_imagenet_v2(root: Path, image_size: int | None = 224) -> LabelledImages:
    """Load ImageNet-V2 (Recht et al., arXiv 1902.10811): folders 0 to 999 are the labels.

    A folder's label is its name as a number. Sorted as text, 10 would come before 2, and all
    but a few labels would be wrong. Images come in the order of their labels.

    Raises UserError for a folder that is no such number, two that are the same number, and what
    `load_class_folders` refuses.
    """
    data = load_class_folders(root, image_size=image_size)
    for name in data.class_names:
        if not (name.isascii() and name.isdecimal()) or int(name) >= _CLASSES:
            raise UserError(
                f"{root / name} is no label of {_CLASSES} classes: ImageNet-V2 has folders "
                f"named 0 to {_CLASSES - 1}"
            )
    numbers = np.array([int(name) for name in data.class_names], np.int64)
    if len(set(numbers.tolist())) != len(numbers):
        raise UserError(f"two folders of {root} are the same number: remove one")
    labels = numbers[data.labels]
    order = np.argsort(labels, kind="stable")
    return replace(
        data,
        labels=labels[order],
        class_names=tuple(str(i) for i in range(_CLASSES)),
        sources=[data.sources[i] for i in order],
        read=lambda i: data.read(int(order[i])),
    )


def imagenet_columns(class_names: Sequence[str]) -> Int[Tensor, " 1000"]:
    """Return for each of ImageNet's labels 0 to 999 its place among a student's classes.

    A label is a wnid's place among the 1,000, sorted. The student's classes may come in any
    order. Raises UserError unless they are these wnids, or the numbers 0 to 999.
    """
    numbers = [str(i) for i in range(_CLASSES)]
    names = sorted(class_names)
    if set(names) == set(numbers):
        names = numbers
    elif (names[0], names[-1], len(names)) != (*_IMAGENET_ENDS, _CLASSES) or not all(
        _WNID.fullmatch(name) for name in names
    ):
        raise UserError(
            f"the student's {len(names)} classes ({', '.join(list(class_names)[:3])} ...) are not "
            "the 1,000 ImageNet classes, named by wnid or number: give a student of these, or "
            "name an hf: or timm: student's classes with `class_names=imagenet`"
        )
    place = {name: i for i, name in enumerate(class_names)}
    return torch.tensor([place[name] for name in names])


def load_cifar10_1(folder: Path) -> LabelledImages:
    """Load CIFAR-10.1 (Recht et al., arXiv 1806.00451): cifar10.1_v6_data.npy, ..._labels.npy.

    Raises UserError if a file is missing or damaged, holds pickled objects, or another shape.
    """
    data_path, labels_path = (folder / f"cifar10.1_v6_{kind}.npy" for kind in ("data", "labels"))
    x = read_npy(data_path)
    if x.shape[1:] != (32, 32, 3):
        raise UserError(
            f"{data_path} holds an array of shape {x.shape}, not (N, 32, 32, 3): give the file "
            "of CIFAR-10.1"
        )
    return array_images(
        name="cifar10.1/v6",
        source=str(data_path),
        x=x,
        labels=checked_labels(str(labels_path), read_npy(labels_path), len(CIFAR10_CLASSES)),
        classes=CIFAR10_CLASSES,
        image_size=None,
    )


def read_real(path: Path, sources: Sequence[str]) -> list[list[int]]:
    """Return the labels in real.json of ImageNet-ReaL (Beyer et al., arXiv 2006.07159).

    It is a list of label lists; entry i belongs to ILSVRC2012_val_{i + 1:08d}.JPEG, and is
    empty where the raters agreed on no label. Images are told by the number in their file's name
    (`sources`), so that they may come in any order, that of class folders too.

    Raises UserError for another content, and for a file that has no such name or no entry.
    """
    mend = "give real.json of ImageNet-ReaL"
    try:
        with open_regular(path) as stream:
            real = parse_json(stream.read().decode("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} as JSON: {mend}") from error
    if not isinstance(real, list) or not real:
        raise UserError(f"{path} is no list of label lists: {mend}")
    for i, labels in enumerate(real):
        if not isinstance(labels, list) or not all(
            type(label) is int and 0 <= label < _CLASSES for label in labels
        ):
            raise UserError(f"entry {i} of {path} is no list of labels below {_CLASSES}: {mend}")
    found = []
    for source in sources:
        match = _VALIDATION_FILE.search(source)
        number = int(match.group(1)) if match else 0
        if not 1 <= number <= len(real):
            raise UserError(
                f"{source} is not one of the {len(real)} images of ImageNet-ReaL: give files "
                "named ILSVRC2012_val_00000001.JPEG and so on"
            )
        found.append(real[number - 1])
    return found
