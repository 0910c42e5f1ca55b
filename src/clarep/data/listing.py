"""Which files of class folders are their images, and which are passed over or come by a link."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from clarep.data.decode_image import image_formats
from clarep.data.names import Names
from clarep.errors import UserError

_NO_CLASSES = {  # what systems and tools leave in any folder, beside what is hidden
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "__MACOSX",
    "lost+found",
}
_NAMED = 3  # examples in a note


@dataclass
class Counted:
    """How many files were found, and the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)
    """One more than are named."""

    def add(self, found: list[str]) -> None:
        """Count those of one more class."""
        self.count += len(found)
        self.first = [*self.first, *sorted(found)[: _NAMED + 1]][: _NAMED + 1]


@dataclass
class Listing:
    """What was found in the class folders of one folder; grows with every `add_class`."""

    root: Path
    """The folder of class folders, or of train/, test/, val/."""
    images: Names = field(default_factory=Names)
    """Paths by class, sorted within each."""
    passed_over: Counted = field(default_factory=Counted)
    """Files of unknown ending, images in no class, links to folders that are read already."""
    linked: Counted = field(default_factory=Counted)
    """Images whose path leads out of their class folder by a link."""
    absent: list[str] = field(default_factory=list)
    """Classes of another split that have no folder here, perhaps for want of the same spelling."""

    def add_class(self, folder: Path) -> int:
        """List the images in a class folder and below; return how many there are.

        Links are followed, but no folder is read twice, and none that holds the link itself.
        Hidden files and folders do not count. Raises UserError for a folder that cannot be
        listed, or where no image is found.
        """
        home = os.path.join(os.path.realpath(self.root), folder.relative_to(self.root))
        images, linked, passed_over = list[str](), list[str](), list[str]()
        seen, waiting = set[str](), [str(folder)]
        while waiting:
            inner = waiting.pop()
            real = os.path.realpath(inner)
            if real in seen or _is_within(os.path.realpath(os.path.dirname(inner)), real):
                passed_over.append(inner)
                continue
            seen.add(real)
            is_outside = not _is_within(real, home)
            folders = list[str]()
            for entry in _entries(inner):
                if _is_folder(entry):
                    folders += [entry.path] if _may_be_class(entry.name) else []
                elif not _is_image(entry.name):
                    passed_over.append(entry.path)
                else:
                    images.append(entry.path)
                    out = entry.is_symlink() and not _is_within(os.path.realpath(entry.path), home)
                    linked += [entry.path] if is_outside or out else []
            waiting += sorted(folders, reverse=True)
        self.passed_over.add(passed_over)
        self.linked.add(linked)
        if not images:
            told = f" ({self.notes()[-1]})" if passed_over else ""
            raise UserError(f"{folder} holds no images: add some or remove the folder{told}")
        self.images.extend(sorted(images))
        return len(images)

    def pass_over_loose(self, folder: Path) -> None:
        """Note the images beside the class folders."""
        loose = [entry for entry in _entries(folder) if not _is_folder(entry)]
        self.passed_over.add([entry.path for entry in loose if _is_image(entry.name)])

    def notes(self) -> tuple[str, ...]:
        """Say what was passed over, and what comes from elsewhere; a sentence each."""
        notes = []
        if self.absent:
            notes.append(
                f"{len(self.absent)} classes of {_text(self.root)} have no folder in this split, "
                f"but in another: {_named(self.absent)}"
            )
        if self.linked.count:
            first = self.linked.first[0]
            real = _text(os.path.realpath(first))
            notes.append(
                f"{self.linked.count} of the {len(self.images)} images of {_text(self.root)} come "
                f"by links that lead out of their class folder, first {_text(first)} ({real})"
            )
        if self.passed_over.count:
            named = _named([os.path.relpath(path, self.root) for path in self.passed_over.first])
            notes.append(
                f"{self.passed_over.count} of the files and links in {_text(self.root)} are passed "
                f"over: {named} (no image format has such an ending, they lie in "
                "no class folder, or they lead nowhere or to a folder that is read already)"
            )
        return tuple(notes)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders that may be classes. Raises UserError if `folder` cannot be listed."""
    return [
        entry.name for entry in _entries(folder) if _is_folder(entry) and _may_be_class(entry.name)
    ]


def _may_be_class(name: str) -> bool:
    return name not in _NO_CLASSES


def _entries(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    """Yield what a folder holds that is not hidden."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if entry.name[0] != ".")
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder or leads to one; a link to itself, on which is_dir raises, is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _text(path: Path | str) -> str:
    """A path for a message; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in image_suffixes()


def _named(found: Sequence[str]) -> str:
    return ", ".join(map(_text, found[:_NAMED])) + (", ..." if len(found) > _NAMED else "")


@cache
def image_suffixes() -> frozenset[str]:
    """Endings of the formats that are read, in small letters, with their dot."""
    formats, read = Image.registered_extensions(), image_formats()
    return frozenset(suffix for suffix, kind in formats.items() if kind in read)
