"""Methods x measures: means over seeds with intervals, and differences from vanilla, tested."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clarep.engine.figure_rows import FigureRows
from clarep.engine.printable import counted
from clarep.engine.statistics import holm, least_share_difference, paired_bootstrap, t_interval
from clarep.errors import UserError, check_type, unknown_name
from clarep.robustness.cue_groups import merged_groups
from clarep.robustness.measures import DEFAULT_MEASURES, measure_of
from clarep.study.runs import (
    StudiedRun,
    caveats,
    gathered,
    group_runs,
    read_run,
    training_over,
    unshared_groups,
)

REFERENCE = "vanilla"
_LEVEL = 0.05
_MCE = "corruption/mce"
_WORST_GROUP = "clean/worst_group"


@dataclass(frozen=True)
class Difference:
    """How a method's measure differs from the reference's, image by image."""

    value: float
    """Method minus reference, both averaged over their seeds."""
    interval: tuple[float, float]
    """95 %, paired bootstrap over images, of the worst group within groups."""
    p_value: float
    """Two-sided, of the same bootstrap."""
    p_holm: float
    """Corrected for all tests of the table."""


@dataclass(frozen=True)
class Cell:
    """One measure of one method."""

    measure: str
    """The measurement's key."""
    value: float
    """Mean over seeds."""
    interval: tuple[float, float]
    """95 %: Student's t over seeds, of one seed the evaluation's own, over images."""
    difference: Difference | None
    """None for the reference itself and where there are no per-image values to pair."""
    untrustworthy: str
    """Why the figure must not be trusted; empty where nothing speaks against it."""
    note: str = ""
    """What else must be known of the figure; empty where nothing."""

    @property
    def verdict(self) -> str:
        """Better or worse than the reference (significantly), neither, or untested.

        Neither, too, where more of the measure is neither better nor worse.
        """
        if self.difference is None:
            return "untested"
        wanted = measure_of(self.measure).better
        if self.difference.p_holm >= _LEVEL or wanted == "neither":
            return "neither"
        return "better" if (self.difference.value > 0) == (wanted == "more") else "worse"


@dataclass(frozen=True)
class Row:
    """All measures of one method."""

    name: str
    """The method, or a recipe's variant of it."""
    seeds: tuple[int, ...]
    """Of its runs."""
    cells: tuple[Cell | None, ...]
    """One a measure; None where it was not measured on every run."""
    training: float | None = None
    """Counted operations of its training over the reference's; None where one has not counted."""


