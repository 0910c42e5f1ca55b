"""The one exception for a mistake that the user can mend, and the one warning."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import signature


class UserError(ValueError):
    """A mistake of the caller: its message names the value, the rule and the mend.

    The command line prints it as one sentence on stderr and exits with 2.
    """


class ClarepWarning(UserWarning):
    """What is done otherwise than one may expect; the command line prints it as a note."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """Build the error for a name that is not one of `valid`, nearest names first."""
    names = list(valid)
    return UserError(f"unknown {kind} '{name}': {nearest(name, names)}valid are {', '.join(names)}")


def nearest(name: str, names: Iterable[str], cutoff: float = 0.4) -> str:
    """Return "did you mean A or B? " of those that are like a name; "" if none is."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}? " if near else ""


def check_arguments(given: Iterable[str], taker: Callable[..., object], config: type) -> None:
    """Raise UserError for the name of an argument that a function or class does not take.

    config: the class of its `config`, for a name that belongs there.
    """
    known = signature(taker).parameters
    for name in given:
        if name not in known and name in signature(config).parameters:
            settings = config.__name__
            raise UserError(f"`{name}` is one of {settings}: give `config={settings}({name}=...)`")
        if name not in known:
            raise unknown_name("argument", name, known)


def check_type(name: str, value: object, kind: type | tuple[type, ...], mend: str) -> None:
    """Raise UserError, "`NAME` is a TYPE: give MEND", unless an argument is of such a kind."""
    if not isinstance(value, kind):
        raise UserError(f"`{name}` is a {type(value).__name__}: give {mend}")


def reason(error: BaseException) -> str:
    """Return what an error says; of the system's own its words, without number and path."""
    return str(getattr(error, "strerror", None) or error)


def said_by(error: BaseException) -> str:
    """Return what an error says in one short line, with its type where that tells more."""
    said = " ".join(reason(error).split())[:200]
    is_told = said and (type(error) is ValueError or getattr(error, "strerror", None))
    return said if is_told else f"{type(error).__name__}: {said}".removesuffix(": ")


@contextmanager
def refusing(what: str, mend: str, faults: tuple[type[BaseException], ...]) -> Iterator[None]:
    """Make a UserError, "WHAT (what the library says): MEND", of what a library raises."""
    try:
        yield
    except UserError:
        raise
    except faults as error:
        raise UserError(f"{what} ({said_by(error)}): {mend}") from error
