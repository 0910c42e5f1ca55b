"""What a stored artefact follows from: of every config, what differs from its defaults.

So a new option leaves alone whatever was stored before it came. A default that changes is told by
`DEFAULTS`. Full forms, as earlier versions wrote them, are read as equal.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

DEFAULTS = 1
"""Version of all defaults: raised when one changes, as what is not recorded then means another."""
_DIGITS = 12


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
    return _differing(record, _defaults(kind))


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


def _differing(record: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    differing = {n: value for n, value in record.items() if n not in usual or value != usual[n]}
    inner = {
        name: _differing(value, usual[name])
        for name, value in differing.items()
        if isinstance(value, Mapping) and isinstance(usual.get(name), Mapping)
    }
    return {n: v for n, v in (differing | inner).items() if n not in inner or inner[n]}


def _laid_over(usual: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: (usual[name], value) for name, value in record.items() if name in usual}
    inner = {
        name: _laid_over(below, value)
        for name, (below, value) in both.items()
        if isinstance(below, Mapping) and isinstance(value, Mapping)
    }
    return {**usual, **record, **inner}
