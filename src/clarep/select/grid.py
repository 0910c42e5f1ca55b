"""The grid that `clarep select` walks: which settings, which images, and whether they fit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import resolve_tap
from clarep.clarid.directions import parse_k
from clarep.data.labelled import LabelledImages, in_memory, to_unit_range
from clarep.engine.bounds import Seed, Within, check_bounds
from clarep.errors import UserError
from clarep.teachers.classes_by_name import check_matched
from clarep.teachers.teacher import Teacher

CONTROL_KINDS = frozenset({"centre", "random", "bottom"})
"""Directions that are measured beside those for which a setting is chosen."""


@dataclass(frozen=True)
class GridConfig:
    """Which settings of CLARID are compared, and on how many images."""

    t: tuple[float, ...] = (0.3, 0.45, 0.6, 0.75, 0.85)
    """Where to invert to, as shares of the teacher's time axis; the class evidence of the lowest is
    what that of the others is held against."""
    tap: tuple[str, ...] = ("mid",)
    """Layers whose Jacobian is taken; mid is the family's default."""
    k: tuple[int | float | str, ...] = (0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04)
    """Directions to project out: numbers, or shares of the latent's dimension. All of a kind are
    read from one basis, that of the largest."""
    kind: tuple[Literal["top", "contrast", "mask", "centre", "random", "bottom"], ...] = (
        "top",
        "random",
    )
    """Directions. A setting is chosen for the first, top (CLARID), contrast or mask; the others
    stand beside it, and with centre, random or bottom so do images that show nothing (scrambled).
    Each takes the measures of every k once more; bottom takes exact Jacobians besides, five to
    twenty times as long."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Each seed draws its own images, and its own start of the solver and of k-means."""
    images: int = 50
    """Images a seed, the same number of every class (what is left over is not used)."""
    guidance: Annotated[float, Within(0)] = 3.0
    """Classifier-free guidance of the decoding after the projection; 1 is none."""
    steps: Annotated[int, Within(1)] = 8
    """Steps of the inversion and of each decoding."""
    branch: Literal["conditional", "null"] = "conditional"
    """Label under which the Jacobian is taken."""
    inversion_label: Literal["class", "null"] = "class"
    """Label under which images are inverted: their class, or none."""
    batch_size: Annotated[int, Within(1)] = 25
    """Images that go through the teacher at once: fewer take less memory. It changes the solver's
    start and the rounding, and may change in the middle of a grid."""


@dataclass(frozen=True)
class Cell:
    """One cell: a seed's images at one t and tap, measured for every kind and k."""

    seed: int
    """Of the images, the solver's start and k-means."""
    t: float
    """Share of the teacher's time axis."""
    tap: str
    """Layer, by its own name."""

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"seed-{self.seed}_t-{self.t!r}_{self.tap.replace('/', '-')}.json"


@dataclass(frozen=True)
class Grid:
    """A grid that is known to fit its teacher and data."""

    teacher: Teacher
    """Whose features and samples are measured."""
    data: LabelledImages
    """Where the images come from."""
    config: GridConfig
    counts: tuple[int, ...]
    """Every k as a number of directions, smallest first."""
    cells: tuple[Cell, ...]
    """All cells: seed by seed, t rising, tap by tap."""
    chosen: dict[int, NDArray[np.int64]] = field(repr=False)
    """Seed -> indices of its images."""
    skipped: list[str] = field(default_factory=list)
    """Unreadable images that were left out, each as "source: reason"."""

    def clarid(self, cell: Cell) -> Clarid:
        """Return CLARID at a cell's t and tap, with the largest k."""
        names = ("guidance", "steps", "branch", "inversion_label", "batch_size")
        shared = {name: getattr(self.config, name) for name in names}
        return Clarid(self.teacher, t=cell.t, tap=cell.tap, k=self.counts[-1], **shared)


