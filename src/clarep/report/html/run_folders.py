"""What the report reads of each run folder, and runs of one setting gathered over seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clarep.distill.trainer.run_folder import whole
from clarep.engine.artefacts import read_json
from clarep.engine.statistics import t_interval
from clarep.errors import UserError
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
    missing, config, evaluation = [], {}, None
    path = folder / STUDENT / STUDENT_CONFIG
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"is broken ({error})"
        mend = (
            "train it again, with the options that it was begun with"
            if (folder / STUDENT).is_dir()
            else "clarep distill records that, clarep evaluate of another library's model does not"
        )
        missing.append(f"{name}: {path} {reason}, so how it was trained is not known: {mend}")
    try:
        evaluation = evaluation_of(folder, config)
    except (UserError, OSError) as error:
        if (folder / ROBUSTNESS / EVALUATION_NAME).exists():
            missing.append(f"the evaluation of {name} cannot be used: {error}")
        elif (folder / STUDENT / STUDENT_NAME).exists():
            missing.append(f"{name} is not evaluated: `clarep evaluate {folder}` measures it")
        elif config:
            missing.append(_without_weights(folder, name))
    return ReportRun(folder, name, config, evaluation, tuple(missing), _variant(folder))


def _without_weights(folder: Path, name: str) -> str:
    return (
        f"{name} has no weights (no {STUDENT}/{STUDENT_NAME}), so nothing can be measured on it: "
        f"`clarep distill --out {folder}` with the options that it was begun with trains it to "
        f"the end, and then `clarep evaluate {folder}` measures it"
    )


def _variant(folder: Path) -> str:
    """Return what a recipe calls the run; empty if none made it."""
    try:
        return str(read_json(folder / STUDY_NAME)["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def group_runs(runs: Sequence[ReportRun]) -> list[Group]:
    """Gather runs of one method and setting, in the order in which they were given.

    Two settings of one method are told apart in the label by the options that differ.
    """
    readable = [run for run in runs if run.config or run.evaluation is not None]
    configs = {run.name: whole(run.config) for run in readable}
    settings = {
        name: _flat({key: config[key] for key in _SETTINGS if key in config})
        for name, config in configs.items()
    }
    gathered: dict[str, list[ReportRun]] = {}
    for run in readable:
        if "data_sha256" in settings[run.name]:
            settings[run.name].pop("data_options.data", None)  # the path of the same content
        key = json.dumps([run.method, settings[run.name]], sort_keys=True)
        gathered.setdefault(key, []).append(run)
    groups: list[Group] = []
    for members in gathered.values():
        method = members[0].method
        others = [run for run in readable if run.method == method and run not in members]
        differing = _differing(settings[members[0].name], [settings[o.name] for o in others])
        label = f"{method} ({', '.join(differing)})" if differing else method
        slot = _free_slot(method, {group.slot for group in groups})
        groups.append(Group(label, method, slot, tuple(members)))
    return groups


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration, without what a repetition changes."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if key in _NOT_SETTINGS:
            continue
        if isinstance(inner, dict):
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def _differing(ours: dict[str, Any], others: Sequence[dict[str, Any]]) -> list[str]:
    keys = [key for key in ours if any(other.get(key) != ours[key] for other in others)]
    return [_named(key.split(".")[-1], ours[key]) for key in keys]


def _named(key: str, value: object) -> str:
    """Name an option and its value, a hash by its first digits."""
    if key.endswith("sha256"):
        return f"{key.removesuffix('sha256').strip('_')} {str(value)[:_SHOWN_OF_HASH]}".strip()
    return f"{key.replace('_', ' ')} {value}"


def _free_slot(method: str, taken: set[int]) -> int:
    reserved = _RESERVED.get(method)
    if reserved is not None and reserved not in taken:
        return reserved
    return next(i for i in range(len(_RESERVED), len(_RESERVED) + len(taken) + 1) if i not in taken)


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
