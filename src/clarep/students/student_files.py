"""Students by name, saved and loaded as safetensors; the bundled judge is one."""

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from clarep.engine.artefacts import check_recorded, parse_json, read_json
from clarep.engine.bounds import check_seed
from clarep.engine.printable import counted
from clarep.engine.tensors import check_size, check_weights, note_file, read_tensors, save_tensors
from clarep.errors import UserError, check_type, said_by, unknown_name
from clarep.students.resnet import RESNETS, ResNetStudent
from clarep.students.student import Student, StudentInfo
from clarep.students.timm_student import TIMM_PREFIX, TimmStudent
from clarep.students.vit import ViTStudent

STUDENTS: dict[str, Callable[[StudentInfo, str | None], Student]] = {
    **dict.fromkeys(RESNETS, ResNetStudent),
    "vit-tiny": ViTStudent,
}
"""Name -> builder from what is known of the student and the layer that meets the teacher."""
STUDENT_NAME = "student.safetensors"
_LARGEST = 65_536  # side of an image, or its channels
_KIND = "clarep student"
_OTHER = "clarep evaluate takes other libraries' models as hf:, timm: and torchscript:"


def build_student(info: StudentInfo, layer: str | None = None, seed: int = 0) -> Student:
    """Build a student with fresh weights, on the CPU, in training mode.

    Args:
        info: its name (of STUDENTS, or timm:NAME), classes, image shape, and activation.
        layer: the layer that meets the teacher; None takes the pooled penultimate one.
        seed: of the weights; torch's own generator stays as it was.

    Raises:
        UserError: for an unknown name, layer or activation, a shape that the architecture does not
            take, fewer than two classes, or a timm model without the extra [timm].
    """
    check_seed(seed)
    if len(info.class_names) < 2:
        raise UserError(
            f"a student of {counted(len(info.class_names), 'class')} has nothing to tell apart: "
            "give two class names or more"
        )
    if not all(1 <= size <= _LARGEST for size in info.image_shape):
        raise UserError(
            f"images of shape {info.image_shape} are none: give (C, H, W) of 1 to {_LARGEST} each"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if info.name.startswith(TIMM_PREFIX):
            if info.activation is not None:
                raise UserError(
                    f"`activation={info.activation}` is for own architectures: leave it out of "
                    f"{info.name}, or give one of {', '.join(STUDENTS)}"
                )
            return TimmStudent(info, layer)
        if info.name not in STUDENTS:
            raise unknown_name("student", info.name, [*STUDENTS, f"{TIMM_PREFIX}NAME"])
        return STUDENTS[info.name](info, layer)


def save_student(student: Student, path: Path, extra: dict[str, str] | None = None) -> None:
    """Write weights as fp32 safetensors, atomically, with all that `load_student` needs.

    The same student gives the same bytes. `extra`: more words for the file's metadata.
    """
    weights = {}
    for name, value in student.state_dict().items():
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        # A copy of its own: some models share tensors.
        weights[name] = value.detach().to("cpu", dtype, copy=True).contiguous()
    info = {key: value for key, value in asdict(student.info).items() if value is not None}
    metadata = {
        "kind": _KIND,
        "info": json.dumps(info),
        "layer": student.layer,
        "extra": json.dumps(extra or {}, sort_keys=True),
    }
    save_tensors(path, weights, metadata)


def student_path(path: Path | str) -> Path:
    """Return the student's file: `path` itself, or the one in the folder or in its student/.

    Raises UserError if there is none.
    """
    check_type("path", path, (str, Path), "a student.safetensors or a run's folder")
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


def load_student(path: Path | str, *, into: Student | None = None) -> Student:
    """Load what `save_student` wrote; on the CPU, in evaluation mode.

    Args:
        path: a student.safetensors, or a folder that holds it or holds student/.
        into: the student whose weights they become, of `Student.from_module` say, which no file
            can build again; None builds the one that the file names.

    Raises:
        UserError: if the file is missing, damaged, not the one that the config.json beside it
            tells of, or of another kind or shape, or if weights are not finite.
    """
    file = student_path(path)
    if into is not None:
        check_type("into", into, Student, "what Student.from_module makes of your network")
    weights, metadata = read_tensors(file, "a student")
    mend = f"give a {STUDENT_NAME} that clarep distill wrote"
    if metadata.get("kind") != _KIND:
        raise UserError(f"{file} holds no student: {mend}")
    if file.name == STUDENT_NAME:
        check_recorded(file, file.with_name("config.json"), "student_sha256")
    try:
        info = _info_from(metadata["info"])
        if into is None and info.name not in STUDENTS and not info.name.startswith(TIMM_PREFIX):
            raise UserError(
                f"it holds weights of '{info.name}', a network of your own, which no file can "
                "build again: give `into=Student.from_module(net, class_names, image_shape)`"
            )
        if into is None and info.name in STUDENTS:
            check_size(weights, lambda: build_student(info, metadata["layer"]))
        student = into or build_student(info, metadata["layer"])
        student.load_state_dict(weights)
        check_weights(weights, student, "the file")
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{file} holds no student that this clarep can build ({said_by(error)}): {mend}"
        ) from error
    note_file(student, file)
    if isinstance(student, ResNetStudent):  # as it was trained: attacks are a fifth faster on a CPU
        student.to(memory_format=torch.channels_last)
    return student.eval()


def _info_from(text: str) -> StudentInfo:
    """Read `StudentInfo` from JSON; whatever does not fit raises what it raises."""
    fields = parse_json(text)
    channels, height, width = (int(size) for size in fields["image_shape"])
    names = tuple(str(name) for name in fields["class_names"])
    activation = fields.get("activation")
    return StudentInfo(str(fields["name"]), names, (channels, height, width), activation)


def load_judge() -> Student:
    """Load the bundled judge: ten garments before any background, 32 px; `Student`'s images.

    It shares no training image with the bundled teachers: tools/train_judge.py trained it on the
    images of Fashion-MNIST that none of them has seen.
    """
    path = Path(str(files("clarep.students") / "assets" / "judge.safetensors"))
    return load_student(path).requires_grad_(False)


def judge_card() -> dict[str, Any]:
    """Return the bundled judge's recipe and test accuracies."""
    return read_json(Path(str(files("clarep.students") / "assets" / "judge.json")))
