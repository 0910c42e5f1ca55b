"""Readers of the natural test sets beyond a student's own: ImageNet-A, -ReaL, -V2, CIFAR-10.1."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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

_WNID = re.compile(r"n\d{8}")
_WNIDS_OF_A = 200  # of ImageNet-R too
_IMAGENET_ENDS = ("n01440764", "n15075141")  # labels 0 and 999
_VALIDATION_FILE = re.compile(r"ILSVRC2012_val_(\d{8})\.")


@dataclass(frozen=True)
class SubsetImages:
    """Images of some of the classes that a student tells apart."""

    images: LabelledImages
    """Labels are places in `columns`."""
    columns: Int[Tensor, " subset"]
    """For each class of `images` its place among the student's logits."""

    def logits(self, all_logits: Float[Tensor, "images classes"]) -> Float[Tensor, "images subset"]:
        """Return the logits of the subset's classes, which its accuracy is measured by."""
        return all_logits[:, self.columns]


def load_imagenet_a(root: Path, wnids: Sequence[str], image_size: int | None = 224) -> SubsetImages:
    """Load ImageNet-A (Hendrycks et al., arXiv 1907.07174) or -R: folders of some wnids.

    Args:
        root: one folder a class, named by its wnid.
        wnids: those of all the student's classes, in the order of its logits.
        image_size: side that images are brought to; None keeps a common size.

    Raises:
        UserError: for folders that are no wnids, more than these sets have, or none of `wnids`;
            for a wnid named twice there, and what `load_class_folders` refuses.
    """
    if len(set(wnids)) != len(wnids):
        raise UserError("a wnid is listed twice: give each class of the student once")
    place = {wnid: i for i, wnid in enumerate(wnids)}
    images = load_class_folders(root, image_size=image_size)
    for name in images.class_names:
        if not _WNID.fullmatch(name):
            raise UserError(
                f"{root / name} is no wnid such as n01440764: give the folder of ImageNet-A or "
                "-R itself, which holds one folder for each of 200 wnids"
            )
        if name not in place:
            raise UserError(
                f"{root / name} is of no class of the student's {len(wnids)}: give a student of "
                "the 1,000 ImageNet classes named by their wnids, or of all wnids of that folder"
            )
    if len(images.class_names) > _WNIDS_OF_A:
        raise UserError(
            f"{root} holds {len(images.class_names)} class folders, ImageNet-A and -R have "
            f"{_WNIDS_OF_A}: give the folder of one of these"
        )
    return SubsetImages(images, torch.tensor([place[name] for name in images.class_names]))


def load_imagenet_v2(
    root: Path, image_size: int | None = 224, num_classes: int = 1000
) -> LabelledImages:
    """Load ImageNet-V2 (Recht et al., arXiv 1902.10811): folders 0 to 999 are the labels.

    A folder's label is its name as a number. Sorted as text, 10 would come before 2, and all
    but a few labels would be wrong. Images come in the order of their labels.

    Raises UserError for a folder that is no number below `num_classes`, two that are the same
    number, and what `load_class_folders` refuses.
    """
    data = load_class_folders(root, image_size=image_size)
    for name in data.class_names:
        if not (name.isascii() and name.isdecimal()) or int(name) >= num_classes:
            raise UserError(
                f"{root / name} is no label of {num_classes} classes: ImageNet-V2 has folders "
                f"named 0 to {num_classes - 1}"
            )
    numbers = np.array([int(name) for name in data.class_names], np.int64)
    if len(set(numbers.tolist())) != len(numbers):
        raise UserError(f"two folders of {root} are the same number: remove one")
    labels = numbers[data.labels]
    order = np.argsort(labels, kind="stable")
    return replace(
        data,
        labels=labels[order],
        class_names=tuple(str(i) for i in range(num_classes)),
        sources=[data.sources[i] for i in order],
        read=lambda i: data.read(int(order[i])),
    )


