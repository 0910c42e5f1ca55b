"""Libraries that only some commands need: imported where used, missed in one sentence."""

from importlib import import_module
from types import ModuleType

from clarep.errors import UserError


def require_extra(module: str, extra: str) -> ModuleType:
    """Import a module of an extra; raises UserError that names the extra if it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise UserError(
            f"{module} is not installed: give pip install '.[{extra}]' in a clone of clarep"
        ) from None
