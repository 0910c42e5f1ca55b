"""What the report reads of each run folder, and runs of one setting gathered over seeds."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clarep.distill.trainer.run_folder import whole
from clarep.engine.artefacts import read_json
from clarep.engine.statistics import t_interval
from clarep.errors import UserError, reason
from clarep.robustness.evaluation import EVALUATION_NAME, Evaluation, Measurement
from clarep.students.student_files import STUDENT_NAME
from clarep.study.runs import (
    ROBUSTNESS,
    STUDENT,
    STUDENT_CONFIG,
    STUDY_NAME,
    StudiedRun,
    evaluation_of,
)

_PALETTE = 8  # method colours of style.css, --s0 to --s7
_SHOWN_OF_HASH = 8
_RESERVED = {"vanilla": 0, "cadistill": 1}
# Of student/config.json, what runs that are repetitions of each other have in common ...
_DATA = ("data_options", "data_sha256")
_SETTINGS = ("student", "layer", *_DATA, "train", "options", "canon", "teacher_sha256")
# ... except for these, at any depth: a set that was made again has another hash.
_NOT_SETTINGS = ("seed", "sha256")


@dataclass(frozen=True)
class ReportRun:
    """One student: how it was trained and what was measured on it, as far as it is there."""

    folder: Path
    name: str
    """Of the folder, with as much of its path as tells it from the others."""
    config: dict[str, Any]
    """Of student/config.json; empty if that cannot be read."""
    evaluation: Evaluation | None
    missing: tuple[str, ...] = ()
    """What it lacks and which command gives it, a sentence each."""
    variant: str = ""
    """Its name in the recipe that made it, if one did."""

    @property
    def method(self) -> str:
        measured = self.evaluation.config if self.evaluation else {}
        named = self.variant or self.config.get("method") or measured.get("method")
        return str(named) if named is not None else self.name

    @property
    def seed(self) -> int | None:
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else None

    def studied(self, name: str) -> StudiedRun | None:
        """Return it as a comparison takes it; None if a part is missing."""
        if self.evaluation is None or self.seed is None:
            return None
        return StudiedRun(self.folder, name, self.seed, self.config, self.evaluation)


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone: one row of a table, one colour of a chart."""

    label: str
    method: str
    slot: int
    """Number of its colour, marker and dash, the same in all charts."""
    runs: tuple[ReportRun, ...]

    @property
    def css(self) -> str:
        """Class names that give its colour, and its dash once the palette is used up."""
        return f"s{self.slot % _PALETTE}" + (" dashed" if self.slot >= _PALETTE else "")

    @property
    def evaluations(self) -> list[Evaluation]:
        return [run.evaluation for run in self.runs if run.evaluation is not None]

    def get(self, key: str) -> Measurement | None:
        """Return the figure over the group's seeds; None if no run has it."""
        found = [evaluation[key] for evaluation in self.evaluations if key in evaluation]
        return _over_seeds(found) if found else None

    def seeds_of(self, key: str) -> int:
        """Return how many runs have the figure."""
        return sum(key in evaluation for evaluation in self.evaluations)


