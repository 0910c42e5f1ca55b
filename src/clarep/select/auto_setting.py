"""An automatic t and k on images of the data: the rule of `canonicity`, and no more than it needs.

Inverted latents are read at every t, which says how high t may be; only there, and further down
while no k stands, directions are found and taken out.
"""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarep.clarid.clarid_config import AUTO, ClaridConfig, check_config
from clarep.clarid.directions import SPARING
from clarep.data.labelled import LabelledImages
from clarep.engine.printable import counted
from clarep.engine.progress import announce, duration, progress
from clarep.errors import UserError, check_type
from clarep.select.canonicity import Point, choose, standing_ts
from clarep.select.choice import curve_points
from clarep.select.class_evidence import LEVELS, MOST_LABELS
from clarep.select.grid import GridConfig, plan_grid
from clarep.select.grid_results import load_cells, walk_grid
from clarep.select.judging import Scorer
from clarep.teachers.stored_setting import FoundSetting
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

IMAGES = 40


def auto_setting(
    teacher: Teacher | str | Path,
    data: LabelledImages,
    config: ClaridConfig | None = None,
    *,
    folder: Path | str | None = None,
    among: NDArray[np.int64] | None = None,
    judge: Scorer | None = None,
    described: Mapping[str, Any] | None = None,
    images: int = IMAGES,
    seed: int = 0,
) -> FoundSetting:
    """Return the highest t and the largest k that leave the class in the latents of a few images.

    >>> import clarep
    >>> data = clarep.load_data(clarep.DataConfig(data="backdrops"))
    >>> few = clarep.ClaridConfig(t=0.3, k=3, steps=1)
    >>> found = clarep.auto_setting("backdrops", data, few, images=6)
    >>> found.t, found.k, found.stands  # of 6 images nothing is sure
    (0.3, 3, False)

    Args:
        teacher: any `Teacher`, or what `load_teacher` takes.
        data: images of its classes.
        config: of which a t or k that is a number is taken as it is, and tap, branch, guidance,
            steps, batch_size, label of inversion and kind are (controls take top's); the defaults
            without it.
        folder: where what was measured stays, so that a killed call goes on; without it nowhere.
        among: rising indices of the images to draw from; all without it.
        judge: of the teacher's classes, who is asked too.
        described: what tells judge and data from others; JSON values.
        images: how many are drawn, two of a class at least and as evenly as there are images: of
            a rare class all, of the others more. Of so many classes that there are not enough for
            all, a random part of the classes.
        seed: of the draw, the solver's start and the noise.

    Raises:
        UserError: where the class cannot be read from the latents at any t; for a teacher of one
            class, data that do not fit it or have no class of two images, or a `folder` that holds
            the measures of another setting.
    """
    teacher = teacher if isinstance(teacher, Teacher) else load_teacher(teacher)
    check_type("data", data, LabelledImages, "what load_data gives")
    config = config or ClaridConfig()
    check_config(config)
    if config.sigma is not None:
        raise UserError(
            f"`sigma={config.sigma}` is given, and what is to be found goes by t: leave it out"
        )
    drawn = _drawn_from(data, among, images, seed)
    kind: Any = config.kind if config.kind in SPARING else "top"
    asked = _of_latents(config, teacher, len(drawn), seed)
    kept_in = TemporaryDirectory() if folder is None else nullcontext(str(folder))
    with kept_in as place:
        walk = _Walk(teacher, data, drawn, kind, judge, dict(described or {}), Path(place))
        points = walk.points(asked, "latents")
        for t in reversed(standing_ts(points)[0]):
            at = walk.points(replace(asked, t=(t,), kind=(kind,)), f"t-{t:g}")
            points = [point for point in points if point.t != t] + at
            if choose(points).stands:
                break
    choice = choose(points)
    if choice.chosen is None:
        raise UserError(f"{choice.reason}, or give `t` and `k`")
    return FoundSetting(
        t=choice.chosen.t,
        tap=choice.chosen.tap,
        k=choice.chosen.k,
        branch=config.branch,
        stands=choice.stands,
        reason=choice.reason,
        by=f"{len(drawn)} images of {data.name}, seed {seed}",
    )


def _of_latents(config: ClaridConfig, teacher: Teacher, images: int, seed: int) -> GridConfig:
    """Return what is measured of inverted latents, from which nothing is taken out yet."""
    return GridConfig(
        t=_levels(teacher) if config.t in (None, AUTO) else (float(config.t),),
        tap=(config.tap,),
        k=_counts(teacher.latent_dim) if config.k in (None, AUTO) else (config.k,),
        kind=(),
        seeds=(seed,),
        images=images,
        guidance=config.guidance,
        steps=config.steps,
        branch=config.branch,
        inversion_label=config.inversion_label,
        batch_size=config.batch_size,
    )


