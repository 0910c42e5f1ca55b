"""Mistakes on the command line, each told in one sentence, before the parser sees them.

The commands are frozen dataclasses: their fields, types and defaults are all that is needed to
tell an unknown option, a value that lacks and one of another type apart.
"""

import difflib
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from clarep.engine.limits import is_setting
from clarep.errors import UserError

_POSITIONAL = get_args(tyro.conf.Positional[str])[1]
_SHOWN = 60  # characters of a value
_HELP = ("--help", "-h")
_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", Path: "a path", str: "a text"}


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "did you mean A?" for the nearest name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def check_arguments(arguments: Sequence[str], commands: Mapping[str, type]) -> None:
    """Raise UserError for an unknown command or option, or a value that does not fit.

    What needs more than one option to be told (a required one that lacks, say) is left to the
    parser.
    """
    words, rest, within = "", list(arguments), commands
    while within:
        if words and not rest:
            raise UserError(f"{words} needs to be told what to do: give one of {', '.join(within)}")
        if not rest or rest[0] in _HELP:
            return
        name = rest.pop(0)
        if name not in within:
            raise _no_command(words, name, within)
        words, kind = f"{words} {name}".strip(), within[name]
        within = _subcommands(kind)
    _check_options(words, rest, kind)


def options_of(arguments: Sequence[str], commands: Mapping[str, type]) -> list[str]:
    """Return the options of the command that `arguments` begin with; none of no command's."""
    kind, within = None, commands
    for name in arguments:
        if name not in within:
            break
        kind = within[name]
        within = _subcommands(kind)
    return [] if kind is None or within else list(_options(kind)[0])


def _no_command(words: str, name: str, within: Mapping[str, type]) -> UserError:
    command = f"{words} {name}".strip()
    named = f"option {name} before the command" if name.startswith("-") else f"command {command}"
    return UserError(f"there is no {named}: {_mend(name, within)}")


def _mend(name: str, names: Iterable[str]) -> str:
    valid = list(names)
    return f"{did_you_mean(name, valid)} valid are {', '.join(valid)}".strip()


def _subcommands(kind: type) -> dict[str, type]:
    """Return the subcommands of a command that only holds some, by name; none for others."""
    found: dict[str, type] = {}
    for hint in get_type_hints(kind, include_extras=True).values():
        for member in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ():
            for mark in get_args(member)[1:]:
                if getattr(mark, "name", None) and is_dataclass(get_args(member)[0]):
                    found[mark.name] = get_args(member)[0]
    return found


@dataclass(frozen=True)
class _Option:
    hint: Any
    default: Any

    @property
    def alternatives(self) -> tuple[Any, ...]:
        """The types that one value may have."""
        inner = [get_args(kind)[0] if get_origin(kind) is tuple else kind for kind in self.kinds]
        return tuple(member for kind in inner for member in _members(kind))

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types of the whole, None left out."""
        return tuple(kind for kind in _members(self.hint) if kind is not type(None))

    @property
    def takes_many(self) -> bool:
        """Whether any number of values may follow."""
        return any(get_origin(kind) is tuple for kind in self.kinds)


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _check_options(words: str, rest: Sequence[str], kind: type) -> None:
    if any(token in _HELP for token in rest):
        return
    options, takes_names = _options(kind)
    name, values = "", list[str]()
    for token in [*rest, "--"]:
        if not token.startswith("-") or _is_number(token):
            values.append(token)
            continue
        if name:
            _check_values(name, values, options[name], takes_names)
        elif values and not takes_names:
            raise UserError(
                f"{words} takes options alone, and '{values[0]}' is none: "
                f"clarep {words} --help lists them"
            )
        if token == "--":
            return
        given, has_value, value = token.partition("=")
        name, values = given.replace("_", "-"), [value] if has_value else []
        if name not in options:
            near = did_you_mean(name, options) or f"clarep {words} --help lists them"
            raise UserError(f"{words} has no option {name}: {near}")


def _options(kind: type, prefix: str = "", defaults: Any = None) -> tuple[dict[str, _Option], bool]:
    """Return the options of a command by name, and whether it takes names without option.

    defaults: an instance whose values are the defaults; without it, those of the fields.
    """
    options: dict[str, _Option] = {}
    takes_names = False
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        default = _default(field) if defaults is None else getattr(defaults, field.name)
        hint, marks = hints[field.name], tuple[Any, ...]()
        while get_origin(hint) is Annotated:
            marks += get_args(hint)[1:]
            hint = get_args(hint)[0]
        if _POSITIONAL in marks:
            takes_names = True
        elif is_dataclass(hint):
            flat = any(getattr(mark, "name", None) == "" for mark in marks)
            inner = "" if flat else f"{field.name}."
            inner = prefix + inner.replace("_", "-")
            nested, _ = _options(hint, inner, default)  # type: ignore[arg-type]
            options |= nested
        else:
            option = _Option(hint, default)
            negated = "no-" if hint is bool and option.default is True else ""
            options[f"--{prefix}{negated}{field.name.replace('_', '-')}"] = option
    return options, takes_names


def _default(field: "Field[Any]") -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def _check_values(name: str, values: list[str], option: _Option, takes_names: bool) -> None:
    """Raise UserError unless an option got as many values as it takes, all of its type.

    takes_names: what is more than that may be a name, and is left to the parser.
    """
    takes = 0 if option.hint is bool else len(values) if option.takes_many else 1
    if len(values) < takes:
        raise UserError(f"{name} lacks its value: give {_wanted(option)}")
    for value in values[:takes]:
        _check_value(name, value, option)
    if values[takes:] and not takes_names:
        raise UserError(
            f"{name} takes {'one' if takes else 'no'} value and was followed by "
            f"'{values[takes]}': leave that out"
        )


def _check_value(name: str, value: str, option: _Option) -> None:
    optional = type(None) in get_args(option.hint)
    if (optional and value == "None") or any(_fits(value, a) for a in option.alternatives):
        return
    names = _choices(option)
    mend = _mend(value, names) if names else f"give {_wanted(option)}"
    if _is_number(value) and not is_setting(float(value)):
        mend += " (finite and below 2^32)"
    shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
    raise UserError(f"{name} cannot be '{shown}': {mend}")


def _fits(value: str, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in [str(name) for name in get_args(kind)]
    if kind not in (int, float):
        return True
    try:
        return is_setting(kind(value))
    except ValueError:
        return False


def _choices(option: _Option) -> list[str]:
    return [str(name) for kind in option.alternatives for name in get_args(kind)]


def _wanted(option: _Option) -> str:
    """Say what an option takes, with an example where its default is one."""
    names = _choices(option)
    if names:
        return f"one of {', '.join(names)}"
    kinds = option.alternatives
    words = _WORDS.get(kinds[0], "a value") if len(kinds) == 1 else "a value"
    default = option.default
    if isinstance(default, tuple):
        default = default[0] if default else None
    plain = isinstance(default, int | float | str | Path) and not (
        isinstance(default, float) and math.isnan(default)
    )
    return f"{words}, such as {default}" if plain and str(default) else words


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True
