"""What a stored artefact follows from, told short, and held against what is given now.

Of every config what differs from its defaults is stored, so that a new option leaves alone
whatever was stored before it came. A default that changes is told by `DEFAULTS`. Full forms, as
earlier versions wrote them, are read as equal.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from clarep.errors import UserError

DEFAULTS = 1
"""Version of all defaults: raised when one changes, as what is not recorded then means another."""
_DIGITS = 12
_DECIDES = {
    **dict.fromkeys(("data", "data_options", "skipped", "data_notes"), "data_sha256"),
    **dict.fromkeys(("teacher", "teacher_options"), "teacher_sha256"),
    "audit_sha256": "audit_read_sha256",
    "place": "sha256",
}
"""What says where a content was found -> its hash: where that agrees, so does the content."""
_INSTEAD = {"audit_read_sha256": "audit_sha256"}
"""Hash that earlier versions did not store -> the one that told more than it then."""
_WORDS = {"data_sha256": "data_sha256 (the images or labels themselves)"}


def plain(value: Any) -> Any:
    """Return a dataclass, or whatever JSON can hold, as JSON reads it back."""
    as_values = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return json.loads(json.dumps(as_values, default=str))


def recorded(config: Any, kind: type | None = None) -> dict[str, Any]:
    """Return what differs from the defaults of a config, a dataclass, nested, as JSON values.

    kind: one of its bases, whose fields alone are looked at.
    """
    names = {field.name for field in fields(kind or config)}
    values = {name: value for name, value in plain(config).items() if name in names}
    mark = {"defaults": DEFAULTS} if DEFAULTS > 1 else {}
    return shortened(kind or type(config), values) | mark


def shortened(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config of that kind, full or short, as `recorded` gives it."""
    return _unusual(record, _defaults(kind))


def in_full(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config of that kind, full or short, with all defaults filled in."""
    return _laid_over(_defaults(kind), record)


def address(content: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that stand for these settings, whatever their order."""
    text = json.dumps({"format": DEFAULTS, **plain(content)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _defaults(kind: Any) -> dict[str, Any]:
    found = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
    made = {f.name: f.default_factory for f in fields(kind)}
    found |= {name: make() for name, make in made.items() if make is not MISSING}
    return {name: plain(value) for name, value in found.items()}


def _unusual(record: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says otherwise than `usual`, inner records likewise."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        known = usual.get(name)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            if inner := _unusual(value, known):
                found[name] = inner
        elif name not in usual or value != known:
            found[name] = value
    return found


def _laid_over(usual: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return `usual` with what a record says, inner records likewise."""
    whole = dict(usual)
    for name, value in record.items():
        known = usual.get(name)
        both = isinstance(value, Mapping) and isinstance(known, Mapping)
        whole[name] = _laid_over(known, value) if both else value  # type: ignore[arg-type]
    return whole


def located(place: str) -> str:
    """Return a place as it is stored: what exists is found by its absolute path from any folder.

    place: a path, or FAMILY:PATH, and settings after a question mark; all else stays as it is.
    """
    family, colon, rest = ("", "", place) if os.path.exists(place) else place.rpartition(":")
    path, mark, settings = (rest, "", "") if os.path.exists(rest) else rest.partition("?")
    path = os.path.expanduser(path)  # Path's own fails at ~ of a user with no home
    if not os.path.exists(path):
        return place
    return f"{family}{colon}{os.path.realpath(path)}{mark}{settings}"


def differences(
    stored: dict[str, Any], given: dict[str, Any], places: tuple[str, str] = ("there", "now")
) -> str:
    """Name all options that differ, as "option: stored there, given now; ..."; empty if none.

    Where images or a teacher were found, such as the spelling of a path, is no difference where
    both have the same hash of their content.

    places: the words behind the two values, such as "in x" and "in y" of two runs.
    """
    return "; ".join(dict.fromkeys(_differing(stored, given, places)))


def refuse_other(folder: Path, what: str, stored: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise UserError if a folder's content is of another configuration than the one given.

    what: it holds, such as "a run"; given: JSON values, or what becomes such.
    """
    if difference := differences(stored, plain(given)):
        raise UserError(
            f"{folder} holds {what} of another configuration ({difference}): "
            "give another `out`, or the options it was started with"
        )


def _differing(
    stored: dict[str, Any], given: dict[str, Any], places: tuple[str, str]
) -> Iterator[str]:
    for key in dict.fromkeys([*given, *stored]):
        before, now = stored.get(key), given.get(key)
        decides = _DECIDES.get(key, "")
        content = given.get(decides)
        is_read = content and "labels_sha256" not in content  # else the pixels are not in it yet
        if before == now or (is_read and stored.get(decides) == content):
            continue
        earlier = stored.get(_INSTEAD.get(key, ""))
        if key not in stored and earlier and earlier == given.get(_INSTEAD[key]):
            continue
        if key == "data_sha256" and isinstance(before, str) and isinstance(now, dict):
            yield f"begun by an earlier clarep, it tells its images otherwise {places[0]}"
        elif isinstance(before, dict) and isinstance(now, dict) and key not in _WORDS:
            yield from _differing(before, now, places)
        else:
            name = _WORDS.get(key, key)
            yield f"{name}: {_short(before)} {places[0]}, {_short(now)} {places[1]}"


def _short(value: object) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        value = value[:12]  # of a hash enough to tell it
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
