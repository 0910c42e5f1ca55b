"""Shards of a canonical set, their entries and the manifest: what is written, and how checked.

`manifest.json` is written when a set is begun, without shards, and at its end, with all of them.
A shard is `shard-00000.safetensors` and then its entry `shard-00000.json`; a shard without an entry
is none. Entries are folded into the manifest at the end.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from clarep.clarid.clareps import TENSORS
from clarep.clarid.clarid_config import stored_in_full
from clarep.clarid.told_images import TOLD, all_told, is_told
from clarep.engine.artefacts import json_bytes, parse_json, read_json_object, sha256_stream
from clarep.engine.cost import sum_costs
from clarep.engine.places import Place
from clarep.engine.tensors import check_header
from clarep.errors import UserError, reason

MANIFEST = "manifest.json"
FORMAT = 2  # 1 held no hash of the images that a set was made of
_KEYS = ("complete", "config", "images", "shards")
ABOUT = "clarep"  # in a shard's metadata: what it tells of its set
_SHARD_KEYS = {"file": str, "sha256": str, "images": list, "cost": dict}
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")  # of letters that every disk has
_MEND = "delete it and run the same command again, which computes only what is missing"


def whole(config: dict[str, Any]) -> dict[str, Any]:
    """Return a set's configuration with all of the setting that it leaves out."""
    return config | {"clarid": stored_in_full(config.get("clarid", {}))}


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.safetensors"


def entry_name(shard: str) -> str:
    """Return the file name of a shard's entry."""
    return Path(shard).with_suffix(".json").name


