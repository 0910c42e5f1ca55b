"""Students by name; saved and loaded as safetensors."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from clarep.engine.artefacts import check_recorded, parse_json
from clarep.engine.seeds import check_seed
from clarep.engine.tensors import check_weights, note_file, read_tensors, save_tensors
from clarep.errors import UserError, unknown_name
from clarep.students.resnet import resnet8, resnet8_half, resnet18, wrn_16_2
from clarep.students.student import Student, StudentInfo
from clarep.students.timm_student import TIMM_PREFIX, TimmStudent
from clarep.students.vit import vit_tiny

STUDENTS: dict[str, Callable[[StudentInfo, str | None], Student]] = {
    "resnet8": resnet8,
    "resnet8-half": resnet8_half,
    "resnet18": resnet18,
    "wrn16-2": wrn_16_2,
    "vit-tiny": vit_tiny,
}
"""Name -> builder from what is known of the student and the layer that meets the teacher."""
STUDENT_NAME = "student.safetensors"
_KIND = "clarep student"
_OTHER = "clarep evaluate takes other libraries' models as hf:, timm: and torchscript:"


def build_student(info: StudentInfo, layer: str | None = None, seed: int = 0) -> Student:
    """Build a student with fresh weights, on the CPU, in training mode.

    Args:
        info: its name (of STUDENTS, or timm:NAME), classes and image shape.
        layer: the layer that meets the teacher; None takes the pooled penultimate one.
        seed: of the weights; torch's own generator stays as it was.

    Raises:
        UserError: for an unknown name or layer, a shape that the architecture does not take,
            fewer than two classes, or a timm model without the extra [timm].
    """
    check_seed(seed)
    _check_info(info)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if info.name.startswith(TIMM_PREFIX):
            return TimmStudent(info, layer)
        if info.name not in STUDENTS:
            raise unknown_name("student", info.name, [*STUDENTS, f"{TIMM_PREFIX}NAME"])
        return STUDENTS[info.name](info, layer)


def _check_info(info: StudentInfo) -> None:
    if len(info.class_names) < 2:
        raise UserError(
            f"a student of {len(info.class_names)} classes has nothing to tell apart: "
            "give two class names or more"
        )
    if min(info.image_shape) < 1:
        raise UserError(f"images of shape {info.image_shape} hold nothing: give (C, H, W) above 0")


def save_student(student: Student, path: Path, extra: dict[str, str] | None = None) -> None:
    """Write weights as fp32 safetensors, atomically, with all that `load_student` needs.

    The same student gives the same bytes. `extra`: more words for the file's metadata.
    """
    weights = {name: _as_stored(value) for name, value in student.state_dict().items()}
    metadata = {
        "kind": _KIND,
        "info": json.dumps(asdict(student.info)),
        "layer": student.layer,
        "extra": json.dumps(extra or {}, sort_keys=True),
    }
    save_tensors(path, weights, metadata)


def _as_stored(value: Tensor) -> Tensor:
    """Return a copy of its own (some models share tensors), floats as fp32."""
    value = value.detach().cpu()
    value = value.float() if value.is_floating_point() else value
    return value.clone(memory_format=torch.contiguous_format)


def student_path(path: Path | str) -> Path:
    """Return the student's file: `path` itself, or the one in the folder or in its student/.

    Raises UserError if there is none.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise UserError(
                f"there is no student at {path}: give an existing file or folder; {_OTHER}"
            )
        if path.suffix != ".safetensors":
            raise UserError(f"{path} is no {STUDENT_NAME}: give such a file or its run; {_OTHER}")
        return path
    for file in (path / STUDENT_NAME, path / "student" / STUDENT_NAME):
        if file.exists():
            return file
    raise UserError(
        f"{path} holds no {STUDENT_NAME}: run clarep distill there to its end, "
        f"or name another folder; {_OTHER}"
    )


def load_student(
    path: Path | str,
    class_names: tuple[str, ...] | None = None,
    *,
    into: Student | None = None,
) -> Student:
    """Load what `save_student` wrote; on the CPU, in evaluation mode.

    Args:
        path: a student.safetensors, or a folder that holds it or holds student/.
        class_names: the classes that its head must have; None takes any.
        into: the student whose weights they become, of `Student.from_module` say, which no file
            can build again; None builds the one that the file names.

    Raises:
        UserError: if the file is missing, damaged, not the one that the config.json beside it
            tells of, or of another kind or shape, if weights are not finite, or if the head does
            not fit.
    """
    file = student_path(path)
    metadata, weights = _read(file)
    try:
        student = into or build_student(_info_from(metadata["info"]), metadata["layer"])
        student.load_state_dict(weights)
        check_weights(weights, student, "the file")
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{file} holds no student that this clarep can build "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}): "
            f"give a {STUDENT_NAME} that clarep distill wrote"
        ) from error
    if class_names is not None:
        check_classes(student, class_names)
    note_file(student, file)
    return student.eval()


def check_classes(student: Student, class_names: tuple[str, ...]) -> None:
    """Raise UserError unless the head's classes are `class_names`, in that order."""
    own = student.info.class_names
    if len(own) != len(class_names):
        raise UserError(
            f"the student's head has {len(own)} classes and the data {len(class_names)}: "
            "give the data that it was trained on, or another student"
        )
    for i, (mine, theirs) in enumerate(zip(own, class_names, strict=True)):
        if mine != theirs:
            raise UserError(
                f"the student's class {i} is '{mine}' and the data's '{theirs}': "
                "give the data that it was trained on, or another student"
            )


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and weights of a student's file."""
    weights, metadata = read_tensors(file, "a student")
    if metadata.get("kind") != _KIND:
        raise UserError(f"{file} holds no student: give a {STUDENT_NAME} that clarep distill wrote")
    if file.name == STUDENT_NAME:
        check_recorded(file, file.with_name("config.json"), "student_sha256")
    return metadata, weights


def _info_from(text: str) -> StudentInfo:
    """Read `StudentInfo` from JSON; whatever does not fit raises what it raises."""
    fields = parse_json(text)
    channels, height, width = (int(size) for size in fields["image_shape"])
    names = tuple(str(name) for name in fields["class_names"])
    return StudentInfo(str(fields["name"]), names, (channels, height, width))
