"""The student that a training begins with: built by name, or a copy of one that is given."""

import copy

from clarep.data.fits import check_alike, kind_of
from clarep.data.labelled import LabelledImages
from clarep.engine.tensors import sha256_state
from clarep.errors import UserError
from clarep.students.student import Student, StudentInfo
from clarep.students.student_files import build_student


def start_student(
    student: str | Student,
    data: LabelledImages,
    layer: str | None,
    activation: str | None,
    seed: int,
) -> tuple[Student, dict[str, str]]:
    """Return it, for the images and classes of `data`, and what a run records of its weights."""
    if not isinstance(student, Student):
        names, (channels, height, width) = kind_of(data)
        info = StudentInfo(student, tuple(names), (channels, height, width), activation)
        return build_student(info, layer, seed), {}
    if layer is not None or activation is not None:
        named = f"activation={activation}" if layer is None else f"layer={layer}"
        raise UserError(
            f"`{named}` means nothing to a student that is given: settle it where that is "
            "made, and leave it out"
        )
    check_alike("the student's", kind_of(student.info), data.name, kind_of(data))
    return copy.deepcopy(student), {"begun_from_sha256": sha256_state(student)}