def read_runs(folders: Sequence[Path]) -> list[ReportRun]:
    """Read what is there of each run.

    Raises UserError if no run is given, a path is no folder, none of them is readable, or one
    is given twice.
    """
    if not folders:
        raise UserError("no run is given: name at least one folder that clarep distill wrote")
    if gone := [folder for folder in folders if not folder.is_dir()]:
        what = "is no folder" if gone[0].exists() else "does not exist"
        raise UserError(f"the run {gone[0]} {what}: give folders that clarep distill wrote")
    resolved = [folder.resolve() for folder in folders]
    if twice := [f for f, r in zip(folders, resolved, strict=True) if resolved.count(r) > 1]:
        raise UserError(f"{twice[0]} is given twice: name each run once")
    runs = [
        _read(folder, name) for folder, name in zip(folders, _short_names(resolved), strict=True)
    ]
    if all(not run.config and run.evaluation is None for run in runs):
        reasons = "; ".join(reason for run in runs for reason in run.missing)
        raise UserError(f"none of the {len(runs)} runs can be read: {reasons.replace('`', '')}")
    return runs


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Name each folder by the fewest of its last parts that tell them all apart."""
    depth, most = 1, max(len(folder.parts) for folder in folders)
    while depth < most and len({f.parts[-depth:] for f in folders}) < len(folders):
        depth += 1
    return ["/".join(folder.parts[-depth:]).lstrip("/") for folder in folders]


def _read(folder: Path, name: str) -> ReportRun:
    missing, config, evaluation, variant = [], {}, None, ""
    path = folder / STUDENT / STUDENT_CONFIG
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        lost = isinstance(error, FileNotFoundError)
        why = "is missing" if lost else f"is broken ({reason(error)})"
        mend = (
            "train it again, with the options that it was begun with"
            if (folder / STUDENT).is_dir()
            else "clarep distill records that, clarep evaluate of another library's model does not"
        )
        missing.append(f"{name}: {path} {why}, so how it was trained is not known: {mend}")
    try:
        evaluation = evaluation_of(folder, config)
    except (UserError, OSError) as error:
        if (folder / ROBUSTNESS / EVALUATION_NAME).exists():
            missing.append(f"the evaluation of {name} cannot be used: {reason(error)}")
        elif (folder / STUDENT / STUDENT_NAME).exists():
            missing.append(f"{name} is not evaluated: `clarep evaluate {folder}` measures it")
        elif config:
            missing.append(
                f"{name} has no weights (no {STUDENT}/{STUDENT_NAME}), so nothing can be measured "
                f"on it: `clarep distill --out {folder}` with the options that it was begun with "
                f"trains it to the end, and then `clarep evaluate {folder}` measures it"
            )
    with suppress(OSError, ValueError, KeyError, TypeError):  # no recipe made it
        variant = str(read_json(folder / STUDY_NAME)["name"])
    return ReportRun(folder, name, config, evaluation, tuple(missing), variant)


def group_runs(runs: Sequence[ReportRun]) -> list[Group]:
    """Gather runs of one method and setting, in the order in which they were given.

    Two settings of one method are told apart in the label by the options that differ.
    """
    gathered: dict[str, list[ReportRun]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.config or run.evaluation is not None:
            config = whole(run.config)
            own = _flat({key: config[key] for key in _SETTINGS if key in config})
            if "data_sha256" in own:
                own.pop("data_options.data", None)  # the path of the same content
            key = json.dumps([run.method, own], sort_keys=True)
            gathered.setdefault(key, []).append(run)
            settings[key] = own
    groups: list[Group] = []
    for key, members in gathered.items():
        method, own = members[0].method, settings[key]
        rivals = [settings[other] for other, (run, *_) in gathered.items() if run.method == method]
        differing = [_named(name.split(".")[-1], value) for name, value in own.items()
                     if any(other.get(name) != value for other in rivals)]  # fmt: skip
        label = f"{method} ({', '.join(differing)})" if differing else method
        taken = {group.slot for group in groups}
        slots = [_RESERVED.get(method, len(_RESERVED)), *range(len(_RESERVED), len(groups) + 3)]
        slot = next(slot for slot in slots if slot not in taken)
        groups.append(Group(label, method, slot, tuple(members)))
    return groups


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration, without what a repetition changes."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            flat |= _flat(inner, f"{prefix}{key}.")
        elif key not in _NOT_SETTINGS:
            flat[f"{prefix}{key}"] = inner
    return flat


def _named(key: str, value: object) -> str:
    """Name an option and its value, a hash by its first digits."""
    if key.endswith("sha256"):
        return f"{key.removesuffix('sha256').strip('_')} {str(value)[:_SHOWN_OF_HASH]}".strip()
    return f"{key.replace('_', ' ')} {value}"


def _over_seeds(found: Sequence[Measurement]) -> Measurement:
    """Return one seed's figure as it is; of several, the mean and its interval over seeds."""
    if len(found) == 1:
        return found[0]
    values = [one.value for one in found]
    reasons = sorted({one.untrustworthy for one in found if one.untrustworthy})
    remarks = sorted({one.note for one in found if one.note})
    return Measurement(
        found[0].key,
        sum(values) / len(values),
        t_interval(values),
        found[0].images,
        "; ".join(reasons),
        "; ".join(remarks),
    )
