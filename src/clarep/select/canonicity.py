"""The rule that chooses t and k: how far the class still stands in a latent, image by image.

A latent is canonical as long as its class can be read from it by whoever is not told the class.
`Evidence` of an image is what its reader gives the own class beyond chance; a latent "stands" by
another of the same images where it keeps nine tenths of that, and surely four fifths. Surely: the
lower end of the one-sided 95 % interval of the ratio of two paired means (Fieller, J. R. Stat. Soc.
B 16, 1954), with one image more counted that lost all, so that fewer images make the rule stricter
and never laxer. Noise levels and then ks are tried from the mildest on, and the first that fails
ends the walk: in a fixed sequence each may be tested at the full level.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clarep.engine.statistics import Floats, t_quantile

KEPT, SURELY = 0.9, 0.8
"""Share of the class evidence that must be kept on the images, and surely on others."""
RULE = (
    f"t is the highest at which the inverted latents keep {KEPT:g} (surely {SURELY:g}) of the "
    "class evidence of the lowest t, all lower ones doing so too; k is the largest at which the "
    "latents keep as much of what they had, all smaller ones doing so too. Class evidence is what "
    "the teacher's own posterior gives the class beyond chance and, where a judge is, how often it "
    "is right on what is decoded without a class and, for k, with guidance. Surely: lower 95 % "
    "limit of the ratio of paired means over images, one image more counted as lost. The rule is "
    "ours; the paper's is unknown."
)

Evidence = Mapping[str, Floats]
"""What reads the class -> what each image's latent (N,) holds of it, 0 at chance. NaN is none."""
TOLD = "guided_right"
"""The one evidence whose reader sees samples that were drawn with the label."""


@dataclass(frozen=True)
class Point:
    """A point of the canonicity curve: latents at one t, without the top k directions at one tap.

    The points of a curve hold the same images in the same order.
    """

    t: float
    """Share of the teacher's time axis."""
    tap: str
    k: int
    """Directions projected out; 0 is the reconstruction's latent, and guidance alone."""
    evidence: Evidence
    extraneous: float = float("nan")
    """What is left that does not belong to the class, such as the spread of backgrounds."""

    def __str__(self) -> str:
        return f"t = {self.t:g}, tap {self.tap}, k = {self.k}"


@dataclass(frozen=True)
class Kept:
    """How much of the class evidence is left, by the reader that finds least."""

    share: float
    low: float
    """Lower end of its one-sided 95 % interval; minus infinity where there was none to keep."""
    by: str = ""
    """The reader."""

    @property
    def stands(self) -> bool:
        """Whether enough is surely left."""
        return self.share >= KEPT and self.low >= SURELY

    def __str__(self) -> str:
        if self.low == -np.inf:
            return "nothing that can be told from chance"
        # Rounded down, so that no 0.90 is said to be less than 0.9.
        share, low = (math.floor(100 * max(value, 0)) / 100 for value in (self.share, self.low))
        return f"{share:.2f} (surely {low:.2f})"


@dataclass(frozen=True)
class Choice:
    """What the rule chose, and why."""

    chosen: Point | None
    """None where the teacher does not read the class at any t: nothing is recommended."""
    stands: bool
    """Whether the class surely stands there; else it is the least harmful of what was measured."""
    reason: str
    """In one sentence."""
    cleanest: Point | None = None
    """Of all settings at which the class stands the one that leaves least that is extraneous."""

    def where(self) -> dict[str, Any]:
        """Return t, tap and k, None where nothing is recommended."""
        return where(self.chosen)


def where(point: Point | None) -> dict[str, Any]:
    """Return t, tap and k of a point, None without one."""
    return {name: getattr(point, name, None) for name in ("t", "tap", "k")}


def share_kept(before: Floats, after: Floats) -> tuple[float, float]:
    """Return mean(after) / mean(before) of paired values (N,), and its lower 95 % limit.

    The limit counts one image more, of the mean before and 0 after. It is minus infinity where
    the mean before cannot be told from 0.
    """
    images = len(before)
    b = np.append(before, before.mean())
    a = np.append(after, 0.0)
    cov = np.cov(np.stack([a, b])) / (images + 1)
    mean_a, mean_b = a.mean(), b.mean()
    squared = t_quantile(0.95, images) ** 2
    tells = mean_b**2 - squared * cov[1, 1]
    if not _above_chance(before) or tells <= 0:
        return float("nan") if mean_b <= 0 else float(after.mean() / before.mean()), -np.inf
    middle = mean_a * mean_b - squared * cov[0, 1]
    root = middle**2 - tells * (mean_a**2 - squared * cov[0, 0])
    return float(after.mean() / before.mean()), float((middle - root.clip(0) ** 0.5) / tells)


def kept(before: Evidence, after: Evidence) -> Kept:
    """Return how much is left, by the reader that finds least."""
    found = []
    for name in before.keys() & after.keys():
        known = np.isfinite(before[name]) & np.isfinite(after[name])
        found.append(Kept(*share_kept(before[name][known], after[name][known]), name))
    return min(found, key=lambda one: (one.stands, one.low, one.by))


def class_left(reference: Point, point: Point) -> float:
    """Return the share of a reference's class evidence that a point holds, by who finds least.

    Samples drawn with the label are left out: 0 is chance, 1 as much as the reference, NaN where
    the reference itself cannot be told from chance.
    """
    held = _untold(reference.evidence)
    if not all(_above_chance(values) for values in held.values()):
        return float("nan")  # nothing was there to be left
    means = [np.nanmean(point.evidence[name]) / np.nanmean(held[name]) for name in held]
    return float(min(means))


