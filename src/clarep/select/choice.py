"""Choosing k, tap and t: means over seeds with intervals, and the rule that recommends.

The paper's rule is unknown; ours is `RULE`. The features given the class are told it, so that their
NMI flatters. Ties within one standard error are those of Breiman et al., Classification and
Regression Trees, 1984; among ties of equal k the highest NMI is taken.
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
    standard_error: float | None
    """Standard deviation over seeds, over the root of their number; None for one seed."""
    low: float | None
    high: float | None
    """Ends of the 95 % interval, Student's t over seeds; None for one seed."""


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
    k: int
    """Directions projected out; 0 is guidance alone."""
    share: float
    """k as a share of the latent's dimension."""
    seeds: int
    measures: dict[str, Estimate | None]
    """One of COLUMNS -> estimate; None where it is not known."""

    def where(self) -> dict[str, Any]:
        """Return t, tap, k and sigma."""
        return {"t": self.t, "tap": self.tap, "k": self.k, "sigma": self.sigma}

    def known(self, name: str) -> Estimate:
        """Return a measure that labels alone suffice for."""
        found = self.measures[name]
        assert found is not None
        return found

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
            measures={name: _known([row.get(name) for row in rows]) for name in COLUMNS},
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


def recommend(settings: Sequence[Setting], nmi: NmiBranch = "nmi_null") -> Recommendation:
    """Apply `RULE`.

    Args:
        settings: from `aggregate`, guidance alone (k = 0) at every t and tap among them.
        nmi: which branch's NMI decides.
    """
    alone = {(setting.t, setting.tap): setting for setting in settings if setting.k == 0}
    candidates = [setting for setting in settings if setting.k > 0]
    eligible = [s for s in candidates if _keeps_object(s, alone[s.t, s.tap])]
    if not eligible:
        lost = (
            f"all {len(candidates)} settings lose more than {_JUDGE_LOSS} of the judge's accuracy "
            "against guidance alone at the same t and tap: try smaller k or lower t"
        )
        return Recommendation(None, None, None, lost)
    best = max(eligible, key=lambda setting: setting.known(nmi).mean)
    top = best.known(nmi)
    ties = [s for s in eligible if s.known(nmi).mean >= top.mean - (top.standard_error or 0)]
    chosen = min(ties, key=lambda setting: (setting.k, -setting.known(nmi).mean))
    others = [setting for setting in eligible if setting is not chosen]
    runner_up = max(others, key=lambda setting: setting.known(nmi).mean, default=None)
    judged = f"{len(eligible)} of {len(candidates)} settings keep the judge's accuracy within "
    judged += f"{_JUDGE_LOSS} of guidance alone"
    if chosen.measures["judge_accuracy"] is None:
        judged = f"no judge knows these classes, so that all {len(candidates)} settings are "
        judged += "eligible (`classifier` gives one)"
    reason = _reason(chosen, best, alone[chosen.t, chosen.tap], nmi)
    return Recommendation(chosen, best, runner_up, f"{judged}; {reason}")


def _reason(chosen: Setting, best: Setting, alone: Setting, nmi: NmiBranch) -> str:
    """Say in words why `chosen` is recommended, and what guidance alone reaches there."""
    branch = "no class" if nmi == "nmi_null" else "the class"
    ours, top, without = (s.known(nmi).mean for s in (chosen, best, alone))
    error = best.known(nmi).standard_error
    if chosen is not best:
        text = (
            f"the highest NMI given {branch} is {top:.3f} at {best}, and this is the smallest k "
            f"within one standard error ({error or 0:.3f}) of it, {ours:.3f}"
        )
    else:
        text = f"of these it has the highest NMI given {branch}, {ours:.3f}"
        text += (
            " (one seed: there is no standard error, so that only equals tie)"
            if error is None
            else f", and no smaller k comes within one standard error ({error:.3f})"
        )
    text += f"; guidance alone there reaches {without:.3f}"
    if without >= ours:
        text += " (no less, so that the projection gains nothing by this measure)"
    judge, before = (setting.measures["judge_accuracy"] for setting in (chosen, alone))
    if judge is not None and before is not None:
        text += f", and the judge's accuracy is {judge.mean:.2f} against {before.mean:.2f}"
    return text


def _keeps_object(setting: Setting, alone: Setting) -> bool:
    ours, before = setting.measures["judge_accuracy"], alone.measures["judge_accuracy"]
    if ours is None or before is None:
        return True
    return ours.mean >= before.mean - _JUDGE_LOSS - _ROUNDING


def _known(values: Sequence[float | None]) -> Estimate | None:
    present = [value for value in values if value is not None]
    return estimate(present) if len(present) == len(values) else None