def imagenet_columns(class_names: Sequence[str]) -> Int[Tensor, " 1000"]:
    """Return for each of ImageNet's labels 0 to 999 its place among a student's classes.

    A label is a wnid's place among the 1,000, sorted. The student's classes may come in any
    order. Raises UserError unless they are these wnids, or the numbers 0 to 999.
    """
    numbers = [str(i) for i in range(1_000)]
    names = sorted(class_names)
    if set(names) == set(numbers):
        names = numbers
    elif (names[0], names[-1], len(names)) != (*_IMAGENET_ENDS, 1_000) or not all(
        _WNID.fullmatch(name) for name in names
    ):
        raise UserError(
            f"the student's {len(names)} classes ({', '.join(list(class_names)[:3])} ...) are not "
            "the 1,000 ImageNet classes, named by wnid or number: give a student of these, or "
            "name an hf: or timm: student's classes with `class_names=imagenet`"
        )
    place = {name: i for i, name in enumerate(class_names)}
    return torch.tensor([place[name] for name in names])


def load_cifar10_1(folder: Path, version: str = "v6") -> LabelledImages:
    """Load CIFAR-10.1 (Recht et al., arXiv 1806.00451): cifar10.1_v6_data.npy, ..._labels.npy.

    Raises UserError if a file is missing or damaged, holds pickled objects, or another shape.
    """
    if version not in ("v4", "v6"):
        raise unknown_name("version of CIFAR-10.1", version, ("v4", "v6"))
    data_path = folder / f"cifar10.1_{version}_data.npy"
    labels_path = folder / f"cifar10.1_{version}_labels.npy"
    x = read_npy(data_path)
    if x.shape[1:] != (32, 32, 3):
        raise UserError(
            f"{data_path} holds an array of shape {x.shape}, not (N, 32, 32, 3): give the file "
            "of CIFAR-10.1"
        )
    return array_images(
        name=f"cifar10.1/{version}",
        source=str(data_path),
        x=x,
        labels=checked_labels(str(labels_path), read_npy(labels_path), len(CIFAR10_CLASSES)),
        classes=CIFAR10_CLASSES,
        image_size=None,
    )


def read_real(path: Path, num_classes: int = 1000) -> list[list[int]]:
    """Read real.json of ImageNet-ReaL (Beyer et al., arXiv 2006.07159).

    It is a list of label lists; entry i belongs to ILSVRC2012_val_{i + 1:08d}.JPEG, and is
    empty where the raters agreed on no label. Raises UserError for anything else.
    """
    try:
        with open_regular(path) as stream:
            content = parse_json(stream.read().decode("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} as JSON: give real.json of ImageNet-ReaL") from error
    if not isinstance(content, list) or not content:
        raise UserError(f"{path} is no list of label lists: give real.json of ImageNet-ReaL")
    for i, labels in enumerate(content):
        if not isinstance(labels, list) or not all(
            type(label) is int and 0 <= label < num_classes for label in labels
        ):
            raise UserError(
                f"entry {i} of {path} is no list of labels below {num_classes}: give real.json "
                "of ImageNet-ReaL"
            )
    return content


def real_of(sources: Sequence[str], real: list[list[int]]) -> list[list[int]]:
    """Return the label lists of validation images, by the number in each file's name.

    So images may come in any order, that of class folders too. Raises UserError for a file
    that is no ILSVRC2012_val_00000001.JPEG, or whose number has no entry.
    """
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


def real_correct(
    predicted: Int[Tensor, " images"], label_lists: Sequence[Sequence[int]]
) -> tuple[Bool[Tensor, " kept"], NDArray[np.int64]]:
    """Return whether each prediction is among its image's labels; images without are left out.

    Also returns which images were kept. Raises UserError if none was, or if there are not as
    many predictions as label lists.
    """
    if len(predicted) != len(label_lists):
        raise UserError(f"{len(predicted)} predictions were given for {len(label_lists)} images")
    kept = np.array([i for i, labels in enumerate(label_lists) if labels], np.int64)
    if not len(kept):
        raise UserError("no image has a label in ImageNet-ReaL: give others")
    guesses = predicted.tolist()
    return torch.tensor([guesses[i] in label_lists[i] for i in kept]), kept
