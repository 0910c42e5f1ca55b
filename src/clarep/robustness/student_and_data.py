"""What is evaluated: a student of whatever library, and the data for it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from clarep.data.files import NoSplitError
from clarep.data.held_out import HELD_OUT, marks_of_trained, seen_before
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data, load_test, stored_options
from clarep.data.npz import has_boxes
from clarep.distill.trainer.run_folder import held_out_of
from clarep.engine.artefacts import read_json
from clarep.errors import UserError, said_by
from clarep.robustness.suite.suite_checks import check_fit
from clarep.robustness.suite.suite_config import SuiteConfig
from clarep.robustness.suite.suite_inputs import widest
from clarep.students.foreign_students import is_foreign, load_foreign
from clarep.students.matched_student import student_of
from clarep.students.student import Outputs, Student
from clarep.students.student_files import load_student, student_path


@dataclass(frozen=True)
class StudentAndData:
    """A student, what it is tested on, and where the evaluation goes."""

    student: Student
    data: LabelledImages
    out: Path
    described: dict[str, Any]
    """Of its evaluation's configuration."""
    notes: tuple[str, ...] = ()
    """What is otherwise than one may expect."""
    warning: str = ""
    """Why the figures should not be trusted."""


def student_and_data(
    spec: str,
    given: dict[str, Any],
    out: Path | None,
    suite: SuiteConfig,
    *,
    weights: Path | None = None,
    class_names: str | None = None,
    outputs: Outputs | None = None,
) -> StudentAndData:
    """Return a student of whatever library and its test data: what it was trained on, or `given`.

    Args:
        spec: a run's folder, a student's file, or FAMILY:PLACE as `load_foreign` takes it.
        given: fields of `DataConfig`; `data` only if it was given.
        out: of the evaluation; None for a student of clarep's own is its run's robustness/.
        suite: tells how many images are held against those that the student was trained on.
        weights, class_names, outputs: of `load_foreign`; nothing else takes them.

    Raises:
        UserError: for what is missing, does not fit, or means nothing to this student.
    """
    of_foreign = {"weights": weights, "class_names": class_names, "outputs": outputs}
    if not is_foreign(spec):
        for name, value in of_foreign.items():
            if value is not None:
                raise UserError(
                    f"`{name}={value}` means nothing to a student of clarep's own: leave it out"
                )
        return _own_student(spec, given, out, suite)
    if out is None:
        raise UserError(f"{spec} has no run folder to write in: give one, `out`")
    if "data" not in given:
        raise UserError(f"what {spec} was trained on is not known here: give test data, `data`")
    outputs = outputs or "logits"
    model = load_foreign(spec, weights, class_names, given.get("image_size"), outputs=outputs)
    side = model.side if _can_be_resized(given["data"]) else None
    options = DataConfig(**({"image_size": side} | given))
    options, data = _load_split(options, given.get("split"))
    height, width, channels = data.read(0).shape
    described = {
        "run": spec,
        "weights": None if weights is None else str(weights),
        "class_names": class_names,
        "outputs": outputs,
        "data_options": stored_options(options),
    }
    student = model.student(data.class_names, (channels, height, width))
    return StudentAndData(student, data, out, described)


def _own_student(
    given_path: str, given: dict[str, Any], out: Path | None, suite: SuiteConfig
) -> StudentAndData:
    file = student_path(given_path)
    student = load_student(file)
    trained = trained_on(file)
    options, data, caveat = _own_images(
        file, student, test_options(trained, given), trained, given.get("split")
    )
    known = marks_of_trained(file.parent)
    seen, said = seen_before(known or (), data, widest(data, suite))
    caveat = "; ".join(filter(None, (said, caveat)))
    described = {
        "run": _home(file).name,
        "on_training_data": None if known is None else bool(seen),
        "caveat": caveat,
    }
    warning = f"{said}: figures on them are not those on new images, so give others, with `data` "
    warning += "or `split`, or remove them"
    told = f"measured on {data.name}, {len(data)} images{caveat and '; '}{caveat}"
    return StudentAndData(
        student_of(student, data.class_names),
        data,
        _home(file) / "robustness" if out is None else out,
        described | {"data_options": stored_options(options)},
        notes=(told,) if options.split == HELD_OUT else (),
        warning=warning if seen else "",
    )