def standing_ts(points: Sequence[Point]) -> tuple[list[float], tuple[float, Kept] | None]:
    """Return the ts, rising, at which the latents hold the class, and the next with what it keeps.

    Of the lowest t nothing is asked but evidence above chance; where it has none, no t stands.
    """
    latents = {point.t: point for point in points if point.k == 0}
    lowest, *others = [latents[t] for t in sorted(latents)]
    if not all(_above_chance(values) for values in _untold(lowest.evidence).values()):
        return [], None
    standing = [lowest.t]
    for point in others:
        left = kept(_untold(lowest.evidence), _untold(point.evidence))
        if not left.stands:
            return standing, (point.t, left)
        standing.append(point.t)
    return standing, None


def choose(points: Sequence[Point]) -> Choice:
    """Apply `RULE` to the curves of top directions, the points of k = 0 among them.

    Of several taps at the same t the one with least that is extraneous is taken.
    """
    curves: dict[tuple[float, str], list[Point]] = {}
    for point in sorted(points, key=lambda one: (one.t, one.k)):
        curves.setdefault((point.t, point.tap), []).append(point)
    standing, fell = standing_ts(points)
    if not standing:
        return Choice(None, False, _unread(next(iter(curves.values()))[0]))
    last = [_last_standing(curve) for (t, _), curve in curves.items() if t in standing]
    if ends := [end for end in last if end is not None]:
        best = min(ends, key=lambda end: (-end.t, end.extraneous, -end.k))
        reason = _reason(best, curves, standing[-1], fell)
        cleanest = min(ends, key=lambda end: end.extraneous)
        if cleanest.extraneous < best.extraneous:
            reason += f" ({cleanest} keeps the class too and leaves {cleanest.extraneous:.2f})"
        return Choice(best, True, reason, cleanest)
    first = [curve[1] for (t, _), curve in curves.items() if t in standing and len(curve) > 1]
    if not first:
        raise ValueError("the curves hold no projection")
    least = max(first, key=lambda one: (_left(one, curves).low, _left(one, curves).share))
    few = _too_few(len(next(iter(least.evidence.values()))))
    return Choice(
        least,
        False,
        f"no k keeps {KEPT:g} (surely {SURELY:g}) of the class evidence at any t{few}: the least "
        f"harmful of what was measured is {least}, which keeps {_left(least, curves)}",
    )


def _last_standing(curve: Sequence[Point]) -> Point | None:
    """Return the largest k that stands with all smaller ones; None if the smallest does not."""
    last = None
    for point in curve[1:]:
        if not kept(curve[0].evidence, point.evidence).stands:
            break
        last = point
    return last


def _left(point: Point, curves: Mapping[tuple[float, str], Sequence[Point]]) -> Kept:
    return kept(curves[point.t, point.tap][0].evidence, point.evidence)


def _untold(evidence: Evidence) -> dict[str, Floats]:
    return {name: values for name, values in evidence.items() if name != TOLD}


def _above_chance(values: Floats) -> bool:
    """Whether the mean of (N,), one image more counted as 0, is surely above 0."""
    counted = np.append(values[np.isfinite(values)], 0.0)
    if len(counted) < 3:
        return False
    error = counted.std(ddof=1) / np.sqrt(len(counted))
    return bool(counted.mean() > t_quantile(0.95, len(counted) - 1) * error)


def _too_few(images: int) -> str:
    perfect = np.full(images, 0.5)
    if images > 1 and share_kept(perfect, perfect)[1] >= SURELY:
        return ""
    return f" (not even if no image of {images} lost its class: take more)"


def _unread(lowest: Point) -> str:
    means = {name: f"{np.nanmean(v):+.2f}" for name, v in _untold(lowest.evidence).items()}
    listed = ", ".join(f"{name} {mean}" for name, mean in sorted(means.items()))
    return (
        f"the class cannot be read from the latents even at the lowest t = {lowest.t:g}, without "
        f"any projection (beyond chance: {listed}): nothing is recommended; take lower t, more "
        "images, or a teacher that knows these classes"
    )


def _reason(
    chosen: Point,
    curves: Mapping[tuple[float, str], Sequence[Point]],
    highest: float,
    fell: tuple[float, Kept] | None,
) -> str:
    """Say in one sentence why `chosen`, and what comes next in the walk."""
    curve = curves[chosen.t, chosen.tap]
    why_t = "the highest t measured"
    if fell is not None:
        why_t = "the highest t at which the latents hold the class (of what they hold at the "
        why_t += f"lowest t, t = {fell[0]:g} keeps {fell[1]})"
    if chosen.t < highest:
        why_t = "the highest t at which a projection keeps the class "
        why_t += f"(t = {highest:g} holds it without)"
    larger = [point for point in curve if point.k > chosen.k]
    why_k = "the largest k measured"
    if larger:
        why_k = "the largest k that keeps the class "
        why_k += f"(k = {larger[0].k} keeps {_left(larger[0], curves)})"
    left = f"with {_left(chosen, curves)} of its evidence"
    text = f"{chosen.t:g} is {why_t} and {chosen.k} {why_k}, {left}"
    if np.isfinite(chosen.extraneous) and np.isfinite(curve[0].extraneous):
        text += f"; the extraneous spread goes from {curve[0].extraneous:.2f} to "
        text += f"{chosen.extraneous:.2f}"
    return text
