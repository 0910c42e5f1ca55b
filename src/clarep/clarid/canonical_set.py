"""`CanonicalSet`: CLAReps on disk, in safetensors shards that survive a kill.

A shard is written whole or not at all, and the manifest names only whole shards with their
SHA-256. A run that was killed goes on with the shards that are missing; because every shard's
randomness comes from the seed and its images, it ends with the same bytes.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from clarep.clarid.clarid import CLARep
from clarep.engine.artefacts import (
    as_read,
    atomic_path,
    differences,
    sha256_file,
    versions,
    write_json,
)
from clarep.engine.cost import sum_costs
from clarep.engine.lock import hold
from clarep.errors import UserError

MANIFEST = "manifest.json"
_FORMAT = 1
_KEYS = ("complete", "config", "images", "shards")
_SHARD_KEYS = {"file": str, "sha256": str, "images": list, "cost": dict}
_TENSORS = (
    "index",
    "label",
    "x_te",
    "latent",
    "singular_values",
    "features",
    "sample",
    "round_trip_psnr",
)


class CanonicalSetWriter:
    """Writes a canonical set shard by shard into a folder, or goes on with one.

    Args:
        folder: where the manifest and the shards lie.
        config: everything that determines the content (JSON values only); a folder that holds
            another configuration is refused.
        chosen: indices of the images, in the order in which they are stored.
        shard_size: images a shard.

    Raises:
        UserError: if the folder holds a set of another configuration, a shard whose bytes are
            not those that its manifest recorded, or is written in by another process.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], chosen: Sequence[int], shard_size: int
    ) -> None:
        self.folder = folder
        groups = [list(chosen[i : i + shard_size]) for i in range(0, len(chosen), shard_size)]
        self._groups = {f"shard-{i:05d}.safetensors": group for i, group in enumerate(groups)}
        self._manifest: dict[str, Any] = {
            "format": _FORMAT,
            "complete": False,
            "config": as_read(config),
            "images": len(chosen),
            "shards": [],
        }
        self._lock = hold(folder)
        if (folder / MANIFEST).exists():
            self._resume()
        else:
            self._write_manifest()

    @property
    def findings(self) -> dict[str, Any] | None:
        """What `record` kept, by an earlier run too."""
        found: dict[str, Any] | None = self._manifest.get("findings")
        return found

    def record(self, findings: dict[str, Any]) -> None:
        """Keep in the manifest what was found of teacher and images; it is no part of the set."""
        self._manifest["findings"] = as_read(findings)
        self._write_manifest()

    def missing(self) -> Iterator[tuple[str, list[int]]]:
        """Yield (name, image indices) of every shard that is not stored yet."""
        stored = {shard["file"] for shard in self._manifest["shards"]}
        for name, group in self._groups.items():
            if name not in stored:
                yield name, group

    def add(self, name: str, reps: Sequence[CLARep], cost: dict[str, Any]) -> None:
        """Store the CLAReps of one of `missing`'s shards, and what they cost."""
        tensors = {
            field: torch.stack([torch.as_tensor(getattr(rep, field)) for rep in reps]).contiguous()
            for field in _TENSORS
        }
        path = self.folder / name
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors))
        self._manifest["shards"].append(
            {
                "file": name,
                "sha256": sha256_file(path),
                "images": [rep.index for rep in reps],
                "ranges": {field: _range(tensors[field]) for field in ("latent", "sample")},
                "cost": cost,
                "versions": versions(),  # a resumed run may have others than its start
            }
        )
        self._manifest["shards"].sort(key=lambda shard: shard["file"])
        self._manifest["complete"] = len(self._manifest["shards"]) == len(self._groups)
        self._manifest["cost"] = sum_costs([shard["cost"] for shard in self._manifest["shards"]])
        self._write_manifest()

    def _resume(self) -> None:
        stored = _read_manifest(self.folder)
        if not stored["shards"]:  # nothing worth keeping, whatever its configuration
            self._write_manifest()
            return
        difference = differences(stored["config"], self._manifest["config"])
        if difference:
            raise UserError(
                f"{self.folder} holds a canonical set of another configuration ({difference}): "
                "give another --out, or the options it was started with"
            )
        present = [s for s in stored["shards"] if (self.folder / s["file"]).exists()]
        for shard in present:
            _verify(self.folder, shard)
        self._manifest = stored | {"shards": present}

    def _write_manifest(self) -> None:
        write_json(self.folder / MANIFEST, self._manifest)


