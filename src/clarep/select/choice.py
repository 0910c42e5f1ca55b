"""The rows of `clarep select`: means over seeds with intervals, and the points of its curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from clarep.engine.statistics import Floats, standard_error, t_interval
from clarep.select.canonicity import Point
from clarep.select.clarep_columns import COLUMNS, FOOTNOTE, SPREAD, Column

CURVE_COLUMNS = {
    "sample_spread": Column(
        "spread of samples", SPREAD, "spread of samples: of pixels about the class's mean sample"
    ),
    "captured_energy": Column("energy", FOOTNOTE, "energy: share of |J|^2 the directions hold"),
}
"""What the rows have beside the measures of `COLUMNS`."""
ALL_COLUMNS = COLUMNS | CURVE_COLUMNS


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
    """One row of the table: t, tap, kind and k, measured over all seeds."""

    t: float
    """Share of the teacher's time axis."""
    sigma: float
    """The same as a noise level."""
    tap: str
    kind: str
    """Directions; none is guidance alone, scrambled the same of images that show nothing."""
    k: int
    """Directions projected out; 0 is guidance alone."""
    share: float
    """k as a share of the latent's dimension."""
    seeds: int
    extraneous: float | None
    """What is left that does not belong to the class: see `curve_points`. None of scrambled."""
    measures: dict[str, Estimate | None]
    """One of ALL_COLUMNS -> estimate; None where it is not known."""

    def where(self) -> dict[str, Any]:
        """Return t, tap, kind, k and sigma."""
        return {name: getattr(self, name) for name in ("t", "tap", "kind", "k", "sigma")}


def aggregate(cells: Sequence[dict[str, Any]]) -> list[Setting]:
    """Average stored cells over seeds: one Setting for each (t, tap, kind, k), in their order."""
    grouped: dict[tuple[float, float, str, str, int], list[dict[str, Any]]] = {}
    for cell in cells:
        at = cell["cell"]
        for row in cell["rows"]:
            key = (at["t"], at["sigma"], at["tap"], row["kind"], row["k"])
            grouped.setdefault(key, []).append(row)
    return [
        Setting(
            *key,
            share=rows[0]["share"],
            seeds=len(rows),
            extraneous=None if key[3] == "scrambled" else _extraneous(rows),
            measures={name: _known([row[name] for row in rows]) for name in ALL_COLUMNS},
        )
        for key, rows in grouped.items()
    ]


def curve_points(
    cells: Sequence[dict[str, Any]], num_classes: int, kind: str = "top"
) -> list[Point]:
    """Return the points of the curves of one kind, k = 0 among them, over the images of all seeds.

    An image that several seeds drew counts once, with its mean. The teacher reads it twice, at
    sigma_te and from what is decoded without a class; the mean of both counts. Beyond chance: less
    1 / labels of the teacher's posteriors, less 1 / num_classes of the judge. What is extraneous is
    the spread of backgrounds where they are known, else that of samples within their class.
    """
    rows: dict[tuple[float, str, int], list[tuple[list[int], dict[str, Any]]]] = {}
    for cell in cells:
        for row in cell["rows"]:
            if row["kind"] in (kind, "none"):
                key = (cell["cell"]["t"], cell["cell"]["tap"], row["k"])
                rows.setdefault(key, []).append((cell["images"], row))
    return [
        Point(t, tap, k, _evidence(found, num_classes), _extraneous([row for _, row in found]))
        for (t, tap, k), found in rows.items()
    ]


def _extraneous(rows: Sequence[Mapping[str, Any]]) -> float:
    known = [row["background_spread"] for row in rows]
    return fmean(row["sample_spread"] for row in rows) if None in known else fmean(known)


def _evidence(
    found: Sequence[tuple[list[int], Mapping[str, Any]]], num_classes: int
) -> dict[str, Floats]:
    """Return reader -> its evidence of every image, in the order of the images' indices."""
    values: dict[str, dict[int, list[float]]] = {}
    for images, row in found:
        for name, read in row["read"].items():
            by_teacher = name in ("posterior", "below")
            chance = 1 / (row["labels_tried"] if by_teacher else num_classes)
            of = values.setdefault("teacher" if by_teacher else name, {})
            for image, value in zip(images, read, strict=True):
                of.setdefault(image, []).append(value - chance)
    return {
        name: np.array([fmean(of[image]) for image in sorted(of)]) for name, of in values.items()
    }


def _known(values: Sequence[float | None]) -> Estimate | None:
    present = [value for value in values if value is not None]
    return estimate(present) if len(present) == len(values) else None
