"""TOML tables into dataclasses: every mistake names file, table, key, and what would be right."""

import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from clarep.engine.artefacts import open_regular
from clarep.engine.bounds import check_values, is_setting
from clarep.errors import UserError, reason, said_by, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_hints_of: Any = cache(get_type_hints)  # slow, and asked for often
_Config = TypeVar("_Config")
_MOST_BYTES = 1 << 20  # of a recipe
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string in quotes",
    Path: "a path in quotes",
    dict: "a table",
    list: "a list in [brackets]",
}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raises UserError if there is none, or it is no TOML of finite numbers."""
    try:
        with open_regular(path) as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has over {_MOST_BYTES >> 20} MiB")
        table: dict[str, Any] = tomllib.loads(content.decode("utf-8"))
        check_values(table)
        return table
    except OSError as error:
        why = f"cannot read {path} ({reason(error)})"
        raise UserError(f"{why}: give an existing .toml file") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, no number to compute with
        raise UserError(f"{path} is not valid TOML ({said_by(error)}): mend it there") from error


def build(
    kind: type[_Config], table: Mapping[str, Any], place: str, without: Sequence[str] = ()
) -> _Config:
    """Make a dataclass from a table.

    Args:
        kind: the dataclass.
        table: values by field name; absent ones keep their defaults.
        place: file and table, as mistakes name them: "x.toml:" or "x.toml: [train]".
        without: fields that may not be given here; `train.seed` is one of an inner table.

    Raises:
        UserError: for an unknown or a lacking key, or a value of a wrong type.
    """
    described: Any = kind
    known = {field.name: field for field in fields(described) if field.name not in without}
    hints = _hints_of(kind)
    for key in table:
        if key not in known:
            raise UserError(f"{place} {unknown_name('key', key, known)}")
    for name, field in known.items():
        if name not in table and field.default is field.default_factory is MISSING:
            raise UserError(f"{place} lacks {name}: give it")
    built = {}
    for key, value in table.items():
        if is_dataclass(hints[key]):
            inner = [name.removeprefix(f"{key}.") for name in without if name.startswith(f"{key}.")]
            built[key] = build(hints[key], table_of(value, place, key), below(place, key), inner)
        else:
            built[key] = _converted(value, hints[key], place, key)
    return kind(**built)


def below(place: str, key: str) -> str:
    """Return the place of a table in a table."""
    return f"{place[:-1]}.{key}]" if place.endswith("]") else f"{place} [{key}]"


def table_of(value: Any, place: str, key: str) -> dict[str, Any]:
    """Return the value if it is a table; raises UserError."""
    if not isinstance(value, dict):
        raise _wrong(value, place, key, _WORDS[dict])
    return value


def _converted(value: Any, hint: Any, place: str, key: str) -> Any:
    """Return a TOML value as a type hint has it; raises UserError if it is none of it."""
    is_bool = isinstance(value, bool)
    if isinstance(value, int | float) and not is_setting(value):
        raise UserError(f"{place} {key} = {value} is out of range: give a number below 2^32")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            names = map(str, arguments)
            raise UserError(f"{place} {key}: {unknown_name('value', str(value), names)}")
        return value
    if origin in (Union, types.UnionType):
        return _as_one_of(value, arguments, place, key)
    if origin is tuple:
        return _as_tuple(value, arguments, place, key)
    if hint is float and isinstance(value, int) and not is_bool:
        value = float(value)
    elif hint is Path and isinstance(value, str):
        value = Path(value)
    elif not isinstance(value, hint) or (is_bool and hint is not bool):
        raise _wrong(value, place, key, _WORDS[hint])
    return value


def _as_one_of(value: Any, hints: Sequence[Any], place: str, key: str) -> Any:
    """Return the value as the first of several types that it is of."""
    if value is None and type(None) in hints:
        return None
    present = [hint for hint in hints if hint is not type(None)]
    # An int must not become a float where both are allowed: exact types first.
    for hint in sorted(present, key=lambda hint: type(value) is not hint):
        try:
            return _converted(value, hint, place, key)
        except UserError:
            continue
    raise _wrong(value, place, key, " or ".join(map(_word, present)))


def _word(hint: Any) -> str:
    """Say what a type of a field takes."""
    if get_origin(hint) is Literal:
        return " or ".join(f"'{one}'" for one in get_args(hint))
    return _WORDS[hint]


def _as_tuple(value: Any, hints: Sequence[Any], place: str, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(value, place, key, _WORDS[list])
    each = [hints[0]] * len(value) if hints[1] is Ellipsis else hints
    if len(value) != len(each):
        raise _wrong(value, place, key, f"a list of {len(each)}")
    return tuple(_converted(item, hint, place, key) for item, hint in zip(value, each, strict=True))


def _wrong(value: Any, place: str, key: str, wanted: str) -> UserError:
    return UserError(f"{place} {key} = {value!r} is of the wrong type: give {wanted}")