@dataclass(frozen=True)
class CanonicalSet:
    """A stored canonical set, all tensors in memory, in the order of `index`.

    `CanonicalSet.load(folder)` verifies every shard.
    """

    folder: Path
    """Where it was loaded from."""
    manifest: dict[str, Any]
    """Configuration, versions, shards with hashes and ranges, cost."""
    tensors: dict[str, Tensor]
    """index, label (N,) int64; x_te, latent (N, C, H, W); singular_values (N, k); features
    (N, ...); sample (N, C, H, W), about [-1, 1]; round_trip_psnr (N,), dB."""

    @classmethod
    def load(cls, folder: Path | str) -> "CanonicalSet":
        """Load a complete set.

        Raises UserError if there is none, if it is incomplete, or if a shard is missing,
        truncated, or of another hash than recorded.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        if not manifest["complete"]:
            done = sum(len(shard["images"]) for shard in manifest["shards"])
            raise UserError(
                f"{folder} is incomplete ({done} of {manifest['images']} images): "
                "run the same command again, it goes on where it stopped"
            )
        for shard in manifest["shards"]:
            _verify(folder, shard)
        shards = [load_file(folder / shard["file"]) for shard in manifest["shards"]]
        tensors = {name: torch.cat([shard[name] for shard in shards]) for name in _TENSORS}
        return cls(folder, manifest, tensors)

    def __len__(self) -> int:
        return len(self.tensors["index"])

    def balanced(self, count: int) -> "CanonicalSet":
        """Return at most `count` of the set, evenly from the classes, each class's first ones."""
        labels = self.tensors["label"]
        rank = torch.stack([(labels[: i + 1] == label).sum() for i, label in enumerate(labels)])
        # By rank within the class, then by class; a stable sort keeps the choice reproducible.
        order = torch.argsort(rank * (int(labels.max()) + 1) + labels, stable=True)
        kept = order[:count]
        return replace(self, tensors={name: t[kept] for name, t in self.tensors.items()})

    def __getitem__(self, i: int) -> CLARep:
        """Return the i-th CLARep, in the order of storage."""
        config = self.manifest["config"]
        stored: dict[str, Any] = {name: tensor[i] for name, tensor in self.tensors.items()}
        for name, kind in (("index", int), ("label", int), ("round_trip_psnr", float)):
            stored[name] = kind(stored[name])
        return CLARep(sigma_te=config["sigma_te"], tap=config["tap"], **stored)


def _range(tensor: Tensor) -> list[float]:
    return [float(tensor.min()), float(tensor.max())]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        known = manifest["format"] == _FORMAT
        if known:
            _check_manifest(manifest)
    except FileNotFoundError:
        inside = folder / "canon"
        mend = (
            f"the set is in {inside}, give that"
            if (inside / MANIFEST).exists()
            else "give a folder that clarep identify wrote, its canon/"
        )
        raise UserError(f"{folder} holds no canonical set (no {MANIFEST}): {mend}") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"cannot read {path} ({error}): delete it and run clarep identify again, which "
            "computes all images anew, or put a copy of it back"
        ) from error
    if not known:
        raise UserError(f"{path} is of format {manifest['format']}, this clarep reads {_FORMAT}")
    return manifest


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Raise ValueError unless a manifest has the parts that are read from it."""
    if lacking := [name for name in _KEYS if name not in manifest]:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    if not isinstance(manifest["config"], dict) or not isinstance(manifest["shards"], list):
        raise ValueError("its config or its shards are not as clarep identify writes them")
    for i, shard in enumerate(manifest["shards"]):
        if not isinstance(shard, dict) or not all(
            isinstance(shard.get(name), kind) for name, kind in _SHARD_KEYS.items()
        ):
            raise ValueError(f"entry {i} of its shards lacks one of {', '.join(_SHARD_KEYS)}")
        if Path(shard["file"]).name != shard["file"]:
            raise ValueError(f"its shard {shard['file']} is not a file of this folder")


def _verify(folder: Path, shard: dict[str, Any]) -> None:
    """Raise UserError unless the shard's bytes are those that were recorded."""
    path = folder / shard["file"]
    mend = "delete it and run the same command again, which computes only what is missing"
    if not path.exists():
        raise UserError(f"shard {path} is missing: run the same command again, which computes it")
    if sha256_file(path) != shard["sha256"]:
        raise UserError(f"shard {path} is truncated or changed (its SHA-256 differs): {mend}")
    try:
        with safe_open(path, framework="pt") as archive:
            names = set(archive.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(f"shard {path} cannot be read ({error}): {mend}") from error
    if not set(_TENSORS) <= names:
        raise UserError(f"shard {path} lacks {sorted(set(_TENSORS) - names)}: {mend}")
