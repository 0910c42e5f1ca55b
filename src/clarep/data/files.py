"""Class folders on disk, ImageNet's layout among them, as `LabelledImages`."""

import re
from collections.abc import Collection
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clarep.data.decode_image import colour, decode_image, require_one_size
from clarep.data.labelled import LabelledImages
from clarep.data.listing import Listing, subfolders
from clarep.engine.artefacts import open_regular
from clarep.errors import UserError, unknown_name

SPLIT_FOLDERS = ("train", "test", "val")
_SPLIT = re.compile("train|test|val", re.IGNORECASE)  # in names that people give to splits


def load_class_folders(
    root: Path,
    split: str = "train",
    image_size: int | None = None,
    classes_file: Path | None = None,
    alpha_colour: str = "white",
) -> LabelledImages:
    """Load a folder of class folders; an image is decoded when it is read.

    Args:
        root: holds one folder a class, or train, test, val folders that do. A class folder
            may have sub-folders, and links to others. Hidden files and folders do not count;
            the set's `notes` tell of files whose ending no image format has, and of images that
            lie elsewhere.
        split: which of train, test, val; a root without them counts as train.
        image_size: side that `square_resize` brings images to; None keeps a common size.
        classes_file: as `read_classes_file` reads it. Only these classes are loaded, in this
            order. ImageNet's layout with wnids.
        alpha_colour: what transparency is composed on.

    Raises:
        UserError: for an unknown split or class, a folder without images, splits that would be
            taken for classes, a name that is no UTF-8, or images of several sizes without
            `image_size`.
    """
    colour(alpha_colour)  # a wrong name is told now, not at the first transparent image
    folder = _split_folder(root, split)
    folders = _class_folders(root)
    notes = []
    if classes_file is None:
        classes = {name: name for name in folders}
        notes = _doubts(root, folders)
    else:
        classes = read_classes_file(classes_file, folders)
    listing = Listing(root)
    labels = _list_images(listing, folder, list(classes), required=classes_file is not None)
    paths = listing.images
    data = LabelledImages(
        name=str(folder) if classes_file is None else f"{folder}/{classes_file.name}",
        labels=labels,
        class_names=tuple(classes.values()),
        sources=paths,
        read=lambda i: decode_image(Path(paths[i]), paths[i], image_size, alpha_colour),
        notes=(*notes, *listing.notes()),
    )
    if image_size is None:
        require_one_size(data.name, ((Path(path), path) for path in paths))
    return data


def read_classes_file(path: Path, folders: Collection[str]) -> dict[str, str]:
    """Read a class subset: folder name to class name, in the file's order.

    A line is a folder of `folders`, whole, spaces and # included. Else it is the longest such
    folder that it starts with, a space, and the class's name; what follows a # that starts a
    word is a comment. Raises UserError if the file cannot be read, is empty, or names a folder
    or a class twice.
    """
    try:
        with open_regular(path) as stream:
            lines = stream.read().decode("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the class list {path}: give a text file") from error
    classes: dict[str, str] = {}
    for line in map(str.strip, lines):
        folder, name = _folder_and_name(line, folders)
        if not folder:
            continue
        if folder in classes or name in classes.values():
            raise UserError(f"{path} names the class '{line}' twice: remove one line")
        classes[folder] = name
    if not classes:
        raise UserError(f"{path} names no class: write one folder name a line")
    return classes


def _folder_and_name(line: str, folders: Collection[str]) -> tuple[str, str]:
    """Divide a line into folder and class name; a folder that is none of `folders` is unknown."""
    ends = [len(line), *(space.start() for space in reversed([*re.finditer(r"\s+", line)]))]
    known = next((line[:end] for end in ends if line[:end] in folders), "")
    rest = re.split(r"(?:^|\s)#", line.removeprefix(known))[0].strip()
    return known or rest, rest or known


class NoSplitError(UserError):
    """A split was asked of a set that has none of that name."""


def require_undivided(name: str, split: str) -> None:
    """Raise NoSplitError unless `split` is train, what a set without splits counts as."""
    if split != "train":
        layout = (
            f"arrays x_{split} and y_{split} inside, or NAME_{split}.npz beside NAME_train.npz"
            if name.endswith(".npz")
            else f"folders train/ and {split}/ in it, which hold the class folders"
        )
        raise NoSplitError(
            f"{name} is not divided into splits and counts as 'train', so there is no split "
            f"'{split}': give `split=train`, or a divided set ({layout})"
        )


def _split_folders(root: Path) -> list[str]:
    """Names of the split folders; none if they are classes: without folders, beside others."""
    named = [name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    others = set(subfolders(root)) - set(SPLIT_FOLDERS)
    return [] if others and not any(subfolders(root / name) for name in named) else named


def _doubts(root: Path, classes: list[str]) -> list[str]:
    """Say which folders are perhaps no classes. Raises UserError where they plainly are splits."""
    splits = _split_folders(root)
    named = {name: set(subfolders(root / name)) for name in subfolders(root) if _SPLIT.search(name)}
    for one, two in combinations(sorted(named), 2):
        if len(splits) < 2 and (both := sorted(named[one] & named[two])):
            raise UserError(
                f"{root} holds {one}/ and {two}/ with the same folders ({', '.join(both[:3])}): "
                "call splits train, test or val, and classes otherwise"
            )
    for name in [] if splits else classes:
        inner = [split for split in SPLIT_FOLDERS if (root / name / split).is_dir()]
        if len(inner) > 1:
            mend = f"{root}/{inner[0]}/{name}, or give {root / name} if that is the whole set"
            holds = f"holds {inner[0]}/ and {inner[1]}/"
            raise UserError(
                f"{root / name} would be a class and {holds}: put classes into splits, {mend}"
            )
    notes = []
    others = sorted(set(subfolders(root)) - set(splits)) if splits else []
    if others:
        divided = f"{root} is divided into {', '.join(splits)}"
        notes.append(f"{divided}: passed over are {', '.join(others[:3])} ({len(others)} folders)")
    if len(classes) == 1:
        home = root / (splits[0] if splits else "") / classes[0]
        inner = sorted(subfolders(home)) if home.is_dir() else []
        if len(inner) > 1:
            notes.append(
                f"all images of {root} are of one class, {classes[0]}, which holds the folders "
                f"{', '.join(inner[:3])}: if these are the classes, give {home}"
            )
    return notes


def _split_folder(root: Path, split: str) -> Path:
    splits = _split_folders(root)
    if not splits:
        require_undivided(str(root), split)
        return root
    if split not in splits:
        raise NoSplitError(str(unknown_name(f"split of {root}", split, splits)))
    return root / split


def _class_folders(root: Path) -> list[str]:
    """Sorted names of the class folders, of all splits: a label means the same in each."""
    splits = _split_folders(root) or ["."]
    names = {name for split in splits for name in subfolders(root / split)}
    if not names:
        raise UserError(f"{root} holds no class folders: put the images in one folder a class")
    return sorted(names)


def _list_images(
    listing: Listing, folder: Path, names: list[str], required: bool
) -> NDArray[np.int64]:
    """List the images of each class; return their labels, by the order of `names`."""
    labels: list[int] = []
    present = subfolders(folder)
    if not present:
        raise UserError(f"{folder} holds no class folders: put its images in one folder a class")
    for label, name in enumerate(names):
        if name in present:
            labels += [label] * listing.add_class(folder / name)
        elif not required:
            listing.absent.append(name)
        else:
            raise unknown_name(f"class folder of {folder}", name, sorted(present)[:20])
    listing.pass_over_loose(folder)
    return np.array(labels, np.int64)
