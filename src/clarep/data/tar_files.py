"""Tar files: which a pattern names, what lies where in one, and its bytes. Nothing is unpacked."""

import glob
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from clarep.data.files import SPLIT_FOLDERS, NoSplitError
from clarep.engine.artefacts import open_regular
from clarep.errors import UserError

_MOST_SHARDS = 100_000
_MOST_BRACES = 20
_HEADER_BYTES = 1 << 20  # of a header, long names included
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")


@dataclass(frozen=True)
class Member:
    """A regular file in a tar file."""

    name: str
    offset: int
    """Of its first byte."""
    size: int
    """In bytes."""


def shard_paths(pattern: str, split: str) -> list[Path]:
    """Return the tar files that a pattern names, in its order; those of a wildcard are sorted.

    Raises NoSplitError if it has none of this split, UserError if a file is missing.
    """
    own = pattern.replace("{split}", split)
    if own == pattern and split != "train":
        raise NoSplitError(
            f"wds:{pattern} is not divided into splits and counts as 'train', so there is no "
            f"split '{split}': give `split=train`, or {{split}} where the names of the shards "
            "have train or test"
        )
    if own.count("{") > _MOST_BRACES:
        raise UserError(f"wds:{pattern[:80]} ... has over {_MOST_BRACES} braces: give fewer")
    expanded = list(islice(_expanded(os.path.expanduser(own)), _MOST_SHARDS + 1))
    if len(expanded) > _MOST_SHARDS:
        raise UserError(f"wds:{pattern} stands for over {_MOST_SHARDS} files: give fewer")
    if own != pattern and not any(map(_found, expanded)):
        divided = [pattern.replace("{split}", name) for name in SPLIT_FOLDERS]
        there = [name for name in divided if any(map(_found, _expanded(os.path.expanduser(name))))]
        raise NoSplitError(
            f"wds:{pattern} has no shard of split '{split}': "
            + (f"there are {', '.join(there)}" if there else "no file has such a name")
        )
    paths = []
    for one in expanded:
        if not (found := _found(one)):
            raise UserError(f"no shard is called {one}: give wds: and a path to tar files")
        paths += found
    return paths


def _found(path: str) -> list[Path]:
    """Return the files of a path that may be a folder or hold wildcards."""
    if os.path.isdir(path):
        path = os.path.join(glob.escape(path), "*.tar")
    elif os.path.exists(path):
        return [Path(path)]
    return [Path(one) for one in sorted(glob.glob(path))] if glob.has_magic(path) else []


def _expanded(pattern: str) -> Iterator[str]:
    """Yield what a pattern stands for: {000..146} counts up, {a,b} is either; as in a shell."""
    if (braces := _BRACES.search(pattern)) is None:
        yield pattern
        return
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    if (numbers := _RANGE.fullmatch(braces[1])) is not None:
        first, last = numbers.groups()
        step = 1 if int(first) <= int(last) else -1
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        inner = (f"{i:0{width}d}" for i in range(int(first), int(last) + step, step))
    else:
        inner = (text for text in braces[1].split(","))
    for text in inner:
        yield from (before + text + rest for rest in _expanded(after))


class _Guarded:
    """A stream of which a header cannot ask more than a header has."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise ValueError(f"a header declares {size} bytes")
        return self._stream.read(size)


def members(path: Path) -> Iterator[Member]:
    """Yield the regular files in a tar file; links, devices and folders are passed over.

    Raises OSError, ValueError, or whatever tarfile does, for one that is compressed, damaged or
    cut short.
    """
    with open_regular(path) as stream:
        whole = os.fstat(stream.fileno()).st_size
        guarded: Any = _Guarded(stream)
        with tarfile.open(fileobj=guarded, mode="r:") as opened:
            archive: Any = opened
            before = -1
            while (member := archive.next()) is not None:
                archive.members = []  # which would grow
                if archive.offset <= before or member.size < 0:
                    raise ValueError(f"the header of {member.name!a} declares no size")
                before = archive.offset
                if member.offset_data + member.size > whole:
                    raise ValueError(f"it ends within {member.name!a}")
                if member.isreg() and not member.issparse():
                    yield Member(member.name, member.offset_data, member.size)
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise ValueError("a header is damaged, or the end is cut off")


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Return bytes of a file; raises OSError, also where it ends before."""
    with open_regular(path) as stream:
        stream.seek(offset)
        found = stream.read(size)
    if len(found) < size:
        raise OSError(f"{path} ends within it")
    return found
