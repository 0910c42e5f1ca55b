"""`DistillConfig`: how a student is trained, with the options of all methods.

A method's options are read from the file of the method. Those of CaDistill stand beside the
training's own, those of its rivals under `rivals`.
"""

from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from clarep.data.load import DataConfig
from clarep.distill.methods.base import Method
from clarep.distill.methods.cadistill import CaDistillConfig
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.bounds import check_bounds
from clarep.engine.seeds import check_seed
from clarep.errors import UserError

STUDENT_DATA = DataConfig(correlation=0.9)
"""What students learn from unless told otherwise: a regime that can tell, since where a
background says nothing of the class none misleads."""


def _of_rivals() -> list[Any]:
    """Return the options in the other files of methods; the last base's fields come first."""
    names = [path.stem for path in (Path(__file__).parent / "methods").glob("[a-z]*.py")]
    found = []
    for name in sorted(set(names) - {"cadistill"}, reverse=True):
        module = import_module(f"clarep.distill.methods.{name}")
        kinds = [getattr(module, kind) for kind in dir(module) if kind.endswith("Config")]
        found += [kind for kind in kinds if kind.__module__ == module.__name__]
    return found


@dataclass(frozen=True)
class RivalsConfig(*_of_rivals()):  # type: ignore[misc]  # as many as there are files
    """Options of single rivals of CaDistill; every other method passes over them."""


@dataclass(frozen=True)
class DistillConfig(CaDistillConfig, TrainingConfig):
    """How a student is trained."""

    rivals: RivalsConfig = field(default_factory=RivalsConfig)
    """Options of single rivals."""


def check_distill(config: DistillConfig) -> None:
    """Raise UserError, in one sentence, for a setting that nothing can be trained with."""
    check_bounds(config)
    check_seed(config.seed)
    if config.pick == "best" and config.validation_share == 0:
        raise UserError(
            "`validation_share=0` leaves nothing to pick the best epoch on: "
            "give a share such as 0.1, or `pick=last`"
        )


def options_of(method: type[Method], config: DistillConfig) -> Any:
    """Return the options of a method of METHODS as the config has them."""
    given = vars(config.rivals) | vars(config)
    return method.Config(**{one.name: given[one.name] for one in fields(method.Config)})
