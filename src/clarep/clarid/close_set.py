"""The end of a canonical set: one manifest of all shards, whoever wrote them."""

from collections.abc import Mapping
from typing import Any

from clarep.clarid.canonical_shards import MANIFEST, entry_name, find_manifest, read_manifest
from clarep.engine.artefacts import json_bytes
from clarep.engine.lock import briefly
from clarep.engine.places import Place


def close_set(place: Place, known: Mapping[str, Any] | None = None) -> bool:
    """Write the manifest of all shards and remove their entries, if all are there; tell so.

    known: the manifest to be completed, where there is none that can be read.
    """
    return closed(place, known) is not None


def closed(place: Place, known: Mapping[str, Any] | None) -> bool | None:
    """Do as `close_set`; False where it was closed already, None where shards are missing."""
    stored = find_manifest(place)
    if stored is None or not stored["complete"]:
        return None
    with briefly(place):
        stored = find_manifest(place)  # another part may have closed it since
        if stored is None or not stored["complete"]:
            return None
        if "findings" not in stored and known is not None and "findings" in known:
            stored["findings"] = known["findings"]
        names = place.names()
        entries = [entry_name(shard["file"]) for shard in stored["shards"]]
        left = [name for name in entries if name in names]
        if not left and _is_closed(place):
            return False
        place.write(MANIFEST, json_bytes(stored, sealed=True))
        for name in left:
            place.remove(name)
        return True


def _is_closed(place: Place) -> bool:
    try:
        return bool(read_manifest(place)["complete"])
    except (OSError, ValueError, LookupError, TypeError):
        return False
