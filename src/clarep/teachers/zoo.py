"""Teachers by name or path."""

from importlib.resources import files
from pathlib import Path

from clarep.errors import UserError, unknown_name
from clarep.teachers.teacher import Teacher
from clarep.teachers.unet_teacher import load_unet

BUNDLED = {
    "backdrops": "backdrops.safetensors",
    "backdrops-biased": "backdrops-biased.safetensors",
}
"""Name -> file in `teachers/assets`; NAME.json and NAME_history.jsonl lie beside it."""
WEIGHTS_NAME = "teacher.safetensors"
CARD_NAME = "card.json"


def teacher_path(spec: str) -> Path:
    """Return the weights that `spec` stands for: a bundled name, a file, or a run's folder.

    Raises UserError if there are none.
    """
    if spec in BUNDLED:
        path = Path(str(files("clarep.teachers") / "assets" / BUNDLED[spec]))
        if not path.exists():
            raise UserError(
                f"the bundled teacher '{spec}' is not in this installation ({path} is missing): "
                "install clarep again, or train one with clarep train-teacher"
            )
        return path
    path = Path(spec)
    if path.is_dir():
        if not (path / WEIGHTS_NAME).exists():
            raise UserError(
                f"{path} holds no {WEIGHTS_NAME}: "
                "run clarep train-teacher there to its end, or name another folder"
            )
        return path / WEIGHTS_NAME
    if path.exists():
        return path
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        raise UserError(f"there is no teacher at {path}: give an existing file or folder")
    raise unknown_name("teacher", spec, [*BUNDLED, f"a path to a {WEIGHTS_NAME} or its folder"])


def load_teacher(spec: str) -> Teacher:
    """Load a teacher, computing in fp32.

    Args:
        spec: a name of BUNDLED; a path to a teacher.safetensors; or a folder that
            `clarep train-teacher` wrote.

    Raises:
        UserError: if there is no such teacher, or its file is truncated or of another kind.
    """
    return load_unet(teacher_path(spec))