def write_shard(
    place: Place,
    name: str,
    about: Mapping[str, Any],
    tensors: dict[str, Tensor],
    noted: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a shard and then its entry; return the entry. Whichever process does so.

    about: format, config and images of its set. noted: what else the entry holds, its cost above
    all; what it tells of the images stands in the shard too.
    """
    of_images = {TOLD: noted[TOLD]} if TOLD in noted else {}
    told = {**about, "file": name, "tensors_sha256": sha256_tensors(tensors), **of_images}
    content = save(tensors, {ABOUT: json.dumps(told)})
    place.remove(entry_name(name))  # of a shard of that name that was lost: it would tell another
    place.write(name, content)
    entry = shard_entry(name, hashlib.sha256(content).hexdigest(), tensors) | dict(noted)
    place.write(entry_name(name), json_bytes(entry, sealed=True))
    return entry


def shard_entry(name: str, sha256: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return what a manifest holds of a stored shard, but for its cost."""
    shown = {name: tensors[name] for name in ("latent", "sample")}
    return {
        "file": name,
        "sha256": sha256,
        "images": tensors["index"].tolist(),
        "ranges": {name: [float(t.min()), float(t.max())] for name, t in shown.items()},
    }


def manifest_of(known: dict[str, Any], shards: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return a manifest of these shards, in order; `known` is what else it holds."""
    ordered = sorted(shards, key=lambda shard: str(shard["file"]))
    complete = sum(len(shard["images"]) for shard in ordered) == known["images"]
    cost = sum_costs([shard["cost"] for shard in ordered])
    data = all_told(known["config"], ordered) if complete else {}
    rest = {name: value for name, value in known.items() if name != "data_sha256"}
    return rest | {"complete": complete, "shards": ordered, "cost": cost} | data


def sha256_tensors(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of tensors and their names, without what a file holds beside them."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return hashlib.sha256(save(whole)).hexdigest()


def find_manifest(place: Place) -> dict[str, Any] | None:
    """Return a set's manifest with all entries; lost, as the shards tell it; None for no set.

    Raises UserError for another format, or a damaged manifest without a shard that tells of it.
    """
    try:
        manifest = read_manifest(place)
    except FileNotFoundError:
        return _rebuilt(place)
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, UserError):
            raise
        if (rebuilt := _rebuilt(place)) is not None:
            return rebuilt
        raise UserError(
            f"cannot read {place}/{MANIFEST} ({reason(error)}) and no shard beside it tells what "
            "it held: delete it and run clarep identify again, which computes all images anew, or "
            "put a copy of it back"
        ) from error
    return with_entries(place, manifest)


def read_manifest(place: Place) -> dict[str, Any]:
    """Return the manifest as it lies there.

    Raises FileNotFoundError, ValueError and others for none and damaged ones, UserError for another
    format.
    """
    try:
        with place.open(MANIFEST) as stream:
            manifest = read_json_object(stream)
    except NotADirectoryError as error:
        raise FileNotFoundError(str(place)) from error
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{place}/{MANIFEST} is of format {manifest['format']}, this clarep reads {FORMAT}: "
            "make the set again with clarep identify and another `out`"
        )
    _check_manifest(manifest)
    return manifest


def with_entries(place: Place, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with the entries that lie beside it; one that is damaged is none."""
    named = {shard["file"] for shard in manifest["shards"]}
    names = place.names()
    wanted = (n for n in names if n.startswith("shard-") and n.endswith(".safetensors"))
    found = [read_entry(place, n) for n in wanted if n not in named and entry_name(n) in names]
    return manifest_of(manifest, [*manifest["shards"], *(one for one in found if one)])


def read_entry(place: Place, name: str) -> dict[str, Any] | None:
    """Return the entry of a shard; None if there is none that can be used."""
    try:
        with place.open(entry_name(name)) as stream:
            entry = read_json_object(stream)
        _check_entry(entry, entry_name(name))
        return entry if entry["file"] == name else None
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):  # the place cannot be reached
            raise
        return None


def _rebuilt(place: Place) -> dict[str, Any] | None:
    """Return the manifest as the whole shards tell it; None if none does.

    What they cost is lost, but where their entry tells it. Shards that are damaged, or of another
    set than the first, do not count: they are computed again.
    """
    first: dict[str, Any] = {}
    entries = []
    for name in place.names():
        if not (name.startswith("shard-") and name.endswith(".safetensors")):
            continue
        try:
            about, tensors = read_shard(place, name)
            with place.open(name) as stream:
                sha256 = sha256_stream(stream)
        except (UserError, FileNotFoundError):
            continue
        is_whole = about.pop("tensors_sha256", None) == sha256_tensors(tensors)
        is_whole &= about.pop("file", name) == name  # else a copy of another one
        of_images = {TOLD: about.pop(TOLD)} if TOLD in about else {}
        first = first or about
        if is_whole and about == first and about["format"] == FORMAT:
            known = read_entry(place, name)
            if known is None or known["sha256"] != sha256:
                known = shard_entry(name, sha256, tensors) | {"cost": sum_costs([]), **of_images}
            entries += [known] if is_told(known) else []
    return manifest_of(first, entries) if entries else None


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Raise ValueError unless a manifest has the parts that are read from it."""
    if lacking := [name for name in _KEYS if name not in manifest]:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    if not isinstance(manifest["config"], dict) or not isinstance(manifest["shards"], list):
        raise ValueError("its config or its shards are not as clarep identify writes them")
    for i, shard in enumerate(manifest["shards"]):
        _check_entry(shard, f"entry {i} of its shards")


def _check_entry(shard: Any, what: str) -> None:
    if not isinstance(shard, dict) or not all(
        isinstance(shard.get(name), kind) for name, kind in _SHARD_KEYS.items()
    ):
        raise ValueError(f"{what} lacks one of {', '.join(_SHARD_KEYS)}")
    if not is_told(shard):
        raise ValueError(f"{what} does not tell each of its images by label and hash")
    if not _FILE_NAME.fullmatch(shard["file"]):
        raise ValueError(f"its shard {shard['file']!r} is not a file of this folder")
    cost, seconds = shard["cost"], shard["cost"].get("seconds")
    counts = [cost.get(name) for name in sum_costs([]) if name != "seconds"]
    spent = list(seconds.values()) if isinstance(seconds, dict) else [None]
    if not all(isinstance(number, int | float) for number in [*counts, *spent]):
        raise ValueError(f"the cost of its shard {shard['file']} is not told in numbers")


def check_shard(
    place: Place, shard: dict[str, Any], config: dict[str, Any], wanted: Iterable[str] = ("index",)
) -> dict[str, Tensor]:
    """Return some of a shard's tensors, with its `index`, copied into memory.

    Its bytes stream through the hash: where it is a file, it is never in memory as a whole.

    Raises UserError unless they are those recorded, and it is of this set.
    """
    path = f"{place}/{shard['file']}"
    try:
        with place.open(shard["file"]) as stream:
            is_whole = sha256_stream(stream) == shard["sha256"]
    except FileNotFoundError as error:
        raise UserError(
            f"shard {path} is missing: run the same command again, which computes it"
        ) from error
    except OSError as error:
        raise UserError(f"shard {path} cannot be read ({reason(error)}): {_MEND}") from error
    if not is_whole:
        raise UserError(f"shard {path} is truncated or changed (its SHA-256 differs): {_MEND}")
    about, tensors = read_shard(place, shard["file"], wanted)
    if about["config"] != config or tensors["index"].tolist() != shard["images"]:
        raise UserError(
            f"{place}/{MANIFEST} does not tell what its shards hold (another configuration or "
            "other images), so one of them was changed: delete it and run the same command again, "
            "which makes it from the shards"
        )
    return {name: tensor.clone() for name, tensor in tensors.items()}


def read_shard(
    place: Place, name: str, wanted: Iterable[str] = TENSORS
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a shard tells of its set, and some of its tensors, mapped where it is a file.

    Raises UserError if it is no shard.
    """
    path = f"{place}/{name}"
    try:
        if place.folder is not None:
            check_header(place.folder / name)
            with safe_open(place.folder / name, framework="pt") as archive:
                metadata, names = archive.metadata() or {}, set(archive.keys())
                tensors = {key: archive.get_tensor(key) for key in wanted if key in names}
        else:
            with place.open(name) as stream:
                content = stream.read()
            found = load(content)
            names = set(found)
            tensors = {key: found[key] for key in wanted if key in names}
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            metadata = header.get("__metadata__", {})
        about = _told(metadata.get(ABOUT, "{}"))
        lacking = sorted(set(TENSORS) - names)
        if not lacking and {"format", "config", "images"} <= set(about):
            return about, tensors
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"shard {path} cannot be read ({reason(error)}): {_MEND}") from error
    raise UserError(f"shard {path} lacks {lacking or 'the configuration of its set'}: {_MEND}")


def _told(text: str) -> dict[str, Any]:
    """Return what a shard tells. All shards of a set begin alike, with all its images: read once.

    Raises ValueError or TypeError for what is no JSON object.
    """
    head, comma, own = text.rpartition(', "file": ')
    if comma:
        with suppress(ValueError, TypeError):
            return {**_parsed(head + "}"), **parse_json('{"file": ' + own)}
    return dict(parse_json(text))


@lru_cache(maxsize=2)
def _parsed(text: str) -> Any:
    return parse_json(text)
