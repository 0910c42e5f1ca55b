"""The folder of a training, a student's or a teacher's: config, checkpoint, records, weights."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from clarep.data.labelled import LabelledImages
from clarep.engine.artefacts import parse_json, read_json
from clarep.engine.identity import differences
from clarep.engine.training_folder import (
    CHECKPOINT_NAME,
    CONFIG_NAME,
    HISTORY_NAME,
    WRITES_RECORDS,
    read_checkpoint,
    read_records,
)
from clarep.errors import UserError, said_by
from clarep.report.verify.faults import Fault, inner_tensors, not_finite, refusal
from clarep.students.student_files import STUDENT_NAME, load_student
from clarep.teachers.unet_teacher import WEIGHTS_NAME, load_unet

TRAINING = (CONFIG_NAME, CHECKPOINT_NAME, HISTORY_NAME, STUDENT_NAME, WEIGHTS_NAME)


def is_training(folder: Path) -> bool:
    """Tell whether a training was made in a folder."""
    there = [name for name in TRAINING if (folder / name).is_file()]
    return bool(there) and there != [CONFIG_NAME]


def training_faults(folder: Path, data: LabelledImages | None = None) -> Iterator[Fault]:
    """Yield all that is wrong with a training. data: that it is said to be of."""
    config: dict[str, Any] | None = None
    path = folder / CONFIG_NAME
    try:
        config = read_json(path)
    except FileNotFoundError:
        pass  # as of weights that somebody copied
    except (OSError, ValueError) as error:
        again = "run the same command again, which writes it anew"
        yield Fault(str(path), f"it cannot be read ({said_by(error)}): {again}", _made_again(path))
    state = yield from _checkpoint_faults(folder, config)
    student, teacher = folder / STUDENT_NAME, folder / WEIGHTS_NAME
    if student.exists():
        yield from refusal(student, lambda: load_student(student), _made_again(student))
    if teacher.exists():
        yield from refusal(teacher, lambda: load_unet(teacher), _made_again(teacher))
    yield from _record_faults(folder, config, state)
    known = config or {}
    whole = not known.get("skipped") and "data_sha256" in known
    if data is not None and whole and known["data_sha256"] != data.sha256():
        yield Fault(str(path), f"it was trained on other images or labels than {data.name}")


def _made_again(file: Path) -> tuple[Path, ...]:
    """Return the file if the same command makes it again, from the checkpoint beside it."""
    return (file,) if file.with_name(CHECKPOINT_NAME).exists() else ()


def _is_teachers(config: dict[str, Any] | None) -> bool:
    return config is not None and "held_out_sha256" in config


def _record_faults(
    folder: Path, config: dict[str, Any] | None, state: dict[str, Any]
) -> Iterator[Fault]:
    path = folder / HISTORY_NAME
    if not path.exists() and not state.get("history"):
        return
    unit = "step" if (folder / WEIGHTS_NAME).exists() or _is_teachers(config) else "epoch"
    faults = list(refusal(path, lambda: read_records(folder, unit), _made_again(path)))
    yield from faults
    known = state.get("history", [])
    if not faults and read_records(folder, unit)[: len(known)] != known:
        what = f"it lacks records that the checkpoint holds: {WRITES_RECORDS}"
        yield Fault(str(path), what, (path,))


def _checkpoint_faults(
    folder: Path, config: dict[str, Any] | None
) -> Generator[Fault, None, dict[str, Any]]:
    """Yield what is wrong with the checkpoint; return the state in it, empty if it has none."""
    file = folder / CHECKPOINT_NAME
    if not file.exists():
        return {}
    try:
        state = read_checkpoint(file)
        told = parse_json(state.pop("config"))
    except (UserError, ValueError, LookupError, TypeError) as error:
        mend = "repair leaves it: put a copy back, or delete it and begin anew"
        yield Fault(str(file), f"{error}; {mend}")
        return {}
    if lost := not_finite(dict(inner_tensors(state))):
        yield Fault(str(file), f"{lost[0]} holds NaN or infinity: begin anew, at a lower rate")
    if config is not None:
        own = {key: config.get(key) for key in told}
        if other := differences(own, told, ("in config.json", "in the checkpoint")):
            yield Fault(str(file), f"it is of another run than {CONFIG_NAME} tells ({other})")
    return state
