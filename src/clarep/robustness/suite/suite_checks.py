"""What is checked before the suite measures anything: that student, data and settings fit."""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clarep.data.fits import check_alike, check_data, kind_of
from clarep.data.labelled import LabelledImages
from clarep.data.sets.natural import BEYOND, NaturalSet, load_natural
from clarep.data.sets.official_corruptions import OfficialSets, load_official_sets
from clarep.engine.identity import differences
from clarep.errors import UserError, unknown_name
from clarep.robustness.corruptions.mce import Baseline, baseline_of, mean_corruption_error
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.measures import MEASURE_GROUPS
from clarep.robustness.probe import Answers
from clarep.robustness.suite.suite_config import GROUPS, SuiteConfig
from clarep.robustness.suite.suite_inputs import PARTS_NAME, sha256_read
from clarep.robustness.tested_student import choose_images
from clarep.students.student import Student

_LATE = 2.0  # seconds that a shared folder may take to show what another machine wrote


def found_late(find: Callable[[], Evaluation | None], folder: Path, part: str) -> Evaluation:
    """Return what a worker measured; raises UserError if it is not there, nor a moment later."""
    found = find()
    if found is None:
        time.sleep(_LATE)
        found = find()
    if found is None:
        raise UserError(
            f"{folder / PARTS_NAME / part} was written by a worker and cannot be read here: look "
            "whether all machines see that folder, and run the same command again, which measures "
            "what is missing"
        )
    return found


def check_fit(student: Student, data: LabelledImages) -> None:
    """Raise UserError unless the student's classes, two or more, and image shape are the data's."""
    if not isinstance(student, Student):
        raise UserError(
            f"{type(student).__name__} is no Student: give load_student(folder) of one that was "
            "trained here, or Student.from_module(net, class_names, "
            "image_shape), which takes any torch classifier (docs/students.md)"
        )
    check_data(data)
    if len(data.class_names) < 2:
        raise UserError(
            f"{data.name} holds one class, '{data.class_names[0]}', and every answer would be "
            "right: give data of two classes or more"
        )
    check_alike("the student's", kind_of(student.info), data.name, kind_of(data))


