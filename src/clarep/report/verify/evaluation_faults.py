"""An evaluation: its figures within their intervals, and made of the values beside them."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from clarep.engine.artefacts import sha256_file
from clarep.errors import UserError
from clarep.report.verify.faults import Fault
from clarep.robustness.evaluation import ARRAYS_NAME, EVALUATION_NAME, Evaluation, Measurement
from clarep.students.student_files import STUDENT_NAME
from clarep.study.runs import STUDENT

_CLOSE = 1e-6


def is_evaluation(folder: Path) -> bool:
    """Tell whether an evaluation, or a part of one, lies in a folder."""
    return (folder / EVALUATION_NAME).is_file() or (folder / ARRAYS_NAME).is_file()


def evaluation_faults(folder: Path) -> Iterator[Fault]:
    """Yield all that is wrong with an evaluation."""
    file, files = str(folder / EVALUATION_NAME), (folder / EVALUATION_NAME, folder / ARRAYS_NAME)
    try:
        found = Evaluation.load(folder)
    except UserError as error:
        yield Fault(file, str(error), files)
        return
    again = "run clarep evaluate again"
    counts = Counter(one.key for one in found.measurements)
    if twice := [key for key, count in counts.items() if count > 1]:
        yield Fault(file, f"{twice[0]} is in it twice: {again}", files)
    for one in found.measurements:
        if what := _wrong(one, found):
            yield Fault(file, f"{one.key} {what}: {again}", files)
    student = folder.parent / STUDENT / STUDENT_NAME
    told = found.config.get("student_sha256")
    if told is not None and student.exists() and sha256_file(student) != told:
        yield Fault(file, f"it is of another student than {student}: {again}")


def _wrong(one: Measurement, found: Evaluation) -> str:
    """Say what is wrong with a figure; empty if nothing is."""
    low, high = one.interval
    if math.isnan(one.value):
        return "is no number"
    if one.images < 0:
        return f"is said to be of {one.images} images"
    if low > one.value + _CLOSE or high < one.value - _CLOSE:
        return f"is {one.value:g}, outside its interval [{low:g}, {high:g}]"
    values = found.arrays.get(one.key)
    if values is None or values.ndim != 1 or len(values) != one.images:
        return ""
    mean = float(values.double().mean())
    near = math.isclose(mean, one.value, rel_tol=1e-5, abs_tol=1e-5)
    return "" if near or mean == one.value else f"is {one.value:g} and its values' mean {mean:g}"
