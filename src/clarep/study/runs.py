"""Run folders as a comparison reads them: what was trained, how, and what was measured on it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clarep.distill.trainer.run_folder import whole
from clarep.distill.trainer.train_state import GIGAOPS
from clarep.engine.artefacts import read_json
from clarep.engine.identity import differences
from clarep.errors import UserError, said_by
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.measures import MEASURE_GROUPS, measure_of
from clarep.robustness.suite.suite_config import GROUPS

Config = Mapping[str, Any]
RUNS = "runs"
"""Folder of a study that holds its runs."""
STUDENT = "student"
ROBUSTNESS = "robustness"
STUDENT_CONFIG = "config.json"
STUDY_NAME = "study.json"
"""File of a run that a recipe made: its name there, such as a variant's."""

_RUN_FOLDERS = "give run folders that clarep distill or clarep run wrote"
_DATA = ("data", "data_options", "data_sha256")
"""Of student/config.json: what it was trained on."""
_SETTINGS = ("method", "student", "layer", *_DATA, "train", "options", "canon", "teacher_sha256")
"""Of student/config.json: what runs that are averaged have in common, but for the seed."""
_TEST = ("seed", "suite", "data")
"""Of an evaluation's configuration: what runs that are compared have in common, beside the images
of each group."""


@dataclass(frozen=True)
class StudiedRun:
    """One trained and evaluated student."""

    folder: Path
    """The run."""
    name: str
    """What its seeds are averaged under: its name in a recipe, or its method."""
    seed: int
    """Of its training."""
    config: dict[str, Any]
    """Student/config.json."""
    evaluation: Evaluation
    """Robustness/."""