def check_folder(folder: Path) -> None:
    """Raise UserError now for a folder that could not be written in after all is measured."""
    for place in (folder, *folder.parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise UserError(
                    f"nothing can be written in {place} (no permission): give another `out`"
                )
            return
        if place.exists() or place.is_symlink():
            raise UserError(f"{place} is no folder: give `out` a folder, or remove that file")


def left_out_of(
    grouped: Mapping[str, Sequence[object]],
    answers: Answers | None,
    config: SuiteConfig,
    data: LabelledImages,
) -> tuple[set[str], str]:
    """Return which groups cannot be measured, and why, in words; or nothing.

    grouped: the parts of each group that was asked for; none where the data have nothing for it.
    answers: what is known of the student's; None for nothing.

    Raises UserError where they were named: only those of the default list are left out.
    """
    found = {} if answers is None else answers.lacking
    needs: dict[str, list[str]] = {}
    for name, parts in grouped.items():
        if not parts or name in found:
            needs.setdefault(found.get(name) or MEASURE_GROUPS[name].needs, []).append(name)
    if not needs:
        return set(), ""
    names = [name for name in grouped if any(name in of_need for of_need in needs.values())]
    reasons = "; ".join(
        f"{' and '.join(of_need)} {'needs' if len(of_need) == 1 else 'need'} {need}"
        for need, of_need in needs.items()
    )
    why = f"cannot be measured on {data.name} ({reasons})"
    if config.groups != GROUPS:
        raise UserError(
            f"`groups={' '.join(names)}` {why}: give what is needed, or name other groups"
        )
    return set(names), f"{', '.join(names)} {why} and {'is' if len(names) == 1 else 'are'} left out"


def check_reference(reference: Student | None, data: LabelledImages) -> None:
    """Raise UserError for a reference, if there is one, that does not fit the data."""
    try:
        if reference is not None:
            check_fit(reference, data)
    except UserError as error:
        why = f"`reference` does not fit: {error}; or leave `reference` out"
        raise UserError(why) from None


def check_ood(given: Collection[str], config: SuiteConfig) -> None:
    """Raise UserError for sets of no class, by their names, that no group would measure."""
    if given and "ood" not in config.groups:
        raise UserError(
            f"`ood` gives {', '.join(given)}, which `groups={' '.join(config.groups)}` leaves "
            "unmeasured: add ood to `groups`, or leave `ood` out"
        )


def found_corrupted(
    folder: Path | None, baseline: Evaluation | None, config: SuiteConfig, data: LabelledImages
) -> tuple[OfficialSets | None, dict[str, Any] | None, Baseline | None]:
    """Return official corrupted images, what tells them, and what errors are divided by.

    None of what is not given, and all three where no corruptions are measured.
    """
    files, official, scale = None, None, None
    if "corruptions" in config.groups:
        if folder is not None:
            files, official = found_official(folder, config, data)
        if baseline is not None:
            scale = scale_of(baseline, config, data, official)
    return files, official, scale


def found_official(
    folder: Path, config: SuiteConfig, data: LabelledImages
) -> tuple[OfficialSets, dict[str, Any]]:
    """Return official corrupted images, and where they were found with each one's content."""
    sets = load_official_sets(folder, config.corruptions, config.severities, data)
    indices = choose_images(data.labels, config.corruption_images, config.seed)
    read = {
        name: [images.sha256(indices) for images in of_severity.values()]
        for name, of_severity in sets.items()
    }
    return sets, {"place": str(folder), "sha256": read}


def scale_of(
    evaluation: Evaluation,
    config: SuiteConfig,
    data: LabelledImages,
    official: dict[str, Any] | None,
) -> Baseline:
    """Return what corruption errors are divided by, of the evaluation of the baseline.

    Raises UserError for one that was not measured on the very same images (`data`, or those that
    `found_official` tells of): its errors would be those of another task.
    """
    read = sha256_read(data, None, config, "corruptions")
    stored, suite = evaluation.config, evaluation.config.get("suite", {})
    files, there = stored.get("official_corruptions"), stored.get("data_sha256", {})
    if there.get("corruptions") is None:
        raise UserError(
            "the baseline's evaluation does not say which images it corrupted, or it corrupted "
            "none: evaluate it again, with corruptions among its `groups`"
        )
    theirs = {"data_sha256": there["corruptions"], "severities": suite.get("severities")}
    ours: dict[str, Any] = {"data_sha256": read, "severities": list(config.severities)}
    if theirs["data_sha256"] != read:  # then these may say why
        theirs |= {"corruption_images": suite.get("corruption_images"), "seed": stored.get("seed")}
        ours |= {"corruption_images": config.corruption_images, "seed": config.seed}
    shared = (files or {"sha256": {}})["sha256"].keys() & (official or {"sha256": {}})["sha256"]
    for side, known in ((theirs, files), (ours, official)):
        content = None if known is None else {name: known["sha256"][name] for name in shared}
        side["official_corruptions"] = content
    if found := differences(theirs, ours):
        raise UserError(
            f"the baseline was measured on other images ({found}), so that its errors are no "
            "measure of these: give both the same test data, `severities`, `corruption_images`, "
            "`seed` and `official_corruptions`"
        )
    doubts = {one.untrustworthy for one in evaluation.measurements if "corruption/" in one.key}
    if reasons := "; ".join(sorted(filter(None, doubts))):
        raise UserError(
            f"the baseline's own figures under corruptions are not trustworthy ({reasons}): give "
            "another `baseline`"
        )
    baseline = baseline_of(evaluation, str(evaluation.config.get("run", "the baseline")))
    one_right = torch.ones(1, 1, dtype=torch.bool)
    mean_corruption_error({name: one_right for name in config.corruptions}, baseline)
    return baseline


def told_apart(stored: dict[str, Any], now: dict[str, Any]) -> str:
    """Name in what the configurations of two evaluations differ; empty if they do not.

    Which images were read follows from the suite's options too, and counts where these agree.
    """
    read, ours = stored.get("data_sha256", {}), now["data_sha256"]
    groups = [group for group in ours if group in read]
    alike = stored.get("suite") == now["suite"] or all(read[g] == ours[g] for g in groups)
    configs = []
    for config, known in ((stored, read), (now, ours)):
        # Keys that another version did not write are no settings, nor are names of run and data.
        kept = {key: config[key] for key in now if key in stored and key not in ("run", "data")}
        if kept.get("student_sha256"):
            kept.pop("student_fingerprint", None)  # it says the same
        content = {"data_sha256": {group: known[group] for group in groups}} if alike else {}
        configs.append({key: kept[key] for key in kept if key != "data_sha256"} | content)
    return differences(configs[0], configs[1])


def named_paths(given: Sequence[str]) -> dict[str, Path]:
    """Read NAME=PATH of each set; raises UserError for an unknown name, or one given twice."""
    paths: dict[str, Path] = {}
    for text in given:
        name, _, path = text.partition("=")
        if name not in BEYOND:
            raise unknown_name("test set", name, BEYOND)
        if not path:
            raise UserError(f"`beyond={text}` names no path: give {name}=PATH")
        if name in paths:
            raise UserError(f"`beyond` gives {name} twice: name each set once")
        paths[name] = Path(path)
    return paths


def load_beyond(
    paths: Mapping[str, Path], student: Student, data: LabelledImages
) -> list[NaturalSet]:
    """Load natural test sets by name and path; `data` is the student's own test set.

    Raises UserError as `load_natural` does, and for images of another shape than the student's.
    """
    loaded = []
    names, side = student.info.class_names, student.info.image_shape[1]
    for name, given in paths.items():
        try:
            one = load_natural(name, Path(os.path.expanduser(given)), names, side, data)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        known, shape = kind_of(one.images)
        check_alike("the student's", (known, student.info.image_shape), name, (known, shape))
        loaded.append(one)
    return loaded
