"""`CanonicalSet`: CLAReps on disk, in safetensors shards that survive a kill.

A shard is written whole or not at all, and the manifest names only whole shards with their
SHA-256. A run that was killed goes on with the shards that are missing; because every shard's
randomness comes from the seed and its images, it ends with the same bytes. Each shard tells the
set's configuration, its own name and a hash of its tensors, so that a lost manifest can be made
again.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from clarep.clarid.canonical_shards import (
    ABOUT,
    FORMAT,
    MANIFEST,
    find_manifest,
    manifest_of,
    sha256_tensors,
    shard_entry,
    verified,
    whole,
)
from clarep.clarid.clareps import TENSORS, CLAReps
from clarep.engine.artefacts import atomic_path, read_json, versions, write_json
from clarep.engine.identity import plain, refuse_other
from clarep.engine.lock import hold
from clarep.errors import UserError

__all__ = ["MANIFEST", "CanonicalSet", "CanonicalSetWriter"]


class CanonicalSetWriter:
    """Writes a canonical set shard by shard into a folder, or goes on with one.

    Args:
        folder: where the manifest and the shards lie.
        config: everything that determines the content (JSON values only); a folder that holds
            another configuration is refused. A manifest that is lost or damaged is made again
            from the shards, but for what they cost.
        chosen: indices of the images, in the order in which they are stored.
        shard_size: images a shard.

    Raises:
        UserError: if the folder holds a set of another configuration, a shard whose bytes are
            not those that its manifest recorded, or is written in by another process.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], chosen: Sequence[int], shard_size: int
    ) -> None:
        self.folder = folder
        groups = [list(chosen[i : i + shard_size]) for i in range(0, len(chosen), shard_size)]
        self._groups = {f"shard-{i:05d}.safetensors": group for i, group in enumerate(groups)}
        self._manifest: dict[str, Any] = {
            "format": FORMAT,
            "complete": False,
            "config": plain(dict(config)),
            "images": len(chosen),
            "shards": [],
        }
        self._lock = hold(folder)
        stored = find_manifest(folder)
        if stored is not None and stored["shards"]:  # else nothing is worth keeping
            self._resume(stored)
        try:
            written = read_json(folder / MANIFEST)
        except (OSError, ValueError):  # none yet, or a damaged one
            written = {}
        if written != self._manifest:
            self._write_manifest()

    @property
    def findings(self) -> dict[str, Any] | None:
        """What `record` kept, by an earlier run too."""
        found: dict[str, Any] | None = self._manifest.get("findings")
        return found

    def record(self, findings: dict[str, Any]) -> None:
        """Keep in the manifest what was found of teacher and images; it is no part of the set."""
        self._manifest["findings"] = plain(findings)
        self._write_manifest()

    def missing(self) -> Iterator[tuple[str, list[int]]]:
        """Yield (name, image indices) of every shard that is not stored yet."""
        stored = {shard["file"] for shard in self._manifest["shards"]}
        for name, group in self._groups.items():
            if name not in stored:
                yield name, group

    def add(self, name: str, parts: Sequence[CLAReps], cost: dict[str, Any]) -> None:
        """Store the CLAReps of one of `missing`'s shards, and what they cost."""
        tensors = {
            field: torch.cat([getattr(part, field) for part in parts]).contiguous()
            for field in TENSORS
        }
        path = self.folder / name
        with atomic_path(path) as temporary:
            about = {key: self._manifest[key] for key in ("format", "config", "images")}
            about |= {"file": name, "tensors_sha256": sha256_tensors(tensors)}
            temporary.write_bytes(save(tensors, {ABOUT: json.dumps(about)}))
        # A resumed run may have other versions than its start.
        entry = shard_entry(path, tensors, cost) | {"versions": versions()}
        self._manifest = manifest_of(self._manifest, [*self._manifest["shards"], entry])
        self._write_manifest()

    def _resume(self, stored: dict[str, Any]) -> None:
        both = (whole(config) for config in (stored["config"], self._manifest["config"]))
        refuse_other(self.folder, "a canonical set", *both)
        present = [s for s in stored["shards"] if (self.folder / s["file"]).exists()]
        for shard in present:
            verified(self.folder, shard, stored["config"])
        self._manifest = manifest_of(stored, present)

    def _write_manifest(self) -> None:
        write_json(self.folder / MANIFEST, self._manifest, sealed=True)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CanonicalSet(CLAReps):
    """`CLAReps` that lie in a folder, in the order of `index`.

    `CanonicalSet.load(folder)` verifies every shard.
    """

    folder: Path
    """Where it was loaded from."""
    manifest: dict[str, Any]
    """Configuration, versions, shards with hashes and ranges, cost."""

    @classmethod
    def load(cls, folder: Path | str) -> "CanonicalSet":
        """Load a complete set.

        Raises UserError if there is none, if it is incomplete, or if a shard is missing,
        truncated, or of another hash or another set than recorded.
        """
        folder = Path(folder)
        manifest = find_manifest(folder)
        if manifest is None:
            inside = folder / "canon"
            mend = (
                f"the set is in {inside}, give that"
                if (inside / MANIFEST).exists()
                else "give a folder that clarep identify wrote, its canon/"
            )
            raise UserError(f"{folder} holds no canonical set (no {MANIFEST}): {mend}")
        done = sum(len(shard["images"]) for shard in manifest["shards"])
        if not manifest["complete"] or done != manifest["images"]:
            raise UserError(
                f"{folder} is incomplete ({done} of {manifest['images']} images): "
                "run the same command again, it goes on where it stopped"
            )
        config = manifest["config"]
        shards = [verified(folder, shard, config) for shard in manifest["shards"]]
        tensors = {name: torch.cat([shard[name] for shard in shards]) for name in TENSORS}
        return cls(**tensors, config=config, folder=folder, manifest=manifest)

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