@dataclass(frozen=True)
class _Walk:
    """Measures of the drawn images, kept in folders within a place."""

    teacher: Teacher
    data: LabelledImages
    drawn: NDArray[np.int64]
    kind: str
    judge: Scorer | None
    described: dict[str, Any]
    place: Path

    def points(self, asked: GridConfig, name: str) -> list[Point]:
        """Return what is measured as `asked`; of the latents alone, the first, with an estimate."""
        grid = plan_grid(self.teacher, self.data, asked, drawn=self.drawn)
        steps = walk_grid(grid, self.described, self.place / name, self.judge)
        start, began = next(steps), time.monotonic()
        first, then = expected_evaluations(self.teacher, asked, self.judge is not None)
        if not (asked.kind or start.done):
            announce(
                f"setting: {counted(len(self.drawn), 'image')} of "
                f"{_classes(self.data, self.drawn)}: {first:,} denoiser evaluations at t = "
                f"{', '.join(f'{t:g}' for t in asked.t)}, then {then:,} and the {self.kind} "
                "directions at one t, or at more where no k keeps the class"
            )
        with progress("setting", "noise levels", start.total, start.done) as advance:
            for step in steps:
                advance(step.new)
                if not asked.kind and step.done == 1:
                    rate = (time.monotonic() - began) * len(asked.t) / first
                    in_all = duration(rate * (first + then))
                    announce(f"setting: about {in_all} in all, and the directions besides")
        cells = load_cells(grid, self.place / name)
        return curve_points(cells, self.teacher.num_classes, self.kind)


def _counts(n: int) -> tuple[int, ...]:
    """Return the default ks as numbers of n directions, each once."""
    shares = [float(k) for k in GridConfig.k]
    return tuple(sorted({max(1, round(share * n)) for share in shares}))


def _levels(teacher: Teacher) -> tuple[float, ...]:
    """Return the default ts that lie in the teacher's range."""

    def lies_inside(t: float) -> bool:
        try:
            teacher.sigma_from_t(t)
        except UserError:
            return False
        return True

    inside = tuple(t for t in GridConfig.t if lies_inside(t))
    if not inside:
        raise UserError(f"no t of {GridConfig.t} lies in the teacher's range: give `t`")
    return inside


def expected_evaluations(teacher: Teacher, asked: GridConfig, judged: bool) -> tuple[int, int]:
    """Return the denoiser evaluations of all latents, and of all ks at one of the ts.

    Without those of where the teacher reads the class. judged: whether a judge is asked too.
    """
    walk = 2 * asked.steps + 1  # Heun's, and the last step
    guided = walk if asked.guidance == 1 else 2 * walk
    posterior = 2 * LEVELS * min(teacher.num_classes, MOST_LABELS)
    each = guided + posterior
    if teacher.has_null:
        each += walk + posterior
    if judged:
        each += walk + (0 if asked.guidance == 1 else guided)
    inverted = 4 * asked.steps  # and back
    return (
        len(asked.t) * asked.images * (inverted + each),
        asked.images * (inverted + (1 + len(asked.k)) * each),
    )


def _classes(data: LabelledImages, drawn: NDArray[np.int64]) -> str:
    counts = np.unique(data.labels[drawn], return_counts=True)[1]
    low, high = counts.min(), counts.max()
    return f"{counted(len(counts), 'class')}, {low if low == high else f'{low} to {high}'} each"


def _drawn_from(
    data: LabelledImages, among: NDArray[np.int64] | None, images: int, seed: int
) -> NDArray[np.int64]:
    """Return rising indices of at most `images` images, drawn as evenly as the classes allow."""
    given = np.arange(len(data)) if among is None else np.sort(among)
    labels = data.labels[given]
    present, members = np.unique(labels, return_counts=True)
    usable, most = present[members >= 2], images // 2
    if most < 1 or not len(usable):
        raise UserError(
            "an automatic setting takes two images of a class at least: give `t` and `k`, or more "
            "images"
        )
    if len(usable) > most:
        usable = np.sort(np.random.default_rng(seed).choice(usable, most, replace=False))
    members = members[np.isin(present, usable)]
    each = max(n for n in range(2, images + 1) if np.minimum(members, n).sum() <= images)
    rng = np.random.default_rng(seed)
    drawn = [
        rng.choice(given[labels == label], min(each, int(count)), replace=False)
        for label, count in zip(usable, members, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
