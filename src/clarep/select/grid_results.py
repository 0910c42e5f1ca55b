"""The cells of `clarep select`'s grid: one for each seed, t and tap, all kinds and k in it.

A finished cell is one JSON file, written whole. A run that was killed goes on with the cells
that are missing, and because each cell's randomness comes from its seed alone, the same command
gives the same numbers.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clarep.clarid.canonical_shards import whole
from clarep.clarid.clarid_config import AT_ONCE
from clarep.engine.artefacts import Progressed, read_json, versions, write_json
from clarep.engine.cost import sum_costs
from clarep.engine.fan_out import LOCAL, EngineConfig, check_engine, fan_out
from clarep.engine.identity import plain, refuse_other
from clarep.engine.lock import hold
from clarep.engine.places import place_of
from clarep.errors import refusing
from clarep.select.canonicity import RULE, Choice, where
from clarep.select.curve_cell import compute_cell
from clarep.select.grid import CONTROL_KINDS, Cell, Grid
from clarep.select.judging import Scorer

CELLS = "cells"


@dataclass(frozen=True)
class _CellMaker:
    """Computes cells and writes them, in whatever process."""

    grid: Grid
    config: dict[str, Any]
    """Of all cells."""
    folder: Path
    judge: Scorer | None

    def __call__(self, cell: Cell) -> None:
        content = {"data_sha256": self.grid.data.sha256(self.grid.chosen[cell.seed])}
        stored = {"config": self.config | content, "versions": versions()}
        stored |= compute_cell(self.grid, cell, self.judge)
        write_json(self.folder / CELLS / cell.name, stored, sealed=True)


def walk_grid(
    grid: Grid,
    described: dict[str, Any],
    folder: Path,
    judge: Scorer | None = None,
    engine: EngineConfig = LOCAL,
) -> Iterator[Progressed]:
    """Compute every cell that `folder` lacks, yielding at the start and after each.

    Args:
        grid: from `plan_grid`.
        described: what the caller knows of teacher and data; it enters every cell's
            configuration. A folder may hold cells of other seeds, ts and taps, so that a grid
            can be extended, and of other batch sizes, but nothing else may differ: the content
            of a cell's own images and labels tells whether the data are the same.
        folder: its subfolder cells/ holds the files.
        judge: of the teacher's classes, None where there is none; `described` must tell it from
            others.
        engine: where cells are computed.

    Raises:
        UserError: if the folder holds cells of another configuration, or a damaged one, if
            another process writes there, and as `fan_out` does.
    """
    check_engine(engine, str(grid.teacher.device))
    config = _shared_config(grid, described)
    _lock = hold(folder)
    ours = {cell.name: grid.chosen[cell.seed].tolist() for cell in grid.cells}
    controlled, whole_cells = not CONTROL_KINDS.isdisjoint(grid.config.kind), set[str]()
    for path in sorted((folder / CELLS).glob("*.json")):
        stored = _read_cell(path)
        images = ours.get(path.name, stored["images"])
        inside = all(0 <= i < len(grid.data) for i in images)
        content = {"data_sha256": grid.data.sha256(images) if inside else None}
        refuse_other(folder, "cells", whole(stored["config"]), whole(config | content))
        if not controlled or any(row["kind"] == "scrambled" for row in stored["rows"]):
            whole_cells.add(path.name)  # those of earlier versions lack it
    missing = [cell for cell in grid.cells if cell.name not in whole_cells]
    done = len(grid.cells) - len(missing)
    yield Progressed(done, 0, len(grid.cells))
    maker = _CellMaker(grid, config, folder, judge)
    for _ in fan_out(missing, lambda: maker, engine, written=place_of(folder)):
        done += 1
        yield Progressed(done, 1, len(grid.cells))


def best_of(grid: Grid, cells: list[dict[str, Any]], found: Choice) -> dict[str, Any]:
    """Return what best.json holds: the chosen setting, why, and all that it follows from."""
    sigmas = {cell["cell"]["t"]: cell["cell"]["sigma"] for cell in cells}
    return found.where() | {
        "sigma": None if found.chosen is None else sigmas[found.chosen.t],
        "stands": found.stands,
        "cleanest": where(found.cleanest),
        "reason": found.reason,
        "rule": RULE,
        "seeds": sorted(grid.config.seeds),
        "grid": asdict(grid.config),
        "config": cells[0]["config"],
        "versions": versions(),
        "cost": sum_costs([cell["cost"] for cell in cells]),
        "directions": {
            kind: {
                name: round(sum(cell["directions"][kind][name] for cell in cells), 3)
                for name in ("seconds", "products")
            }
            for kind in grid.config.kind
        },
    }


def load_cells(grid: Grid, folder: Path) -> list[dict[str, Any]]:
    """Return the stored cells of a grid that was walked to its end, in the grid's order."""
    return [_read_cell(folder / CELLS / cell.name) for cell in grid.cells]


def _shared_config(grid: Grid, described: dict[str, Any]) -> dict[str, Any]:
    """Return all but seed, t, tap and images that a cell's numbers depend on, as JSON values."""
    clarid = asdict(grid.clarid(grid.cells[0]).config)
    of_cells = ("t", "tap", "k", *AT_ONCE)
    config = described | {
        "teacher_sha256": grid.teacher.fingerprint,
        "ks": grid.counts,
        "kinds": grid.config.kind,
        "images": grid.config.images,
        "clarid": {name: clarid[name] for name in clarid if name not in of_cells},
    }
    if grid.skipped:
        config |= {"skipped": grid.skipped}
    shared: dict[str, Any] = plain(config)
    return shared


def _read_cell(path: Path) -> dict[str, Any]:
    faults = (OSError, ValueError, LookupError, TypeError, AttributeError)
    mend = "delete it and run the same clarep select again, which computes only what is missing"
    with refusing(f"cell {path} cannot be read", mend, faults):
        cell = read_json(path)
        if not {"config", "cell", "images", "rows", "directions", "cost"} <= set(cell):
            raise ValueError("it is no cell")
        at = Cell(*(cell["cell"][name] for name in ("seed", "t", "tap")))
        if at.name != path.name:
            raise ValueError(f"it is that of {at}")
        if not all(type(i) is int for i in cell["images"]):
            raise ValueError("its images are no indices")
    return cell