def groups_of(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the groups of measures that were asked for."""
    return tuple(evaluation.config.get("suite", {}).get("groups", ()))


def read_run(folder: Path | str) -> StudiedRun:
    """Read a run's student and evaluation; raises UserError that says what is missing."""
    folder = Path(folder)
    path = folder / STUDENT / STUDENT_CONFIG
    try:
        config = read_json(path)
        name, seed = str(config["method"]), int(config["seed"])
        studied = folder / STUDY_NAME
        if studied.exists():
            name = str(read_json(studied)["name"])
    except (FileNotFoundError, NotADirectoryError):
        inner = folder / RUNS
        mend = f"give {inner}/*" if inner.is_dir() else _RUN_FOLDERS
        raise UserError(
            f"{folder} holds no trained student (no {STUDENT}/{STUDENT_CONFIG}): {mend}"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} ({said_by(error)}): train it again") from error
    if not (folder / ROBUSTNESS).is_dir():
        raise UserError(
            f"{folder} was not evaluated (no {ROBUSTNESS}/): run clarep evaluate {folder}"
        )
    return StudiedRun(folder, name, seed, config, evaluation_of(folder, config))


def evaluation_of(folder: Path, config: dict[str, Any]) -> Evaluation:
    """Load a run's evaluation; raises UserError also if it is of other weights than config says."""
    evaluation = Evaluation.load(folder / ROBUSTNESS)
    ours, theirs = (one.get("student_sha256") for one in (config, evaluation.config))
    if ours and theirs and ours != theirs:
        raise UserError(
            f"{folder / ROBUSTNESS} was measured on other weights than {STUDENT}/ holds, or by an "
            f"earlier clarep (SHA-256 {theirs[:12]} there, {ours[:12]} here): run clarep evaluate "
            f"{folder} again"
        )
    return evaluation


def caveats(runs: Iterable[tuple[str, Evaluation]]) -> list[str]:
    """Return what evaluations, by the names of their runs, say against their own figures."""
    return gathered((name, evaluation.config.get("caveat", "")) for name, evaluation in runs)


def gathered(said: Iterable[tuple[str, str]]) -> list[str]:
    """Return each text once, behind the names of all that it is said of."""
    names: dict[str, list[str]] = {}
    for name, text in said:
        names.setdefault(text, []).append(name)
    return [f"{', '.join(names[text])}: {text}" for text in names if text]


def unshared_groups(runs: Sequence[StudiedRun]) -> dict[str, str]:
    """Return the groups of measures that some runs have and others were not asked for, and why."""
    keys = {m.key for run in runs for m in run.evaluation.measurements}
    measured = {measure_of(key).group for key in keys}
    lacking = {
        group: [str(run.folder) for run in runs if group not in groups_of(run.evaluation)]
        for group in GROUPS
        if group in measured
    }
    return {
        group: f"left out, since not measured on {', '.join(names)}: clarep evaluate, with the "
        "options that the others were evaluated with, measures it"
        for group, names in lacking.items()
        if names
    }


def training_over(configs: Sequence[Config], base: Sequence[Config]) -> float | None:
    """Return the counted operations of trainings over those of others, means of each.

    configs: student/config.json of each. None where one has not counted them, or there is none.
    """
    counts = [[config.get(GIGAOPS) for config in some] for some in (configs, base)]
    known = [[float(count) for count in some if count] for some in counts]
    if not all(known) or [len(some) for some in known] != [len(configs), len(base)]:
        return None
    own, plain = (sum(some) / len(some) for some in known)
    return own / plain


def group_runs(runs: Sequence[StudiedRun]) -> dict[str, list[StudiedRun]]:
    """Return the runs by name, in the order given.

    Raises UserError where two runs cannot be averaged or compared: of other training data, test
    images or suite; of one name but other settings; of one name and seed.
    """
    groups: dict[str, list[StudiedRun]] = {}
    for i, run in enumerate(runs):
        for earlier in runs[:i]:  # not the first alone, which may lack what two others share
            _check_comparable(earlier, run)
            if earlier.name == run.name:
                _check_same_method(earlier, run)
        groups.setdefault(run.name, []).append(run)
    return groups


def _check_comparable(first: StudiedRun, run: StudiedRun) -> None:
    """Raise UserError unless both learned from the same data and met the same test.

    What single groups of measures follow from is held against each other where both have them.
    """
    places = (f"in {first.folder}", f"in {run.folder}")
    data = [{key: r.config.get(key) for key in _DATA} for r in (first, run)]
    if difference := differences(data[0], data[1], places):
        raise UserError(
            f"{first.folder} and {run.folder} were trained on other data ({difference}): "
            "compare runs of the same training data"
        )
    configs = [first.evaluation.config, run.evaluation.config]
    named = ("data_options", *_TEST) if all("data_options" in c for c in configs) else _TEST
    tests = [{key: config.get(key) for key in named} for config in configs]
    shared = set(groups_of(first.evaluation)) & set(groups_of(run.evaluation))
    apart = {s for name, g in MEASURE_GROUPS.items() if name not in shared for s in g.settings}
    for test, config in zip(tests, configs, strict=True):
        suite = config.get("suite", {})
        test["suite"] = {key: suite[key] for key in suite if key not in ("groups", *apart)}
        if "corruptions" in shared:
            test["official_corruptions"] = config.get("official_corruptions")
    for key in ("data_sha256", "ood", "beyond"):  # content: of groups, and of sets by their names
        known = [config.get(key) or {} for config in configs]
        for test, ours in zip(tests, known, strict=True):
            both = {name: ours[name] for name in known[0] if name in known[1]}
            if key == "data_sha256":
                test[key] = both
                continue
            for name, content in both.items():
                hashes = [content[of][:12] for of in sorted(content) if of != "place"]
                test[f"{key} {name}"] = " ".join(hashes)
    if difference := differences(tests[0], tests[1], places):
        raise UserError(
            f"{first.folder} and {run.folder} were not measured alike ({difference}): "
            "evaluate both with the same test data and settings"
        )
    labels = [r.evaluation.arrays.get("label") for r in (first, run)]
    if labels[0] is not None and labels[1] is not None and not torch.equal(labels[0], labels[1]):
        raise UserError(
            f"{first.folder} and {run.folder} were measured on other test images (their labels "
            "differ): evaluate both on the same ones"
        )


def _check_same_method(other: StudiedRun, run: StudiedRun) -> None:
    """Raise UserError unless the runs, of one name, differ in their seed and in nothing else."""
    places = (f"in {other.folder}", f"in {run.folder}")
    if difference := differences(_settings(other), _settings(run), places):
        raise UserError(
            f"{other.folder} and {run.folder} are both {run.name} but differ ({difference}): "
            "seeds of one setting are averaged, so compare one setting of it, or give each a "
            "name in a recipe ([variants.NAME])"
        )
    if other.seed == run.seed:
        raise UserError(
            f"{other.folder} and {run.folder} are both {run.name} with seed {run.seed}: "
            "give each run once"
        )


def _settings(run: StudiedRun) -> dict[str, Any]:
    """Return how the run was trained, without its seed.

    The hash of a canonical set's manifest is left out: a set that is made again has another one,
    because the manifest tells the seconds.
    """
    config, without = whole(run.config), {"train": "seed", "canon": "sha256"}
    settings = {key: config.get(key) for key in _SETTINGS}
    for key, left_out in without.items():
        if isinstance(value := settings[key], dict):
            settings[key] = {k: v for k, v in value.items() if k != left_out}
    return settings
