"""Canonical latent representations of class-conditional diffusion models: the public names.

A name is imported when it is first used, so that a room of the house can be imported without
the rooms to its right.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clarep.clarid.canonical_set import CanonicalSet
    from clarep.clarid.clarid import CLARep, Clarid, ClaridConfig
    from clarep.clarid.identify import identify
    from clarep.data.labelled import (
        LabelledImages,
        class_balanced_choice,
        to_uint8,
        to_unit_range,
    )
    from clarep.data.load import DataConfig, load_data
    from clarep.errors import UserError
    from clarep.teachers.teacher import Teacher
    from clarep.teachers.zoo import load_teacher

__version__ = version("clarep")

__all__ = [
    "CLARep",
    "CanonicalSet",
    "Clarid",
    "ClaridConfig",
    "DataConfig",
    "LabelledImages",
    "Teacher",
    "UserError",
    "__version__",
    "class_balanced_choice",
    "identify",
    "load_data",
    "load_teacher",
    "to_uint8",
    "to_unit_range",
]

_MODULES = {
    "CLARep": "clarep.clarid.clarid",
    "CanonicalSet": "clarep.clarid.canonical_set",
    "Clarid": "clarep.clarid.clarid",
    "ClaridConfig": "clarep.clarid.clarid",
    "DataConfig": "clarep.data.load",
    "LabelledImages": "clarep.data.labelled",
    "Teacher": "clarep.teachers.teacher",
    "UserError": "clarep.errors",
    "class_balanced_choice": "clarep.data.labelled",
    "identify": "clarep.clarid.identify",
    "load_data": "clarep.data.load",
    "load_teacher": "clarep.teachers.zoo",
    "to_uint8": "clarep.data.labelled",
    "to_unit_range": "clarep.data.labelled",
}


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module 'clarep' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
