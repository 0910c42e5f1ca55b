"""`CanonicalSet`: CLAReps on disk, in safetensors shards that survive a kill.

A shard is written whole or not at all, and is told by an entry with its SHA-256 that is written
after it. A run that was killed goes on with the shards that have none; because every shard's
randomness comes from the seed and its images, it ends with the same bytes, and so do several
processes that write a part each. Each shard tells the set's configuration, its own name and a hash
of its tensors, so that a lost manifest can be made again.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.canonical_shards import (
    FORMAT,
    MANIFEST,
    check_shard,
    find_manifest,
    manifest_of,
    read_manifest,
    shard_name,
    whole,
    write_shard,
)
from clarep.clarid.clareps import TENSORS, CLAReps, named_rows
from clarep.clarid.close_set import closed
from clarep.clarid.shard_rows import ShardRows
from clarep.engine.artefacts import json_bytes, versions
from clarep.engine.hub import checkpoint_folder
from clarep.engine.identity import plain, refuse_other
from clarep.engine.lock import AddressLock, briefly, hold_place
from clarep.engine.places import Place, place_of
from clarep.errors import UserError

__all__ = ["MANIFEST", "CanonicalSet", "CanonicalSetWriter"]


_COLUMNS = ("index", "label", "singular_values", "round_trip_psnr")  # small: always in memory


class CanonicalSetWriter:
    """Writes a canonical set shard by shard, or goes on with one; several parts may do so at once.

    Args:
        folder: where the manifest and the shards lie, or an address of such a place.
        config: everything that determines the content (JSON values only); a folder that holds
            another configuration is refused. A manifest that is lost or damaged is made again
            from the shards.
        chosen: indices of the images, in the order in which they are stored.
        shard_size: images a shard.
        part: I of N, from 1: this writer's shards are every N-th, and another process may write
            another part. None: all are.

    Raises:
        UserError: if the folder holds a set of another configuration, a shard of this part whose
            bytes are not those that were recorded, or is written in by another process.
    """

    def __init__(
        self,
        folder: Path | str,
        config: Mapping[str, Any],
        chosen: Sequence[int],
        shard_size: int,
        part: tuple[int, int] | None = None,
    ) -> None:
        self.place = place_of(folder)
        groups = [list(chosen[i : i + shard_size]) for i in range(0, len(chosen), shard_size)]
        number, parts = part or (1, 1)
        self._groups = {
            shard_name(i): group for i, group in enumerate(groups) if i % parts == number - 1
        }
        self._manifest: dict[str, Any] = {
            "format": FORMAT,
            "complete": False,
            "config": plain(dict(config)),
            "images": len(chosen),
            "shards": [],
        }
        self._lock = hold_place(self.place, part)
        self.closed_here = False
        """Whether `finish` closed the set, rather than another part or an earlier run."""
        self._take_up()
        for shard in self.stored():
            check_shard(self.place, shard, self._manifest["config"])
        self._stored = {shard["file"] for shard in self._manifest["shards"]}
        if self._groups and not self._lies_there():
            self._write_manifest()

    @property
    def findings(self) -> dict[str, Any] | None:
        """What `record` kept, by an earlier run too."""
        found: dict[str, Any] | None = self._manifest.get("findings")
        return found

    @property
    def images(self) -> int:
        """How many images this part's shards hold when all are there."""
        return sum(map(len, self._groups.values()))

    @property
    def about(self) -> dict[str, Any]:
        """What each shard tells of its set, for `write_shard`."""
        return {key: self._manifest[key] for key in ("format", "config", "images")}

    def record(self, findings: dict[str, Any]) -> None:
        """Keep in the manifest what was found of teacher and images; it is no part of the set."""
        self._write_manifest(findings=plain(findings))

    def stored(self) -> list[dict[str, Any]]:
        """Return the entries of this part's shards that are stored."""
        return [shard for shard in self._manifest["shards"] if shard["file"] in self._groups]

    def missing(self) -> Iterator[tuple[str, list[int]]]:
        """Yield (name, image indices) of every shard of this part that is not stored yet."""
        for name, group in self._groups.items():
            if name not in self._stored:
                yield name, group

    def add(self, name: str, parts: Sequence[CLAReps], cost: dict[str, Any]) -> None:
        """Store the CLAReps of one of `missing`'s shards, and what they cost."""
        store_shard(self.place, name, self.about, parts, {"cost": cost})
        self._stored.add(name)

    def finish(self) -> bool:
        """Close the set if all its shards are there, of all parts; tell whether it is closed."""
        closed_now = closed(self.place, self._manifest)
        self.closed_here = bool(closed_now)
        if isinstance(self._lock, AddressLock):
            self._lock.release()
        return closed_now is not None

    def _take_up(self) -> None:
        """Take up what lies there of the set, of all parts."""
        stored = find_manifest(self.place)
        if stored is None:
            return
        ours, theirs = whole(self._manifest["config"]), whole(stored["config"])
        if not stored["shards"]:  # of another configuration, nothing is worth keeping
            if ours == theirs and "findings" in stored:
                self._manifest.setdefault("findings", stored["findings"])
            return
        refuse_other(Path(str(self.place)), "a canonical set", theirs, ours)
        names = set(self.place.names())
        present = [shard for shard in stored["shards"] if shard["file"] in names]
        known = {key: self._manifest[key] for key in ("findings",) if key in self._manifest}
        self._manifest = manifest_of(known | stored, present)

    def _lies_there(self) -> bool:
        """Tell whether the manifest there says of the set what this one does.

        Shards that it lacks have their entries beside it.
        """
        try:
            written = read_manifest(self.place)
        except (OSError, ValueError, LookupError, TypeError):  # none yet, or a damaged one
            return False
        same = all(written.get(key) == self._manifest.get(key) for key in ("config", "findings"))
        return same and {shard["file"] for shard in written["shards"]} <= self._stored

    def _write_manifest(self, **more: Any) -> None:
        """Write it with all that other parts have written, or closed, since it was read."""
        with briefly(self.place):
            self._take_up()
            self._manifest |= more
            self.place.write(MANIFEST, json_bytes(self._manifest, sealed=True))


