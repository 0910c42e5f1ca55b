"""Class folders on disk, ImageNet's layout among them, as `LabelledImages`."""

import os
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarep.data.decode import colour, decode_image, require_one_size
from clarep.data.labelled import LabelledImages
from clarep.errors import UserError, unknown_name

SPLIT_FOLDERS = ("train", "test", "val")


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
            may have sub-folders. Hidden files and folders, and files whose ending no image
            format has, are passed over.
        split: which of train, test, val; a root without them counts as train.
        image_size: side that `square_resize` brings images to; None keeps a common size.
        classes_file: one folder name a line, or folder and class name; # starts a comment.
            Only these classes are loaded, in this order. ImageNet's layout with wnids.
        alpha_colour: what transparency is composed on.

    Raises:
        UserError: for an unknown split or class, a folder without images, or images of
            several sizes without `image_size`.
    """
    colour(alpha_colour)  # a wrong name is told now, not at the first transparent image
    folder = _split_folder(root, split)
    if classes_file is None:
        classes = {name: name for name in _class_folders(root)}
    else:
        classes = read_classes_file(classes_file)
    paths, labels = _list_images(folder, list(classes), required=classes_file is not None)
    name = str(folder) if classes_file is None else f"{folder}/{classes_file.name}"
    if image_size is None:
        require_one_size(name, ((path, str(path)) for path in paths))
    return LabelledImages(
        name=name,
        labels=labels,
        class_names=tuple(classes.values()),
        sources=[str(path) for path in paths],
        read=lambda i: decode_image(paths[i], str(paths[i]), image_size, alpha_colour),
    )


def read_classes_file(path: Path) -> dict[str, str]:
    """Read a class subset: folder name to class name, in the file's order.

    A line is `folder` or `folder class name`; # starts a comment. Raises UserError if it
    cannot be read, is empty, or names a folder or a class twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the class list {path}: give a text file") from error
    classes: dict[str, str] = {}
    for line in lines:
        words = line.split("#")[0].split()
        if not words:
            continue
        folder, name = words[0], " ".join(words[1:]) or words[0]
        if folder in classes or name in classes.values():
            raise UserError(f"{path} names the class '{line.strip()}' twice: remove one line")
        classes[folder] = name
    if not classes:
        raise UserError(f"{path} names no class: write one folder name a line")
    return classes


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
            f"'{split}': give --split train, or a divided set ({layout})"
        )


def _split_folders(root: Path) -> list[str]:
    """Names of the split folders; none if they are classes: without folders, beside others."""
    named = [name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    others = set(_subfolders(root)) - set(SPLIT_FOLDERS)
    return [] if others and not any(_subfolders(root / name) for name in named) else named


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
    names = {name for split in splits for name in _subfolders(root / split)}
    if not names:
        raise UserError(f"{root} holds no class folders: put the images in one folder a class")
    return sorted(names)


def _subfolders(folder: Path) -> list[str]:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error
    return [path.name for path in entries if path.is_dir() and path.name[0] != "."]


def _list_images(
    folder: Path, names: list[str], required: bool
) -> tuple[list[Path], NDArray[np.int64]]:
    """List the images of each class in sorted order, with labels by the order of `names`."""
    paths: list[Path] = []
    labels: list[int] = []
    present = _subfolders(folder)
    if not present:
        raise UserError(f"{folder} holds no class folders: put its images in one folder a class")
    for label, name in enumerate(names):
        if name not in present:
            if required:
                raise unknown_name(f"class folder of {folder}", name, sorted(present)[:20])
            continue  # another split has it
        found = _images_under(folder / name)
        if not found:
            raise UserError(f"{folder / name} holds no images: add some or remove the folder")
        paths += found
        labels += [label] * len(found)
    return paths, np.array(labels, np.int64)


def _images_under(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]  # os.walk goes into what is left
        found += [
            Path(parent, name)
            for name in names
            if name[0] != "." and Path(name).suffix.lower() in _image_suffixes()
        ]
    return sorted(found, key=lambda path: path.as_posix())


@cache
def _image_suffixes() -> frozenset[str]:
    Image.init()
    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in formats.items() if kind in Image.OPEN)
