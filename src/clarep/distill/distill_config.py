"""`DistillConfig`: how a student is trained, with the options of all methods.

A method's options are read from the file of the method. Those of CaDistill and of what reads an
audit stand beside the training's own, those of their rivals under `rivals`.
"""

from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from clarep.data.load import DataConfig
from clarep.distill.methods import METHODS, Method, method_named
from clarep.distill.methods.cadistill import CaDistillConfig
from clarep.distill.methods.compose import ComposeConfig
from clarep.distill.methods.doubted import DoubtedConfig
from clarep.distill.methods.evidence import EvidenceConfig
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.bounds import check_bounds
from clarep.errors import UserError, check_type

STUDENT_DATA = DataConfig(correlation=0.9)
"""What students learn from unless told otherwise: a regime that can tell, since where a
background says nothing of the class none misleads."""
_OURS = {"cadistill", "compose", "doubted", "evidence"}
"""Files of methods whose options are no rival's."""


def _of_rivals() -> list[Any]:
    """Return the options in the other files of methods; the last base's fields come first."""
    names = [path.stem for path in (Path(__file__).parent / "methods").glob("[a-z]*.py")]
    found = []
    for name in sorted(set(names) - _OURS, reverse=True):
        module = import_module(f"clarep.distill.methods.{name}")
        kinds = [getattr(module, kind) for kind in dir(module) if kind.endswith("Config")]
        found += [kind for kind in kinds if kind.__module__ == module.__name__]
    return found


@dataclass(frozen=True)
class RivalsConfig(*_of_rivals()):  # type: ignore[misc]  # as many as there are files
    """Options of single rivals; every other method passes over them."""


@dataclass(frozen=True)
class DistillConfig(DoubtedConfig, ComposeConfig, EvidenceConfig, CaDistillConfig, TrainingConfig):
    """How a student is trained."""

    rivals: RivalsConfig = field(default_factory=RivalsConfig)
    """Options of single rivals."""


def check_distill(config: DistillConfig) -> None:
    """Raise UserError, in one sentence, for a setting that nothing can be trained with."""
    check_type("config", config, DistillConfig, "a DistillConfig")
    check_bounds(config)
    if config.pick != "last" and config.validation_share == 0:
        raise UserError(
            "`validation_share=0` leaves nothing to pick the best epoch on: "
            "give a share such as 0.1, or `pick=last`"
        )


def settled(
    method: str | type[Method], config: DistillConfig, options: Any = None
) -> tuple[type[Method], Any]:
    """Return a method and its options: those given, or as the config has them, or its defaults.

    Raises UserError for an unknown name, a method of one's own without a name of its own, and
    options of another method or out of bounds.
    """
    kind = method_named(method) if isinstance(method, str) else method
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise UserError(f"`method={method!r}` is no method: give a name, or a class of Method")
    known = METHODS.get(kind.name)
    if known is not kind and (known or not kind.name):
        raise UserError(
            f"the method's name is '{kind.name}': give its class a `name` that METHODS has not"
        )
    if options is None:
        of_all = {**vars(config.rivals), **vars(config)} if known else {}
        names = {one.name for one in fields(kind.Config)}
        options = kind.Config(**{name: of_all[name] for name in names & set(of_all)})
    if not isinstance(options, kind.Config):
        raise UserError(f"options of method {kind.name} are of another class: give its `Config`")
    check_bounds(options)
    return kind, replace(options, **{kind.off: 0.0}) if kind.off else options
