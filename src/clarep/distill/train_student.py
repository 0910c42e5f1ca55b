"""Train a student in one call: what `clarep distill` does, as functions."""

import copy
from pathlib import Path
from typing import Any

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.labelled import LabelledImages
from clarep.distill.distill_config import DistillConfig
from clarep.distill.methods import Method
from clarep.distill.trainer.student_run import StudentRun
from clarep.engine.progress import progress
from clarep.engine.tracker import Tracker
from clarep.errors import check_arguments, check_type
from clarep.students.student import Student
from clarep.students.student_files import load_student


def train_student(
    data: LabelledImages,
    out: Path | str,
    *,
    method: str | type[Method] = "vanilla",
    options: Any = None,
    config: DistillConfig | None = None,
    tracker: Tracker | None = None,
    **parts: Any,
) -> Student:
    """Train a student by any method into a folder, or go on with the run that is in it.

    Args:
        data: the training images.
        out: the folder.
        method: a name of `METHODS`, or a `Method` of your own.
        options: of the method, an instance of its `Config`; without them those in `config`, of
            your own its defaults.
        config: how to train.
        tracker: of curves; None is TensorBoard where it is installed, in the run's `tensorboard/`.
        parts: student, activation, layer, canonical, teacher, classifier, audit, data_options and
            skip_bad of `StudentRun`.

    Returns:
        The picked student, on the CPU, in evaluation mode.

    Raises:
        UserError: as `StudentRun` does, and for an argument that there is not.
    """
    check_type("out", out, (str, Path), "a folder")
    check_arguments(parts, StudentRun, DistillConfig)
    run = StudentRun(data, Path(out), method=method, options=options, config=config, **parts)
    walk(run, tracker)
    run.finish()
    given = parts.get("student")
    return load_student(out, into=copy.deepcopy(given) if isinstance(given, Student) else None)


def cadistill(
    data: LabelledImages,
    canonical: CanonicalSet | Path | str,
    out: Path | str,
    *,
    config: DistillConfig | None = None,
    **parts: Any,
) -> Student:
    """Train a student by CaDistill with a canonical set, or the folder that holds it.

    Everything else is as in `train_student`.
    """
    return train_student(data, out, method="cadistill", config=config, canonical=canonical, **parts)


def walk(run: StudentRun, tracker: Tracker | None = None) -> None:
    """Train a run to its end with progress on stderr, of the main process."""
    if not run.is_main:
        for _ in run.records():
            pass
        return
    images = len(run.images)
    total, done = run.config.epochs * images, run.epoch * images
    with progress("training", "images", total, done) as advance:
        for _ in run.records(advance, tracker):
            pass