def test_options(trained: DataConfig | None, given: dict[str, Any]) -> DataConfig:
    """Return the options of the test data: those that the student was trained on, but `given`."""
    if trained is None:
        return DataConfig(**given)
    if _place(given.get("data", trained.data)) == _place(trained.data):
        return replace(trained, **given)
    # Of the options of other data the size alone is the student's.
    side = trained.image_size if _can_be_resized(given["data"]) else None
    return DataConfig(**({"image_size": side} | given))


def _own_images(
    file: Path, student: Student, options: DataConfig, trained: DataConfig | None, split: str | None
) -> tuple[DataConfig, LabelledImages, str]:
    """Return what a run of clarep's own is measured on, by which options, and their caveat.

    Raises UserError where there is no such split.
    """
    is_own = trained is not None and _place(options.data) == _place(trained.data)
    if split != HELD_OUT:
        try:
            return *_load_split(options, split), ""
        except NoSplitError as error:
            undivided = error
        if split is not None:
            or_else = f"; what {file.parent} held out is `split={HELD_OUT}`" if is_own else ""
            raise NoSplitError(f"{undivided}{or_else}")
    try:
        whole = load_data(replace(options, split=trained.split if trained else DataConfig.split))
        check_fit(student, whole)
        return replace(options, split=HELD_OUT), *held_out_of(file.parent, whole)
    except UserError:
        if split is None and not is_own:
            raise undivided from None
        raise


def _load_split(options: DataConfig, split: str | None) -> tuple[DataConfig, LabelledImages]:
    """Load the split asked for; without one, what there is to test on."""
    if split is None:
        return load_test(options)
    return options, load_data(options)


def _place(data: str) -> str:
    """Return a set's name, or its path resolved."""
    path = Path(os.path.expanduser(data))
    return str(path.resolve()) if path.exists() else data


def _can_be_resized(data: str) -> bool:
    """Say whether a set takes an image size: named ones and images with boxes do not."""
    path = Path(os.path.expanduser(data))
    return path.exists() and not has_boxes(path)


def load_ood(given: Sequence[str], student: Student) -> dict[str, LabelledImages]:
    """Load sets of images of none of the student's classes, each under the name of its file.

    Raises UserError for one that cannot be read, of another size, or of another's name.
    """
    sets: dict[str, LabelledImages] = {}
    _, height, width = student.info.image_shape
    for place in given:
        name = re.sub(r"[^\w.-]+", "_", Path(place).stem) or "set"
        if name in sets:
            raise UserError(f"two sets of `ood` are called {name}: rename one of them")
        try:
            data = load_any_split(place, height)
        except UserError as error:
            raise UserError(f"`ood={place}`: {error}") from error
        shape = data.read(0).shape
        if shape[:2] != (height, width):
            raise UserError(
                f"images of `ood={place}` are {shape[1]}x{shape[0]} and the student takes "
                f"{width}x{height}: give a set of that size"
            )
        sets[name] = data
    return sets


def load_any_split(given: str, image_size: int) -> LabelledImages:
    """Load a set by its test images, or whatever split it has."""
    is_path = Path(os.path.expanduser(given)).exists()
    config = DataConfig(data=given, image_size=image_size if is_path else None)
    try:
        return load_test(config)[1]
    except NoSplitError:
        return load_data(config)


def _home(file: Path) -> Path:
    """Return the run that a student's file belongs to."""
    folder = file.absolute().parent
    return folder.parent if folder.name == "student" else folder


def trained_on(file: Path) -> DataConfig | None:
    """Return the data options that are stored beside a model's file; None if none are."""
    path = file.parent / "config.json"
    try:
        stored = read_json(path)["data_options"]
        if stored is None:  # trained in Python
            return None
        known = {one.name for one in fields(DataConfig)}
        options = {name: value for name, value in stored.items() if name in known}
        if options.get("classes_file") is not None:
            options["classes_file"] = Path(options["classes_file"])
        here = os.path.relpath(options["data"])
        if os.path.isabs(options["data"]) and not here.startswith(os.pardir):
            options["data"] = here  # as one writes it where it lies
        return DataConfig(**options)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read {path} ({said_by(error)}): train that run again, or "
            "give the student's file alone in another folder, with `data`"
        ) from error
