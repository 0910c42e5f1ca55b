"""Options that several commands have, each with its help once."""

from pathlib import Path
from typing import Annotated

import tyro

from clarep.audit.chosen_images import ChoiceConfig
from clarep.clarid.clarid_config import ClaridConfig
from clarep.data.load import DataConfig, DataOptions
from clarep.engine.fan_out import EngineConfig
from clarep.teachers.options import TeacherOptions

_FLAT = tyro.conf.arg(name="")
DataGroup = Annotated[DataConfig, _FLAT]
DataOptionsGroup = Annotated[DataOptions, _FLAT]
ChoiceGroup = Annotated[ChoiceConfig, _FLAT]
ClaridGroup = Annotated[ClaridConfig, _FLAT]
TeacherGroup = Annotated[TeacherOptions, _FLAT]
EngineGroup = Annotated[EngineConfig, _FLAT]
TeacherSpec = Annotated[
    str,
    tyro.conf.arg(
        help="A bundled teacher's name, a path to a teacher.safetensors or its folder, or "
        "FAMILY:PLACE such as dit:PATH."
    ),
]
JudgeRun = Annotated[
    Path | None,
    tyro.conf.arg(
        help="Run of a student trained on the same classes (clarep distill --method vanilla), or "
        "another library's classifier of them (hf:, timm:, torchscript:FILE), which judges samples "
        "where the bundled judge does not know the classes, or instead of it."
    ),
]
SkipBad = Annotated[bool, tyro.conf.arg(help="Go on without unreadable images, and list them.")]
Json = Annotated[
    bool,
    tyro.conf.arg(help="Print one JSON object instead of lines; progress goes to stderr."),
]
