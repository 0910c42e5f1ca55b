"""The official corrupted sets in CIFAR-10-C's layout: NAME.npy for each corruption, labels.npy.

NAME.npy holds the same images at severities 1 to 5, one block after the other (5 x 10,000 for
CIFAR-10-C and CIFAR-100-C). Files are memory-mapped, and nothing is unpickled.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clarep.data.labelled import LabelledImages
from clarep.data.npy_files import read_npy
from clarep.data.npz import array_images, checked_labels
from clarep.errors import UserError, unknown_name

LABELS_NAME = "labels.npy"
SEVERITIES = (1, 2, 3, 4, 5)
OfficialSets = Mapping[str, Mapping[int, LabelledImages]]
"""Corruption -> severity -> the corrupted test set, in the order of the clean one."""


def official_names(folder: Path) -> list[str]:
    """Return the corruptions that a folder holds, sorted. Raises UserError if there are none."""
    names = sorted(path.stem for path in folder.glob("*.npy") if path.name != LABELS_NAME)
    if not names:
        raise UserError(
            f"{folder} holds no corruption: give a folder of NAME.npy and {LABELS_NAME}, such as "
            "CIFAR-10-C"
        )
    return names


def load_official_sets(
    folder: Path, names: Sequence[str], severities: Sequence[int], data: LabelledImages
) -> OfficialSets:
    """Load corruptions of a test set, and check that they are of that set.

    Entry by entry their labels must be those of `data`: then classes mean the same in both, and
    image i is the clean image i corrupted, so that the same choice of images is measured.

    Raises:
        UserError: for a corruption that the folder lacks, labels or an image shape that are not
            those of `data`, and what `load_official` refuses.
    """
    held = official_names(folder)
    lacking = [name for name in names if name not in held]
    if lacking:
        raise UserError(
            f"{folder} lacks {lacking[0]}.npy, {len(lacking)} of the {len(names)} corruptions "
            f"asked for: name with `corruptions` some that it holds, {', '.join(held)}"
        )
    sets = {
        name: {at: load_official(folder, name, at, data.class_names) for at in severities}
        for name in names
    }
    ours = data.read(0).shape
    for one in (one for of_severity in sets.values() for one in of_severity.values()):
        if not np.array_equal(one.labels, data.labels):
            raise UserError(
                f"the labels in {folder / LABELS_NAME} are not those of {data.name}, entry by "
                "entry: give the test data that these files were made from, in their order"
            )
        theirs = one.read(0).shape
        if theirs != ours:
            raise UserError(
                f"images of {one.name} are {theirs[1]}x{theirs[0]} and those of {data.name} "
                f"{ours[1]}x{ours[0]}: give a student and data of that size"
            )
    return sets


def load_official(
    folder: Path, name: str, severity: int, class_names: tuple[str, ...]
) -> LabelledImages:
    """Load one corruption at one severity from NAME.npy.

    Args:
        folder: holds NAME.npy, uint8 (5 N, H, W, 3), and labels.npy, whole numbers (5 N,) or
            (N,).
        name: the corruption, a file's name without its ending.
        severity: 1 to 5.
        class_names: names of the classes, in the order of the labels.

    Raises:
        UserError: for an unknown corruption or severity, a missing or damaged file, pickled
            objects, another type or shape, or labels that differ between severities.
    """
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity} is outside 1 to 5: give one of these")
    names = official_names(folder)
    if name not in names:
        raise unknown_name(f"corruption in {folder}", name, names)
    path = folder / f"{name}.npy"
    x = read_npy(path)
    if len(x) % len(SEVERITIES) or not len(x):
        raise UserError(
            f"{path} holds {len(x)} images, which are no five severities of the same number: "
            "it is cut off, or not in CIFAR-10-C's layout"
        )
    count = len(x) // len(SEVERITIES)
    labels_path = folder / LABELS_NAME
    labels = checked_labels(str(labels_path), read_npy(labels_path), len(class_names))
    if len(labels) not in (count, len(x)):
        raise UserError(
            f"{labels_path} holds {len(labels)} labels, the corruptions have {count} images a "
            "severity: they do not belong together"
        )
    if (labels.reshape(-1, count) != labels[:count]).any():
        raise UserError(
            f"the labels in {labels_path} differ between severities: it is not in CIFAR-10-C's "
            "layout, where the same images come five times"
        )
    return array_images(
        name=f"{folder.name}/{name}/severity={severity}",
        source=f"{path}/severity={severity}",
        x=x[(severity - 1) * count : severity * count],
        labels=labels[:count],
        classes=class_names,
        image_size=None,
    )
