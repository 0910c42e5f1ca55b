"""Methods by name: CaDistill, its ablations and controls, and its rivals.

A rival is one file here: a `Method` with its `Config`, a frozen dataclass beside it, and
`METHODS`, what of it has a name.
"""

from importlib import import_module
from pkgutil import iter_modules

from clarep.distill.methods.base import Batch, Ingredients, Method
from clarep.errors import unknown_name

_MODULES = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
METHODS: dict[str, type[Method]] = {
    method.name: method for module in _MODULES for method in getattr(module, "METHODS", ())
}
"""Name -> method; `clarep distill --method NAME`."""


def method_named(name: str) -> type[Method]:
    """Return the method of that name; raises UserError if there is none."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]


__all__ = ["METHODS", "Batch", "Ingredients", "Method", "method_named"]
