"""Images in tar files as WebDataset lays them out: `wds:PATTERN`.

Headers are read in one pass, images where they lie when they are asked for; nothing is unpacked.
"""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clarep.data.decode_image import colour, decode_image, require_one_size
from clarep.data.files import read_classes_file
from clarep.data.labelled import LabelledImages, UnreadableImage
from clarep.data.listing import Counted, image_suffixes
from clarep.data.names import Names
from clarep.data.tar_files import Member, members, read_at, shard_paths
from clarep.errors import UserError

_MAX_CLASSES = 100_000  # as of an .npz
_LABEL_BYTES = 1_000  # of a class's number or name
_IMAGE_BYTES = 1 << 28  # of an encoded image, which is read whole
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")  # key, and ending from the first dot on


@dataclass
class _Index:
    """Where each image lies, and what its class is called."""

    names: Names = field(default_factory=Names)
    shards: "array[int]" = field(default_factory=lambda: array("q"))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    classes: "array[int]" = field(default_factory=lambda: array("q"))
    numbers: dict[str, int] = field(default_factory=dict)
    """What the class is called in the shards -> its place among those met."""
    passed_over: Counted = field(default_factory=Counted)

    def add(self, shard: int, path: Path, found: "_Sample") -> None:
        """Take a sample, or pass it over if it is no image with a class."""
        if found.image is None or not found.label:
            self.passed_over.add([f"{path.name}/{found.key}"])
            return
        number = self.numbers.setdefault(found.label, len(self.numbers))
        if number >= _MAX_CLASSES:
            raise ValueError(f"it has over {_MAX_CLASSES} classes: {found.label[:50]!r} ...")
        self.names.extend([f"{path.name}/{found.image.name}"])
        self.shards.append(shard)
        self.offsets.append(found.image.offset)
        self.sizes.append(found.image.size)
        self.classes.append(number)


@dataclass
class _Sample:
    key: str
    image: Member | None = None
    label: str = ""


def load_shards(
    pattern: str,
    split: str = "train",
    image_size: int | None = None,
    classes_file: Path | None = None,
    alpha_colour: str = "white",
) -> LabelledImages:
    """Load the samples of tar files: KEY.jpg, or of another image format, and KEY.cls beside it.

    Args:
        pattern: a path with {000..146}, {a,b}, * and ?, or a folder of tar files. {split} in it
            stands for the split; a pattern without counts as train.
        split: which of train, test, val.
        image_size: side that `square_resize` brings images to; None keeps a common size.
        classes_file: as `read_classes_file` reads it: a line is what a .cls holds, and the
            class's name. Only these classes are loaded, in this order.
        alpha_colour: what transparency is composed on.

    A .cls holds a number, which is the label, or the class's name: classes are sorted by it.
    Samples without an image or a class are passed over, which the set's `notes` tell.

    Raises:
        UserError: for shards that are missing, damaged or compressed, without an image, a number
            that is no class's, and images of several sizes without `image_size`.
    """
    colour(alpha_colour)
    paths = shard_paths(pattern, split)
    index = _index(paths)
    if not len(index.names):
        first = f" ({index.passed_over.first[0]} is none)" if index.passed_over.count else ""
        raise UserError(
            f"wds:{pattern} holds no image with a class{first}: give samples KEY.jpg and KEY.cls, "
            "next to each other"
        )
    labels, classes = _labels(pattern, index, classes_file)
    kept = np.flatnonzero(labels >= 0)
    places = np.stack([np.array(part) for part in (index.shards, index.offsets, index.sizes)])
    names = index.names if len(kept) == len(labels) else Names(index.names[i] for i in kept)

    def encoded(i: int) -> bytes:
        shard, offset, size = places[:, kept[i]].tolist()
        try:
            return read_at(paths[shard], offset, size)
        except OSError as error:
            raise UnreadableImage(names[i], str(error.strerror or error)) from error

    data = LabelledImages(
        name=f"wds:{pattern}" + ("" if classes_file is None else f"/{classes_file.name}"),
        labels=labels[kept],
        class_names=classes,
        sources=names,
        read=lambda i: decode_image(encoded(i), names[i], image_size, alpha_colour),
        notes=_notes(pattern, index, len(labels) - len(kept)),
    )
    if image_size is None:
        require_one_size(data.name, ((encoded(i), names[i]) for i in range(len(data))))
    return data


def _index(paths: list[Path]) -> _Index:
    index = _Index()
    for shard, path in enumerate(paths):
        try:
            for sample in _samples(path):
                index.add(shard, path, sample)
        except UserError:
            raise
        except Exception as error:  # tarfile raises anything on damaged bytes
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"cannot read {path} as a tar file without compression ({reason}): give a whole one"
            ) from error
    return index


def _samples(path: Path) -> Iterator[_Sample]:
    """Yield the samples of a shard: members of one key that follow each other."""
    sample: _Sample | None = None
    for member in members(path):
        if (named := _NAME.fullmatch(member.name)) is None:
            continue
        key, ending = named[1], named[2].lower()
        if sample is not None and sample.key != key:
            yield sample
            sample = None
        sample = sample or _Sample(key)
        if ending == "cls":
            sample.label = _label(path, member)
        elif f".{ending}" in image_suffixes():
            if sample.image is not None:
                raise ValueError(f"{key} has two images: .{ending} and {sample.image.name}")
            if member.size > _IMAGE_BYTES:
                raise ValueError(f"{member.name} has over {_IMAGE_BYTES >> 20} MiB")
            sample.image = member
    if sample is not None:
        yield sample


def _label(path: Path, member: Member) -> str:
    """Return what a .cls holds; a number in its usual form."""
    if member.size > _LABEL_BYTES:
        raise ValueError(f"{member.name} has over {_LABEL_BYTES} bytes")
    text = read_at(path, member.offset, member.size).decode().strip()
    return str(int(text)) if re.fullmatch("[0-9]{1,18}", text) else text


def _labels(
    pattern: str, index: _Index, classes_file: Path | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the label of each sample, -1 of a class that is not asked for, and the names."""
    texts = list(index.numbers)
    if classes_file is not None:
        named = read_classes_file(classes_file, texts)
        place = {text: label for label, text in enumerate(named)}
        classes = tuple(named.values())
        if not any(text in place for text in texts):
            raise UserError(
                f"{classes_file} names no class of wds:{pattern}: give what its .cls hold, such as "
                f"{texts[0][:50]!r}, at the start of a line"
            )
    elif all(re.fullmatch("[0-9]+", text) for text in texts):
        largest = max(map(int, texts))
        if largest >= _MAX_CLASSES:
            raise UserError(f"label {largest} in wds:{pattern} needs names: give `classes_file`")
        place = {text: int(text) for text in texts}
        classes = tuple(map(str, range(largest + 1)))
    else:
        classes = tuple(sorted(texts))
        place = {text: label for label, text in enumerate(classes)}
    of_class = np.array([place.get(text, -1) for text in texts], np.int64)
    return of_class[np.array(index.classes)], classes


def _notes(pattern: str, index: _Index, left_out: int) -> tuple[str, ...]:
    notes = []
    if index.passed_over.count:
        notes.append(
            f"{index.passed_over.count} samples of wds:{pattern} are passed over, first "
            f"{index.passed_over.first[0]} (no image of a format that is read, or no .cls beside "
            "it)"
        )
    if left_out:
        notes.append(f"{left_out} samples of wds:{pattern} are of classes that are not asked for")
    return tuple(notes)
