"""A canonical set: hashes, ranges, NaN, duplicates, counts, and its data where they are given."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.canonical_shards import (
    MANIFEST,
    check_shard,
    entry_name,
    find_manifest,
    manifest_of,
    read_manifest,
    read_shard,
    sha256_tensors,
    shard_entry,
)
from clarep.clarid.clareps import TENSORS
from clarep.clarid.set_pictures import PICTURES, read_pictures
from clarep.clarid.told_images import refuse_changed, unread
from clarep.data.labelled import LabelledImages
from clarep.engine.artefacts import json_bytes
from clarep.engine.lock import hold_place
from clarep.engine.places import Place
from clarep.errors import UserError, said_by
from clarep.report.verify.faults import Fault, not_finite

_NUMBERS = ("x_te", "latent", "features", "sample")  # which have no reason for NaN
_AGAIN = "run the same command again"
_OWN = re.compile(r"(shard-\d{5,})\.(safetensors|json)")


def is_set(place: Place) -> bool:
    """Tell whether shards lie there, or a manifest of such."""
    names = place.names()
    if any(name.startswith("shard-") and name.endswith(".safetensors") for name in names):
        return True
    try:
        return MANIFEST in names and "images" in read_manifest(place)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def set_faults(place: Place, data: LabelledImages | None = None) -> Iterator[Fault]:
    """Yield all that is wrong with a set. data: that it is said to be of."""
    path = f"{place}/{MANIFEST}"
    try:
        written = read_manifest(place)
    except FileNotFoundError:
        written = None
        yield Fault(path, f"it is missing: {_AGAIN}, or repair makes it from the shards")
    except (OSError, ValueError, LookupError, TypeError) as error:
        written = None
        said = f"it cannot be read ({said_by(error)})"
        yield Fault(path, f"{said}: {_AGAIN}, or repair makes it again")
    try:
        manifest = find_manifest(place)
    except UserError as error:
        yield Fault(path, str(error))
        return
    if manifest is None:
        yield Fault(str(place), f"no shard in it is whole: {_AGAIN}")
        return
    config = manifest["config"]
    wrong = {shard["file"]: _shard_fault(place, shard, config) for shard in manifest["shards"]}
    faults = {name: what for name, what in wrong.items() if what}
    for name, what in faults.items():
        yield Fault(f"{place}/{name}", what)
    named = {shard["file"] for shard in manifest["shards"]}
    for name in place.names():
        if name.startswith("shard-") and name.endswith(".safetensors") and name not in named:
            yield Fault(f"{place}/{name}", f"no entry tells of it, as after a kill: {_AGAIN}")
    yield from _count_faults(place, manifest, closed=bool(written and written["complete"]))
    if not faults and manifest["complete"] and PICTURES in place.names():
        try:
            read_pictures(CanonicalSet.load(str(place)))
        except UserError as error:
            yield Fault(f"{place}/{PICTURES}", str(error))
    if data is not None:
        yield from _data_faults(path, manifest, data)


def _shard_fault(place: Place, shard: dict[str, Any], config: dict[str, Any]) -> str:
    """Say what is wrong with a shard; empty if nothing is."""
    try:
        check_shard(place, shard, config)
        about, tensors = read_shard(place, shard["file"], TENSORS)
    except UserError as error:
        return str(error)
    if about.get("tensors_sha256") != sha256_tensors(tensors):
        return f"its tensors are not those that were written: delete it and {_AGAIN}"
    if lost := not_finite({name: tensors[name] for name in _NUMBERS}):
        return f"{', '.join(lost)} hold NaN or infinity: make it with a teacher that gives none"
    classes = len(config.get("class_names") or []) or None
    labels = tensors["label"]
    if int(labels.min()) < 0 or (classes and int(labels.max()) >= classes):
        return f"its labels are not those of the {classes} classes of the set: {_AGAIN}"
    ranges = shard_entry(shard["file"], "", tensors)["ranges"]
    if shard.get("ranges", ranges) != ranges:
        return f"its values are not in the ranges that its entry tells: {_AGAIN}"
    return ""


def _count_faults(place: Place, manifest: dict[str, Any], *, closed: bool) -> Iterator[Fault]:
    shards, images = manifest["shards"], manifest["images"]
    found = [image for shard in shards for image in shard["images"]]
    chosen = manifest["config"].get("chosen")
    if twice := [image for image, count in Counter(found).items() if count > 1]:
        yield Fault(f"{place}/{MANIFEST}", f"images {twice[:5]} are in it twice: {_AGAIN}")
    elif chosen is not None and set(found) - set(chosen):
        yield Fault(f"{place}/{MANIFEST}", f"it holds images that were not chosen: {_AGAIN}")
    elif chosen is not None and len(found) == images and found != chosen:
        yield Fault(f"{place}/{MANIFEST}", f"its images are not in the order chosen: {_AGAIN}")
    if not manifest["complete"]:
        what = f"it is incomplete ({len(found)} of {images} images): {_AGAIN}"
        yield Fault(str(place), what, goes_on=True)
    elif not closed:
        yield Fault(str(place), "all shards are there and it is not closed: give `finish`")
    left = {entry_name(shard["file"]) for shard in shards} & set(place.names())
    if closed and left:
        yield Fault(str(place), "entries lie beside a complete manifest: give `finish`")


def _data_faults(path: str, manifest: dict[str, Any], data: LabelledImages) -> Iterator[Fault]:
    config = manifest["config"]
    chosen: list[int] = config.get("chosen") or []
    content = manifest.get("data_sha256", config.get("data_sha256"))
    if chosen and max(chosen) >= len(data):
        yield Fault(path, f"it is of image {max(chosen)} and {data.name} has {len(data)}")
        return
    is_unread = isinstance(content, dict)
    known = unread(data, np.array(chosen, int)) if is_unread else data.sha256(chosen)
    if content not in (None, known):
        yield Fault(path, f"it is of other images or labels than {data.name}: give those")
    elif is_unread:
        try:
            refuse_changed(manifest["shards"], data)
        except UserError as error:
            yield Fault(path, str(error))


def mend_set(place: Place) -> list[str]:
    """Drop the shards that are not whole and write a manifest of the others; say what was done."""
    _lock = hold_place(place)
    try:
        known = read_manifest(place)
    except (OSError, ValueError, LookupError, TypeError):
        known = {}
    stored, done = find_manifest(place), []
    if stored is None:
        return []
    kept = []
    for shard in stored["shards"]:
        if not _shard_fault(place, shard, stored["config"]):
            kept.append(shard)
    told = {shard["file"] for shard in kept}
    for name in place.names():
        own = _OWN.fullmatch(name)
        if own and f"{own[1]}.safetensors" not in told:
            place.remove(name)
            done.append(f"dropped {place}/{name}")
    mended = manifest_of(stored, kept)
    # A shard that is not there at all leaves nothing to drop.
    if done or len(kept) < len(stored["shards"]) or not known or not known["complete"]:
        place.write(MANIFEST, json_bytes(mended, sealed=True))
        done.append(f"wrote {place}/{MANIFEST} of {len(kept)} whole shards")
        for name in told:
            place.remove(entry_name(name))
    if mended["complete"] and PICTURES in place.names():
        try:
            read_pictures(CanonicalSet.load(str(place)))
        except UserError:
            place.remove(PICTURES)
            done.append(f"dropped {place}/{PICTURES}")
    return done
