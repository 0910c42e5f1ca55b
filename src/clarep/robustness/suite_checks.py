"""What is checked before the suite measures anything: that its ingredients fit each other."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from clarep.data.labelled import LabelledImages
from clarep.distill.student import Student
from clarep.distill.students import check_classes
from clarep.errors import UserError
from clarep.robustness.corruptions import Baseline, baseline_of, mean_corruption_error
from clarep.robustness.corruptions.official import OfficialSets, load_official_sets
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.probe import Answers
from clarep.robustness.suite_config import GROUPS, SuiteConfig

_OBJECT = "masks or boxes that tell the object from its background"
_NEEDS = {
    "backgrounds": _OBJECT,
    "focus": _OBJECT,
    "attacks": "a radius (--eps-255 2, say) or --cw",
    "ood": "images of none of the classes (--ood)",
}
"""What a group cannot be measured without; the others apply to all images."""


def check_fit(student: Student, data: LabelledImages) -> None:
    """Raise UserError unless the student's classes and image shape are the data's."""
    check_classes(student, data.class_names)
    height, width, channels = data.read(0).shape
    given, wanted = (channels, height, width), student.info.image_shape
    if given != wanted:
        raise UserError(
            f"the student takes images of {wanted[2]}x{wanted[1]} with {wanted[0]} channels and "
            f"{data.name} holds {width}x{height} with {channels}: give --image-size {wanted[1]}, "
            "or the data that it was trained on"
        )


def check_reference(reference: Student, data: LabelledImages) -> None:
    """Raise UserError unless the student of the transfer check is one of the same data."""
    info, (height, width, channels) = reference.info, data.read(0).shape
    if tuple(info.class_names) != tuple(data.class_names):
        ours, theirs = _few(data.class_names), _few(info.class_names)
        raise UserError(
            f"the reference tells apart {theirs}, and {data.name} holds {ours}: "
            "give --reference a student of the same classes, or leave it out"
        )
    if info.image_shape != (channels, height, width):
        wanted = info.image_shape
        raise UserError(
            f"the reference takes images of {wanted[2]}x{wanted[1]} with {wanted[0]} channels and "
            f"{data.name} holds {width}x{height} with {channels}: "
            "give --reference a student of the same size, or leave it out"
        )


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{len(listed)} classes ({', '.join(listed[:3])}{' ...' if len(listed) > 3 else ''})"


def check_folder(folder: Path) -> None:
    """Raise UserError now for a folder that could not be written in after all is measured."""
    for place in (folder, *folder.parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise UserError(
                    f"nothing can be written in {place} (no permission): give another --out"
                )
            return
        if place.exists() or place.is_symlink():
            raise UserError(f"{place} is no folder: give --out a folder, or remove that file")


def lacking_of(grouped: Mapping[str, Sequence[object]], answers: Answers | None) -> dict[str, str]:
    """Return which groups cannot be measured, and what they need.

    grouped: the parts of each group that was asked for; none where the data have nothing for it.
    answers: what is known of the student's; None for nothing.
    """
    found = {} if answers is None else answers.lacking
    return {
        name: found.get(name) or _NEEDS[name]
        for name, parts in grouped.items()
        if not parts or name in found
    }


def check_groups(config: SuiteConfig, lacking: Mapping[str, str], data: LabelledImages) -> str:
    """Return why groups are left out, in words; empty if none is.

    lacking: groups that were asked for and cannot be measured -> what they need.

    Raises UserError where they were named: only those of the default list are left out.
    """
    if not lacking:
        return ""
    reasons = []
    for need in dict.fromkeys(lacking.values()):
        names = [name for name in lacking if lacking[name] == need]
        reasons.append(f"{' and '.join(names)} {'needs' if len(names) == 1 else 'need'} {need}")
    why = f"cannot be measured on {data.name} ({'; '.join(reasons)})"
    if config.groups == GROUPS:
        return f"{', '.join(lacking)} {why} and {'is' if len(lacking) == 1 else 'are'} left out"
    raise UserError(
        f"--groups {' '.join(lacking)} {why}: give what is needed, or name other groups"
    )


def official_sets(folder: Path, config: SuiteConfig, data: LabelledImages) -> OfficialSets:
    """Read the official corrupted images that are asked for; raises UserError."""
    return load_official_sets(folder, config.corruptions, config.severities, data)


def scale_of(evaluation: Evaluation, config: SuiteConfig, official: Path | None) -> Baseline | None:
    """Return what corruption errors are divided by.

    Raises UserError now for a baseline that would only be refused after all is measured.
    """
    if "corruptions" not in config.groups:
        return None
    there = evaluation.config.get("suite", {}).get("severities")
    if there != list(config.severities):
        raise UserError(
            f"the baseline was measured at the severities {there} and this student would be at "
            f"{list(config.severities)}: give both the same --severities"
        )
    was_official = evaluation.config.get("official_corruptions") is not None
    if was_official != (official is not None):
        ways = ("generated corruptions", "official files")
        raise UserError(
            f"the baseline was measured on {ways[was_official]} and this student would be on "
            f"{ways[not was_official]}: give both the same --official-corruptions, or neither"
        )
    doubts = {one.untrustworthy for one in evaluation.measurements if "corruption/" in one.key}
    if reasons := "; ".join(sorted(filter(None, doubts))):
        raise UserError(
            f"the baseline's own figures under corruptions are not trustworthy ({reasons}): give "
            "another --baseline"
        )
    baseline = baseline_of(evaluation, str(evaluation.config.get("run", "the baseline")))
    one_right = torch.ones(1, 1, dtype=torch.bool)
    mean_corruption_error({name: one_right for name in config.corruptions}, baseline)
    return baseline
