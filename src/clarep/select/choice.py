"""Choosing k, tap and t: means over seeds with intervals, and the rule that recommends.

The paper's rule is unknown. Ours, in this order:

1. Eligible are the settings whose judge accuracy (mean over seeds) is at most 0.02 below that
   of guidance alone at the same t and tap: the object is kept. Where no judge knows the classes
   all settings are eligible.
2. Of these, the one with the highest mean NMI of the features given no class is the best. The
   features given the class are told it, so that their NMI flatters; they decide where the
   teacher knows no null class.
3. Settings within one standard error (of the best's mean, over seeds) of the best are ties, and
   the smallest k of them is recommended; among equal k the highest NMI. This is the
   one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from clarep.engine.statistics import standard_error, t_interval
from clarep.select.clarep_columns import COLUMNS

RULE = (
    "Eligible are settings whose judge accuracy, mean over seeds, is at most 0.02 below that of "
    "guidance alone at the same t and tap (all settings where there is no judge). Of these, the "
    "highest mean NMI of the features given no class (given the class, of a teacher that knows no "
    "null class) is the best; of all within one standard "
    "error of the best, the smallest k is recommended. The rule is ours; the paper's is unknown."
)
_JUDGE_LOSS = 0.02
_ROUNDING = 1e-9  # so that an accuracy of exactly 0.02 less is eligible

NmiBranch = Literal["nmi_null", "nmi_conditional"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    """Mean."""
    standard_error: float | None
    """Standard deviation over seeds, over the root of their number; None for one seed."""
    low: float | None
    """Lower end of the 95 % interval, Student's t over seeds; None for one seed."""
    high: float | None
    """Upper end."""


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, standard error and 95 % interval of one value a seed."""
    mean = fmean(values)
    if len(values) == 1:
        return Estimate(mean, None, None, None)
    return Estimate(mean, standard_error(values), *t_interval(values))


@dataclass(frozen=True)
class Setting:
    """One row of the table: t, tap and k, measured over all seeds."""

    t: float
    """Share of the teacher's time axis."""
    sigma: float
    """The same as a noise level."""
    tap: str
    """Layer."""
    k: int
    """Directions projected out; 0 is guidance alone."""
    share: float
    """k as a share of the latent's dimension."""
    seeds: int
    """How many seeds."""
    measures: dict[str, Estimate | None]
    """One of COLUMNS -> estimate; None where it is not known."""

    def where(self) -> dict[str, Any]:
        """Return t, tap, k and sigma."""
        return {"t": self.t, "tap": self.tap, "k": self.k, "sigma": self.sigma}

    def __str__(self) -> str:
        return f"t = {self.t:g}, tap {self.tap}, k = {self.k}"


def aggregate(cells: Sequence[dict[str, Any]]) -> list[Setting]:
    """Average stored cells over seeds: one Setting for each (t, tap, k), in the cells' order."""
    grouped: dict[tuple[float, str, int], list[dict[str, Any]]] = {}
    sigmas: dict[float, float] = {}
    for cell in cells:
        t, tap = cell["cell"]["t"], cell["cell"]["tap"]
        sigmas[t] = cell["cell"]["sigma"]
        for row in cell["rows"]:
            grouped.setdefault((t, tap, row["k"]), []).append(row)
    return [
        Setting(
            t=t,
            sigma=sigmas[t],
            tap=tap,
            k=k,
            share=rows[0]["share"],
            seeds=len(rows),
            measures={name: _known([row[name] for row in rows]) for name in COLUMNS},
        )
        for (t, tap, k), rows in grouped.items()
    ]


@dataclass(frozen=True)
class Recommendation:
    """What the rule chose, and why."""

    chosen: Setting | None
    """None where no setting is eligible."""
    best: Setting | None
    """Of the highest NMI among the eligible: `chosen`, or tied with it at a larger k."""
    runner_up: Setting | None
    """Of the highest NMI among the eligible without `chosen`."""
    reason: str
    """In words."""


