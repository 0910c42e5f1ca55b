"""Shards and manifest of a canonical set: what is written of them, and how they are checked."""

import hashlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from clarep.clarid.clareps import TENSORS
from clarep.clarid.clarid_config import stored_in_full
from clarep.engine.artefacts import parse_json, read_json, sha256_file
from clarep.engine.cost import sum_costs
from clarep.errors import UserError

MANIFEST = "manifest.json"
FORMAT = 2  # 1 held no hash of the images that a set was made of
_KEYS = ("complete", "config", "images", "shards")
ABOUT = "clarep"  # in a shard's metadata: what it tells of its set
_SHARD_KEYS = {"file": str, "sha256": str, "images": list, "cost": dict}
_MEND = "delete it and run the same command again, which computes only what is missing"


def whole(config: dict[str, Any]) -> dict[str, Any]:
    """Return a set's configuration with all of the setting that it leaves out."""
    return config | {"clarid": stored_in_full(config.get("clarid", {}))}


def shard_entry(path: Path, tensors: dict[str, Tensor], cost: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest holds of a stored shard."""
    shown = {name: tensors[name] for name in ("latent", "sample")}
    return {
        "file": path.name,
        "sha256": sha256_file(path),
        "images": tensors["index"].tolist(),
        "ranges": {name: [float(t.min()), float(t.max())] for name, t in shown.items()},
        "cost": cost,
    }


def manifest_of(known: dict[str, Any], shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a manifest of these shards, in order; `known` is what else it holds."""
    ordered = sorted(shards, key=lambda shard: str(shard["file"]))
    return known | {
        "complete": sum(len(shard["images"]) for shard in ordered) == known["images"],
        "shards": ordered,
        "cost": sum_costs([shard["cost"] for shard in ordered]),
    }


def sha256_tensors(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of tensors and their names, without what a file holds beside them."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return hashlib.sha256(save(whole)).hexdigest()


def find_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a set's manifest; one that is lost or damaged as the shards tell it; None for no set.

    Raises UserError for another format, or a damaged manifest without a shard that tells of it.
    """
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
        if manifest["format"] == FORMAT:
            _check_manifest(manifest)
            return manifest
    except (FileNotFoundError, NotADirectoryError):
        return _rebuilt(folder)
    except (ValueError, KeyError, TypeError, OSError) as error:
        if (rebuilt := _rebuilt(folder)) is not None:
            return rebuilt
        raise UserError(
            f"cannot read {path} ({error}) and no shard beside it tells what it held: delete it "
            "and run clarep identify again, which computes all images anew, or put a copy of it "
            "back"
        ) from error
    raise UserError(
        f"{path} is of format {manifest['format']}, this clarep reads {FORMAT}: make the set "
        "again with clarep identify and another `out`"
    )


def _rebuilt(folder: Path) -> dict[str, Any] | None:
    """Return the manifest as the whole shards of the folder tell it; None if none does.

    What they cost is lost. Shards that are damaged, or of another set than the first, do not
    count: they are computed again.
    """
    first: dict[str, Any] = {}
    entries = []
    for path in sorted(folder.glob("shard-*.safetensors")):
        try:
            about, tensors = _read_shard(path)
        except UserError:
            continue
        whole = about.pop("tensors_sha256", None) == sha256_tensors(tensors)
        whole &= about.pop("file", path.name) == path.name  # else a copy of another one
        first = first or about
        if whole and about == first and about["format"] == FORMAT:
            entries.append(shard_entry(path, tensors, sum_costs([])))
    return manifest_of(first, entries) if entries else None


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


def verified(folder: Path, shard: dict[str, Any], config: dict[str, Any]) -> dict[str, Tensor]:
    """Return a shard's tensors.

    Raises UserError unless its bytes are those that were recorded, and it is of this set.
    """
    path = folder / shard["file"]
    if not path.exists():
        raise UserError(f"shard {path} is missing: run the same command again, which computes it")
    try:
        is_whole = sha256_file(path) == shard["sha256"]
    except OSError as error:
        raise UserError(f"shard {path} cannot be read ({error}): {_MEND}") from error
    if not is_whole:
        raise UserError(f"shard {path} is truncated or changed (its SHA-256 differs): {_MEND}")
    about, tensors = _read_shard(path)
    if about["config"] != config or tensors["index"].tolist() != shard["images"]:
        raise UserError(
            f"{folder / MANIFEST} does not tell what its shards hold (another configuration or "
            "other images), so one of them was changed: delete it and run the same command again, "
            "which makes it from the shards"
        )
    return tensors


def _read_shard(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a shard tells of its set, and its tensors; raises UserError if it is no shard."""
    try:
        with safe_open(path, framework="pt") as archive:
            names = set(archive.keys())
            about = parse_json((archive.metadata() or {}).get(ABOUT, "{}"))
        lacking = sorted(set(TENSORS) - names)
        if not lacking and {"format", "config", "images"} <= set(about):
            return about, load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"shard {path} cannot be read ({error}): {_MEND}") from error
    raise UserError(f"shard {path} lacks {lacking or 'the configuration of its set'}: {_MEND}")