@dataclass(frozen=True, repr=False)
class Comparison(FigureRows):
    """The table."""

    reference: str | None
    """Name of the row that the others are compared with; None if there is no such row."""
    measures: tuple[str, ...]
    """Keys, the columns."""
    rows: tuple[Row, ...]
    """One a method, in the order of the runs."""
    tests: int
    """How many differences were tested: what Holm's correction corrects for."""
    notes: tuple[str, ...] = ()
    """What is left out and why, and what speaks against figures, a sentence each."""

    @property
    def title(self) -> str:
        """What is compared with what."""
        against = f" with {self.reference}" if self.reference else ""
        methods, tests = counted(len(self.rows), "method"), counted(self.tests, "difference")
        return f"Comparison of {methods}{against}, {tests} tested"

    def figure(self) -> Any:
        """Return a matplotlib figure: a panel a measure, a row a method, intervals, verdicts."""
        from clarep.study.comparison_figure import comparison_figure

        return comparison_figure(self)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a row a method and measure: value and difference from the reference, tested."""
        return [
            {
                "method": row.name,
                "seeds": len(row.seeds),
                "measure": cell.measure,
                "value": cell.value,
                "low": cell.interval[0],
                "high": cell.interval[1],
                "difference": cell.difference.value if cell.difference else math.nan,
                "p_holm": cell.difference.p_holm if cell.difference else math.nan,
                "verdict": cell.verdict,
            }
            for row in self.rows
            for cell in row.cells
            if cell is not None
        ]


def compare(
    runs: Sequence[StudiedRun | Path | str],
    measures: Sequence[str] | None = None,
    reference: str | None = None,
) -> Comparison:
    """Compare runs with each other.

    Args:
        runs: read by `read_run`, or their folders; those of one name are averaged over their seeds.
        measures: keys or patterns such as corruption/*/mean; DEFAULT_MEASURES by default.
        reference: name that the others are compared with; None takes REFERENCE, if there is a
            run of that name.

    The test asks whether these students would differ on other images of the same kind; it
    does not see what another training seed would change, which the interval over seeds shows.

    Raises:
        UserError: if there is no run, runs are not comparable, or no measure or no run has such
            a name.
    """
    mend = "a list of run folders, such as ['runs/a', 'runs/b']"
    if isinstance(runs, str) or not isinstance(runs, Sequence):
        raise UserError(f"`runs` is a {type(runs).__name__}: give {mend}")
    for run in runs:
        check_type("runs", run, (StudiedRun, str, Path), mend)
    if measures is not None and (isinstance(measures, str) or not isinstance(measures, Sequence)):
        raise UserError(f"`measures={measures!r}` is a {type(measures).__name__}: give a list")
    if measures is not None and not measures:
        raise UserError("`measures` names none: give at least one, such as clean/accuracy")
    if not runs:
        raise UserError("there is nothing to compare: give at least one run folder")
    read = [run if isinstance(run, StudiedRun) else read_run(run) for run in runs]
    groups = group_runs(read)
    unshared = unshared_groups(read)
    keys = _choose(read, measures, unshared)
    if reference is not None and reference not in groups:
        raise unknown_name("reference", reference, groups)
    present = reference or (REFERENCE if REFERENCE in groups else None)
    differences = _tested(keys, groups, present)
    base = [run.config for run in groups[present]] if present else []
    rows = tuple(
        Row(
            name,
            tuple(run.seed for run in members),
            tuple(_cell(key, members, differences.get((key, name))) for key in keys),
            training_over([run.config for run in members], base),
        )
        for name, members in groups.items()
    )
    against = caveats((str(run.folder), run.evaluation) for run in read)
    notes = (*gathered(unshared.items()), *against)
    return Comparison(present, keys, rows, len(differences), notes)


def _choose(
    runs: Sequence[StudiedRun], patterns: Sequence[str] | None, unshared: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the keys that patterns name, by pattern, each once; none of a group in `unshared`."""
    measured = dict.fromkeys(m.key for run in runs for m in run.evaluation.measurements)
    groups = {key: measure_of(key).group for key in measured}
    left = {key: unshared[group] for key, group in groups.items() if group in unshared}
    known = [key for key in measured if key not in left]
    chosen: list[str] = []
    for pattern in DEFAULT_MEASURES if patterns is None else patterns:
        matching = [key for key in known if fnmatchcase(key, pattern)]
        if not matching and patterns is not None:
            reasons = [reason for key, reason in left.items() if fnmatchcase(key, pattern)]
            if reasons:
                raise UserError(f"{pattern} is {reasons[0]}")
            raise unknown_name("measure", pattern, known)
        chosen += [key for key in matching if key not in chosen]
    if not chosen:
        raise UserError(
            f"these runs hold none of the usual measures: name some of theirs in `measures`, "
            f"{', '.join(known)}"
        )
    return tuple(chosen)


def _tested(
    keys: Sequence[str], groups: Mapping[str, Sequence[StudiedRun]], reference: str | None
) -> dict[tuple[str, str], Difference]:
    """Return (measure, method) -> difference from the reference, corrected over all of them."""
    found: dict[tuple[str, str], tuple[float, Sequence[float], float]] = {}
    for key in () if reference is None else keys:
        base_runs = groups[reference or ""]
        if key == _WORST_GROUP:
            others = {name: runs for name, runs in groups.items() if name != reference}
            tested = {name: _worst_group(runs, base_runs) for name, runs in others.items()}
            found |= {(key, name): of for name, of in tested.items() if of is not None}
            continue
        base = _per_image(key, base_runs)
        values_of = {
            name: _per_image(key, runs)
            for name, runs in groups.items()
            # An mCE says by its note what it is relative to.
            if name != reference and (key != _MCE or _notes(key, runs) == _notes(key, base_runs))
        }
        paired = {
            name: values - base
            for name, values in values_of.items()
            if values is not None and base is not None and len(values) == len(base)
        }
        if paired:
            columns = np.stack(list(paired.values()), axis=1)
            for name, interval, p in zip(paired, *paired_bootstrap(columns), strict=True):
                found[key, name] = (float(paired[name].mean()), interval, float(p))
    adjusted = holm([p for *_, p in found.values()])
    return {
        where: Difference(value, (float(low), float(high)), p, p_holm)
        for (where, (value, (low, high), p)), p_holm in zip(found.items(), adjusted, strict=True)
    }


def _worst_group(
    runs: Sequence[StudiedRun], base: Sequence[StudiedRun]
) -> tuple[float, tuple[float, float], float] | None:
    """Return the difference of the worst group, its interval and p; None without its images."""
    arrays = [run.evaluation.arrays for run in (*runs, *base)]
    needed = ("clean/accuracy", "label", "clean/cue")
    if not all(name in of_run for of_run in arrays for name in needed):
        return None
    labels, cues = arrays[0]["label"], arrays[0]["clean/cue"]
    if not all(torch.equal(of_run["clean/cue"], cues) for of_run in arrays):
        return None
    groups = merged_groups(labels.numpy(), cues.numpy())
    if groups.max() < 0:
        return None
    right = np.stack([of_run["clean/accuracy"].bool().numpy() for of_run in arrays])
    return least_share_difference(right[: len(runs)], right[len(runs) :], groups)


def _cell(key: str, runs: Sequence[StudiedRun], difference: Difference | None) -> Cell | None:
    if not all(key in run.evaluation for run in runs):
        return None
    measured = [run.evaluation[key] for run in runs]
    values = [m.value for m in measured]
    interval = t_interval(values) if len(values) > 1 else measured[0].interval
    reasons = dict.fromkeys(m.untrustworthy for m in measured if m.untrustworthy)
    value = float(np.mean(values))
    return Cell(key, value, interval, difference, "; ".join(reasons), _notes(key, runs))


def _notes(key: str, runs: Sequence[StudiedRun]) -> str:
    found = (run.evaluation[key].note for run in runs if key in run.evaluation)
    return "; ".join(dict.fromkeys(filter(None, found)))


def _per_image(key: str, runs: Sequence[StudiedRun]) -> NDArray[np.float64] | None:
    """Return a measure's per-image values averaged over runs, (N,), if all of them have some."""
    stored = [run.evaluation.arrays.get(key, torch.empty(0)) for run in runs]
    if len({array.shape for array in stored}) != 1 or stored[0].ndim != 1 or not len(stored[0]):
        return None
    return np.asarray(torch.stack(stored).double().mean(0).numpy(), np.float64)