def recommend(settings: Sequence[Setting], nmi: NmiBranch = "nmi_null") -> Recommendation:
    """Apply the rule at the top of this file.

    Args:
        settings: from `aggregate`, guidance alone (k = 0) at every t and tap among them.
        nmi: which branch's NMI decides.
    """
    alone = {(setting.t, setting.tap): setting for setting in settings if setting.k == 0}
    candidates = [setting for setting in settings if setting.k > 0]
    eligible = [s for s in candidates if _keeps_object(s, alone[s.t, s.tap])]
    if not eligible:
        return Recommendation(
            None,
            None,
            None,
            f"all {len(candidates)} settings lose more than {_JUDGE_LOSS} of the judge's accuracy "
            "against guidance alone at the same t and tap: try smaller k or lower t",
        )
    best = max(eligible, key=lambda setting: _nmi(setting, nmi).mean)
    top = _nmi(best, nmi)
    floor = top.mean - (top.standard_error or 0.0)
    ties = [setting for setting in eligible if _nmi(setting, nmi).mean >= floor]
    chosen = min(ties, key=lambda setting: (setting.k, -_nmi(setting, nmi).mean))
    others = [setting for setting in eligible if setting is not chosen]
    runner_up = max(others, key=lambda setting: _nmi(setting, nmi).mean, default=None)
    counts = (len(eligible), len(candidates))
    reason = _reason(chosen, best, alone[chosen.t, chosen.tap], nmi, counts)
    return Recommendation(chosen, best, runner_up, reason)


def _reason(
    chosen: Setting, best: Setting, alone: Setting, nmi: NmiBranch, counts: tuple[int, int]
) -> str:
    """Say in words why `chosen` is recommended, and what guidance alone reaches there."""
    eligible, of = counts
    branch = "no class" if nmi == "nmi_null" else "the class"
    ours, top = _nmi(chosen, nmi).mean, _nmi(best, nmi)
    judge = chosen.measures["judge_accuracy"]
    if judge is None:
        text = (
            f"no judge knows these classes, so that all {of} settings are eligible "
            "(`classifier` gives one); "
        )
    else:
        text = (
            f"{eligible} of {of} settings keep the judge's accuracy within {_JUDGE_LOSS} of "
            "guidance alone; "
        )
    if chosen is best:
        text += f"of these it has the highest NMI given {branch}, {ours:.3f}"
        if top.standard_error is None:
            text += " (one seed: there is no standard error, so that only equals tie)"
        else:
            text += f", and no smaller k comes within one standard error ({top.standard_error:.3f})"
    else:
        within = top.standard_error or 0.0
        text += (
            f"the highest NMI given {branch} is {top.mean:.3f} at {best}, and this is the smallest "
            f"k within one standard error ({within:.3f}) of it, {ours:.3f}"
        )
    text += f"; guidance alone there reaches {_nmi(alone, nmi).mean:.3f}"
    if _nmi(alone, nmi).mean >= ours:
        text += " (no less, so that the projection gains nothing by this measure)"
    before = alone.measures["judge_accuracy"]
    if judge is not None and before is not None:
        text += f", and the judge's accuracy is {judge.mean:.2f} against {before.mean:.2f}"
    return text


def _keeps_object(setting: Setting, alone: Setting) -> bool:
    ours, before = setting.measures["judge_accuracy"], alone.measures["judge_accuracy"]
    if ours is None or before is None:
        return True
    return ours.mean >= before.mean - _JUDGE_LOSS - _ROUNDING


def _nmi(setting: Setting, branch: NmiBranch) -> Estimate:
    known = setting.measures[branch]
    assert known is not None  # it takes labels alone, and a null class for nmi_null
    return known


def _known(values: Sequence[float | None]) -> Estimate | None:
    present = [value for value in values if value is not None]
    return estimate(present) if len(present) == len(values) else None
