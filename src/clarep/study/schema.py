"""TOML tables into dataclasses: every mistake names file, key, and what would be right."""

import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from clarep.engine.limits import check_values, is_setting
from clarep.errors import UserError, first_line, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_Config = TypeVar("_Config")
_MOST_BYTES = 1 << 20  # of a recipe
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string in quotes",
    Path: "a path in quotes",
    type(None): "nothing at all",
}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raises UserError if there is none, or it is no TOML of finite numbers."""
    if not path.is_file():
        if path.exists():
            raise UserError(f"{path} is no file: give a .toml file")
        raise UserError(f"there is no recipe at {path}: give an existing .toml file")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has over {_MOST_BYTES >> 20} MiB")
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        check_values(table)
        return table
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): mend its permissions") from error
    except RecursionError:
        raise UserError(f"{path} is nested too deeply: mend its brackets") from None
    except ValueError as error:  # no TOML, no UTF-8, or no number to compute with
        raise UserError(f"{path} is not valid TOML ({first_line(error)}): mend it there") from error


def build(
    kind: type[_Config], table: Mapping[str, Any], place: str, without: Sequence[str] = ()
) -> _Config:
    """Make a dataclass from a table.

    Args:
        kind: the dataclass.
        table: values by field name; absent ones keep their defaults.
        place: file and table, as errors name it, such as "x.toml: [train]".
        without: fields that may not be given here.

    Raises:
        UserError: for an unknown or a lacking key, or a value of a wrong type.
    """
    described: Any = kind
    known = {field.name: field for field in fields(described) if field.name not in without}
    hints = get_type_hints(kind)
    for key in table:
        if key not in known:
            raise UserError(f"{place} {unknown_name('key', key, known)}")
    for name, field in known.items():
        if name not in table and not _has_default(field):
            raise UserError(f"{place} lacks {name}: give it")
    return kind(**{key: convert(value, hints[key], place, key) for key, value in table.items()})


def convert(value: Any, hint: Any, place: str, key: str) -> Any:
    """Return a TOML value as a type hint has it; raises UserError if it is none of it."""
    if isinstance(value, int | float) and not is_setting(value):
        raise UserError(f"{place} {key} = {value} is out of range: give a number below 2^32")
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, _table(value, place, key), f"{place} {key}:")
    if origin in (dict, Mapping):
        return _table(value, place, key)
    if origin is Literal:
        return _convert_literal(value, arguments, place, key)
    if origin in (Union, types.UnionType):
        return _convert_to_one(value, arguments, place, key)
    if origin in (tuple, list, Sequence):
        return _convert_list(value, arguments, place, key)
    return _convert_scalar(value, hint, place, key)


def _convert_scalar(value: Any, hint: Any, place: str, key: str) -> Any:
    is_bool = isinstance(value, bool)
    if hint is float and isinstance(value, int) and not is_bool:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, hint) and (hint is bool or not is_bool):
        return value
    raise _wrong(value, place, key, _WORDS.get(hint, str(hint)))


def _convert_literal(value: Any, names: Sequence[Any], place: str, key: str) -> Any:
    if value not in names:
        raise UserError(f"{place} {key}: {unknown_name('value', str(value), map(str, names))}")
    return value


def _table(value: Any, place: str, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, place, key, "a table")
    return value


def _convert_to_one(value: Any, hints: Sequence[Any], place: str, key: str) -> Any:
    """Return the value as the first of several types that it is of."""
    # An int must not become a float where both are allowed: exact types first.
    for hint in sorted(hints, key=lambda hint: type(value) is not hint):
        try:
            return convert(value, hint, place, key)
        except UserError:
            continue
    words = [_WORDS.get(hint, str(hint)) for hint in hints if hint is not type(None)]
    raise _wrong(value, place, key, " or ".join(words))


def _convert_list(value: Any, arguments: Sequence[Any], place: str, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(value, place, key, "a list in [brackets]")
    if len(arguments) == 1 or arguments[1] is Ellipsis:
        return tuple(convert(item, arguments[0], place, key) for item in value)
    if len(value) != len(arguments):
        raise _wrong(value, place, key, f"a list of {len(arguments)}")
    return tuple(
        convert(item, hint, place, key) for item, hint in zip(value, arguments, strict=True)
    )


def _has_default(field: "Field[Any]") -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _wrong(value: Any, place: str, key: str, wanted: str) -> UserError:
    return UserError(f"{place} {key} = {value!r} is of the wrong type: give {wanted}")
