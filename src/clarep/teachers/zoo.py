"""Teachers by name, path, or family and place (`dit:PATH`)."""

from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from clarep.data.load import DataConfig, stored_options
from clarep.engine.bounds import check_bounds
from clarep.engine.identity import located
from clarep.errors import UserError, check_type, unknown_name
from clarep.teachers.families import FAMILIES
from clarep.teachers.options import TeacherOptions, check_options
from clarep.teachers.pipeline_folder import refuse_diffusers
from clarep.teachers.teacher import Teacher
from clarep.teachers.unet_teacher import WEIGHTS_NAME, load_unet

BUNDLED = {
    "backdrops": "backdrops.safetensors",
    "backdrops-biased": "backdrops-biased.safetensors",
    "cifar10": "cifar10.safetensors",
}
"""Name -> file in `teachers/assets`, where NAME.json and NAME_history.jsonl lie, or in the package
clarep_weights, a distribution of its own."""
_CHECKPOINT_NAME = "checkpoint.pt"


def teacher_path(spec: str) -> Path:
    """Return the weights that `spec` stands for: a bundled name, a file, or a run's folder.

    Raises UserError if there are none.
    """
    if spec in BUNDLED:
        places = [Path(str(files("clarep.teachers"))) / "assets"]
        if find_spec("clarep_weights") is not None:
            places.append(Path(str(files("clarep_weights"))))
        for place in places:
            if (place / BUNDLED[spec]).exists():
                return place / BUNDLED[spec]
        raise UserError(
            f"the weights of '{spec}' are not installed: pip install clarep-weights (in a clone "
            "./weights), or train a teacher with clarep train-teacher"
        )
    path = Path(spec)
    if path.is_dir():
        if not (path / WEIGHTS_NAME).exists():
            refuse_diffusers(path, WEIGHTS_NAME)
            raise UserError(
                f"{path} holds no {WEIGHTS_NAME}: "
                "run clarep train-teacher there to its end, or name another folder"
            )
        return path / WEIGHTS_NAME
    if path.exists():
        if path.name == _CHECKPOINT_NAME:
            raise UserError(
                f"{path} is a training's checkpoint, to go on from, and no teacher: "
                f"give its folder {path.parent}, once the training is at its end"
            )
        return path
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        raise UserError(f"there is no teacher at {path}: give an existing file or folder")
    families = ", ".join(FAMILIES)
    raise unknown_name(
        "teacher",
        spec,
        [*BUNDLED, f"a path to a {WEIGHTS_NAME} or its folder", f"FAMILY:PLACE, of {families}"],
    )


def stored_spec(spec: str) -> str:
    """Return what stands for a teacher, to be stored with a run; a path is absolute."""
    return spec if spec in BUNDLED else located(spec)


def sources(teacher: str, data: DataConfig, teacher_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a run's teacher and data came from, as JSON values, to be stored with it.

    teacher_options: as `recorded` gave them; left out if empty.
    """
    found = {"teacher": stored_spec(teacher), "data_options": stored_options(data)}
    return found | ({"teacher_options": dict(teacher_options)} if teacher_options else {})


def load_teacher(spec: str | Path, options: TeacherOptions | None = None) -> Teacher:
    """Load a teacher.

    Args:
        spec: a name of BUNDLED; a path to a teacher.safetensors, or a folder that
            `clarep train-teacher` wrote; or FAMILY:PLACE with a family of FAMILIES, whose place
            is a file, a folder or an identifier of the Hugging Face hub (docs/teachers.md).
        options: device, precision and what single families take; clarep's own U-Nets, which a
            name of BUNDLED or a path stands for, take device alone.

    Raises:
        UserError: if there is no such teacher, its file is truncated or of another kind, an
            option means nothing to it, the device is not here, or an extra is missing.
    """
    options = TeacherOptions() if options is None else options
    check_type("options", options, TeacherOptions, "TeacherOptions(...)")
    check_bounds(options)
    if not isinstance(spec, str | Path):
        raise UserError(
            f"a {type(spec).__name__} names no teacher: give backdrops, a path, FAMILY:PLACE, or "
            "of a model of your own Teacher.from_callable(...)"
        )
    if not (spec := str(spec)):
        raise UserError("'' names no teacher: give backdrops, a path, or FAMILY:PLACE")
    family, colon, place = spec.partition(":")
    if colon and not Path(spec).exists():
        if family not in FAMILIES:
            raise unknown_name("teacher family", family, FAMILIES)
        if not place:
            raise UserError(f"teacher {spec} names no place: give {spec}PATH, a file or folder")
        module = import_module(f"clarep.teachers.families.{FAMILIES[family].module}")
        return cast(Teacher, module.load(place, options))
    check_options(options, "", ("device",))
    return load_unet(teacher_path(spec)).to(options.device)
