"""Enforce the signatures of clarep's functions, each by the check that suffices for it.

jaxtyping's import hook decorates every function with `jaxtyped`, which takes some 20 us a call and
1 ms a definition: a fifth of the tests' time. Only signatures that hold shapes need it. All others
are enforced by beartype alone, and those of functions within functions, which are defined anew at
every call, are left to mypy.
"""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from typing import Any, Literal, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, install_import_hook

_by_shapes = jaxtyping.jaxtyped
_by_types = beartype(conf=BeartypeConf(violation_type=TypeCheckError))  # a TypeError, as that one's


def _holds_shapes(hint: Any) -> bool:
    """Whether it may: a name in quotes stands for any hint."""
    if isinstance(hint, str):
        return True
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    if get_origin(hint) is Literal:
        return False
    parts = hint if isinstance(hint, list) else get_args(hint)  # a list of Callable's arguments
    return any(map(_holds_shapes, parts))


def enforced(given: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Stand in for `jaxtyping.jaxtyped`, as its hook calls it."""
    if given is None:
        return partial(enforced, typechecker=typechecker)
    if inspect.isclass(given) and not is_dataclass(given):
        return given
    function = given.__init__ if inspect.isclass(given) else given
    if any(map(_holds_shapes, getattr(function, "__annotations__", {"": "?"}).values())):
        return _by_shapes(given, typechecker=typechecker)
    if function is not given:  # a dataclass
        given.__init__ = _by_types(function)
        return given
    return given if "<locals>" in given.__qualname__ else _by_types(given)


def enforce() -> None:
    """Enforce the signatures of whatever is imported of clarep from here on."""
    jaxtyping.jaxtyped = enforced
    install_import_hook("clarep", "beartype.beartype")
