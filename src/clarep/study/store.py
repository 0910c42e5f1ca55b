"""Content addresses: a folder's name says from what settings its content follows."""

import hashlib
import json
from dataclasses import asdict, is_dataclass
from typing import Any

_FORMAT = 1  # of everything that is stored; raised when the same settings give other content
_DIGITS = 12


def plain(value: Any) -> Any:
    """Return a dataclass, or whatever JSON can hold, as JSON reads it back."""
    as_values = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return json.loads(json.dumps(as_values, default=str))


def address(content: dict[str, Any]) -> str:
    """Return 12 hexadecimal digits that stand for these settings, whatever their order."""
    text = json.dumps({"format": _FORMAT, **plain(content)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