def plan_grid(
    teacher: Teacher,
    data: LabelledImages,
    config: GridConfig,
    skip_bad: bool = False,
    drawn: NDArray[np.int64] | None = None,
) -> Grid:
    """Check a grid against teacher and data, before anything expensive, and draw its images.

    skip_bad: decode every image of the data first, and draw from those that can be read.
    drawn: rising indices of the images, for every seed; drawn evenly by seed without it.

    Raises:
        UserError: for a teacher of one class, an empty list (but of kinds, without which no
            directions are measured) or a value given twice, a control as the first of kinds, a t
            outside the teacher's range, an unknown tap, a k outside the latent or a share of
            energy, too few images, an image that cannot be read, or one that does not fit the
            teacher.
    """
    check_bounds(config)
    if teacher.num_classes < 2:
        raise UserError(
            "t and k are chosen by how well the class can be told from others in a latent, and "
            "here there is one class: give `t` and `k`"
        )
    taps = [resolve_tap(teacher, tap) for tap in config.tap]
    counts = [_count(k, teacher.latent_dim) for k in config.k]
    meant = {"t": config.t, "tap": taps, "k": counts, "seeds": config.seeds}
    for name, values in meant.items():
        _check_list(name, getattr(config, name), list(values))
    if config.kind:
        _check_list("kind", config.kind, list(config.kind))
        if config.kind[0] in CONTROL_KINDS:
            raise UserError(
                f"`kind` begins with {config.kind[0]}, a control, and a setting is chosen for "
                "the first: give top, contrast or mask before it"
            )
    check_matched(teacher, data.class_names)
    readable, skipped = np.arange(len(data)), list[str]()
    if skip_bad:
        data, readable, skipped = in_memory(data, skip_bad=True)
    chosen = {
        seed: draw_images(data, config.images, seed, readable) if drawn is None else drawn
        for seed in config.seeds
    }
    teacher.check_labels(torch.from_numpy(data.labels[chosen[config.seeds[0]]]))
    if not skip_bad:
        data, _, _ = in_memory(data, False, np.unique(np.concatenate(list(chosen.values()))))
    teacher.accept_images(to_unit_range(data.images(chosen[config.seeds[0]][:1])))
    cells = tuple(Cell(*at) for at in product(sorted(config.seeds), sorted(config.t), taps))
    grid = Grid(teacher, data, config, tuple(sorted(counts)), cells, chosen, skipped)
    for cell in cells:
        grid.clarid(cell)  # refuses what does not fit
    return grid


def draw_images(
    data: LabelledImages, images: int, seed: int, readable: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Choose at random the same number of every class, at most `images` in all.

    readable: rising indices to choose from; None for all.

    Returns sorted indices. Raises UserError if that is fewer than two of a class (k-means could
    then tell the classes apart whatever the features), or more than a class has.
    """
    among = np.arange(len(data)) if readable is None else readable
    labels = data.labels[among]
    present, members = np.unique(labels, return_counts=True)
    each = images // len(present)
    if each < 2:
        raise UserError(
            f"{images} images are too few for {len(present)} classes: give `images` at least "
            f"{2 * len(present)}, two of each"
        )
    if each > members.min():
        name = data.class_names[int(present[members.argmin()])]
        raise UserError(
            f"class '{name}' has {members.min()} images and `images={images}` asks for {each} of "
            f"each: give `images` at most {members.min() * len(present)}"
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(among[labels == c], each, replace=False) for c in present]
    return np.sort(np.concatenate(drawn))


def _count(k: int | float | str, n: int) -> int:
    count = parse_k(k, n)
    if count is None:
        raise UserError(
            f"k = '{k}' is a share of energy, which is another number of directions at every t "
            "and tap: give numbers (128) or shares of the dimension (0.04)"
        )
    return count


def _check_list(name: str, given: Sequence[Any], meant: list[Any]) -> None:
    """Raise UserError if there is none of given values, or two of them mean the same one."""
    if not given:
        raise UserError(f"`{name}` is empty: give at least one value")
    for i, value in enumerate(meant):
        if (first := meant.index(value)) < i:
            raise UserError(
                f"`{name}` holds {given[first]} and {given[i]}, which are the same ({value}): "
                "give each once"
            )