def store_shard(
    place: Place,
    name: str,
    about: Mapping[str, Any],
    parts: Sequence[CLAReps],
    noted: Mapping[str, Any],
) -> None:
    """Store the CLAReps of a shard, in whatever process; about, noted: as of `write_shard`."""
    tensors = {
        field: torch.cat([getattr(part, field) for part in parts]).contiguous() for field in TENSORS
    }
    # Another part, or a resumed run, may have other versions.
    write_shard(place, name, about, tensors, {**noted, "versions": versions()})


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CanonicalSet(CLAReps):
    """`CLAReps` that lie in a folder, in the order of `index`.

    `CanonicalSet.load(folder)` verifies every shard, and leaves it where it is: rows
    (`canonical[2:5]`, `canonical.balanced(10)`) are read when they are asked for. A whole tensor,
    `canonical.sample`, is read when it is first asked for, and kept.
    """

    folder: Path
    """Where it was loaded from; of an address such as `s3://...` see `place_of`."""
    manifest: dict[str, Any]
    """Configuration, versions, shards with hashes and ranges, cost."""
    shards: ShardRows | None = None
    """Where the tensors are read from that are not in memory; None where all are."""

    @classmethod
    def load(cls, folder: Path | str) -> "CanonicalSet":
        """Load a complete set.

        Raises UserError if there is none, if it is incomplete, or if a shard is missing,
        truncated, or of another hash or another set than recorded.
        """
        place = place_of(folder)
        manifest = find_manifest(place)
        if manifest is None:
            inside = place / "canon"
            mend = (
                f"the set is in {inside}, give that"
                if MANIFEST in inside.names()
                else "give a folder that clarep identify wrote, its canon/"
            )
            raise UserError(f"{place} holds no canonical set (no {MANIFEST}): {mend}")
        done = sum(len(shard["images"]) for shard in manifest["shards"])
        if not manifest["complete"] or done != manifest["images"]:
            raise UserError(
                f"{place} is incomplete ({done} of {manifest['images']} images): "
                "run the same command again, it goes on where it stopped"
            )
        config = manifest["config"]
        found = [check_shard(place, shard, config, _COLUMNS) for shard in manifest["shards"]]
        columns = {name: torch.cat([one[name] for one in found]) for name in _COLUMNS}
        if "data_sha256" in manifest:  # it was not known when the set was begun
            config = config | {"data_sha256": manifest["data_sha256"]}
            manifest = manifest | {"config": config}
        rows = ShardRows(place, manifest["shards"])
        given = {"config": config, "folder": Path(folder), "manifest": manifest, "shards": rows}
        canonical = object.__new__(cls)  # the other tensors are not there yet: see __getattr__
        for name, value in (columns | given).items():
            object.__setattr__(canonical, name, value)
        return canonical

    @classmethod
    def from_pretrained(cls, place: str) -> "CanonicalSet":
        """Load a set of the Hugging Face hub that `push_to_hub` put there.

        Args:
            place: OWNER/NAME or OWNER/NAME@REVISION of a data set, or a folder.

        Raises:
            UserError: without huggingface_hub, or if there is none, or a damaged one.
        """
        return cls.load(checkpoint_folder(place, repo_type="dataset"))

    if not TYPE_CHECKING:  # or any name would pass for an attribute

        def __getattr__(self, name: str) -> Any:
            """Read a tensor that is not in memory yet."""
            shards = self.__dict__.get("shards")
            if shards is None or name not in TENSORS:
                raise AttributeError(f"{type(self).__name__} has no attribute {name}")
            whole = shards.whole(name)
            object.__setattr__(self, name, whole)
            return whole

    def __getitem__(
        self, rows: int | slice | Sequence[int] | Tensor | NDArray[Any]
    ) -> "CanonicalSet":
        """Return those at some rows, in memory. As `CLAReps` otherwise."""
        if self.shards is None:
            return super().__getitem__(rows)
        chosen = named_rows(len(self), rows)
        kept: dict[str, Any] = {
            name: self.__dict__[name][chosen]
            if name in self.__dict__
            else self.shards.take(name, chosen)
            for name in TENSORS
        }
        return replace(self, **kept, shards=None)

    def by_shard(self, *names: str) -> Iterator[tuple[Tensor, ...]]:
        """Yield some tensors by their names, shard by shard: never all in memory."""
        if self.shards is None:
            yield tuple(getattr(self, name) for name in names)
        else:
            yield from self.shards.by_shard(*names)

    @property
    def sha256(self) -> str:
        """SHA-256 of the content: configuration and all shards, not what they cost."""
        shards = [shard["sha256"] for shard in self.manifest["shards"]]
        content = json.dumps([self.manifest["config"], shards], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def setting(self) -> dict[str, Any]:
        """Fields of `ClaridConfig` that it was made with, those of defaults too."""
        setting: dict[str, Any] = whole(self.manifest["config"])["clarid"]
        return setting
