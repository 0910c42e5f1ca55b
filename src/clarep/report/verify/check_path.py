"""All that clarep wrote below a path, checked kind by kind."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clarep.clarid.canonical_shards import MANIFEST
from clarep.clarid.close_set import close_set
from clarep.clarid.set_pictures import PICTURES
from clarep.data.labelled import LabelledImages
from clarep.engine.lock import hold, hold_place, is_leftover
from clarep.engine.places import Place, Remote, place_of
from clarep.errors import UserError
from clarep.report.verify.audit_faults import AUDIT, audit_faults, is_audit
from clarep.report.verify.evaluation_faults import evaluation_faults, is_evaluation
from clarep.report.verify.faults import Fault, is_own
from clarep.report.verify.file_faults import file_faults
from clarep.report.verify.set_faults import is_set, mend_set, set_faults
from clarep.report.verify.training_faults import TRAINING, is_training, training_faults
from clarep.robustness.evaluation import ARRAYS_NAME, EVALUATION_NAME

_KINDS = ("canonical sets", "audits", "evaluations", "trainings", "other files")
_READ = frozenset({".json", ".toml", ".safetensors"})


@dataclass
class Checked:
    """What was looked at, what is wrong, and what was done about it."""

    faults: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_KINDS, 0)))
    """How many of each kind were looked at."""
    done: list[str] = field(default_factory=list)
    """What `repair` and `finish` did, a line each."""


def check_path(where: Path | str, data: LabelledImages | None = None) -> Checked:
    """Check all that clarep wrote at a file, below a folder, or of a set under an address.

    data: the images that artefacts are said to be of.

    Raises UserError where there is nothing that clarep wrote.
    """
    place, checked = place_of(where), Checked()
    if isinstance(place, Remote):
        if not is_set(place):
            raise UserError(f"{place} holds no canonical set, and no other kind is checked there")
        checked.counts["canonical sets"] += 1
        checked.faults += set_faults(place, data)
        return checked
    assert place.folder is not None
    root = place.folder
    if root.is_file():
        _check_file(root, checked)
        if not sum(checked.counts.values()):
            raise UserError(f"{root} is of no kind that is checked alone: give its folder")
        return checked
    if not root.is_dir():
        raise UserError(f"there is nothing at {root}: give what a clarep command wrote")
    for folder, names in _folders(root):
        _check_folder(folder, names, data, checked)
    if not sum(checked.counts.values()):
        raise UserError(f"{root} holds nothing that clarep wrote: give a run's folder, or above it")
    return checked


def mend_path(where: Path | str, found: Checked) -> list[str]:
    """Delete what is broken and can be made again, and make manifests of what is whole.

    Says what was done, a line each. Raises UserError for a folder that a process writes in.
    """
    done = []
    for place in _sets(where):
        done += mend_set(place)
    for path in dict.fromkeys(path for fault in found.faults for path in fault.drop):
        if path.exists() and is_own(path):
            _lock = hold(path.parent)
            path.unlink(missing_ok=True)
            done.append(f"dropped {path}")
    return done


def left_wrong(
    where: Path | str, found: Checked, data: LabelledImages | None = None
) -> list[Fault]:
    """Look again after a repair: what is wrong still, but for what the same command goes on with.

    found: what `check_path` told before, of the same data.
    """
    try:
        faults = check_path(where, data).faults
    except UserError:  # all that lay there was dropped
        faults = [fault for fault in found.faults if not fault.drop]
    return [fault for fault in faults if not fault.goes_on]


def close_sets(where: Path | str) -> list[str]:
    """Close every canonical set of which all shards are there; say so, a line each.

    Raises UserError where a process, of a part too, still writes in it.
    """
    done = []
    for place in _sets(where):
        _lock = hold_place(place)
        if close_set(place):
            done.append(f"closed {place}")
    return done


def _sets(where: Path | str) -> Iterator[Place]:
    place = place_of(where)
    folders = [place] if place.folder is None else map(place_of, _only_folders(place.folder))
    for one in folders:
        if is_set(one):
            yield one


def _only_folders(root: Path) -> list[Path]:
    return [folder for folder, _ in _folders(root)] if root.is_dir() else []


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield all folders below, in order, with the names of the files in each."""
    for folder, inner, names in os.walk(root):
        inner.sort()
        yield Path(folder), sorted(names)


def _check_folder(
    folder: Path, names: list[str], data: LabelledImages | None, checked: Checked
) -> None:
    own: set[str] = set()
    place = place_of(folder)
    if is_set(place):
        checked.counts["canonical sets"] += 1
        checked.faults += set_faults(place, data)
        own |= {MANIFEST, PICTURES, *(name for name in names if name.startswith("shard-"))}
    elif is_audit(folder):
        checked.counts["audits"] += 1
        checked.faults += audit_faults(folder, data)
        own |= set(AUDIT)
    if is_evaluation(folder):
        checked.counts["evaluations"] += 1
        checked.faults += evaluation_faults(folder)
        own |= {EVALUATION_NAME, ARRAYS_NAME}
    if is_training(folder):
        checked.counts["trainings"] += 1
        checked.faults += training_faults(folder, data)
        own |= set(TRAINING)
    for name in names:
        if name not in own:
            _check_file(folder / name, checked)


def _check_file(path: Path, checked: Checked) -> None:
    if path.suffix in _READ or is_leftover(path):
        checked.counts["other files"] += 1
        checked.faults += file_faults(path)
