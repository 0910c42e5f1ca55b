"""The canonicity curve beside separate solves, exact energies, and a mixture's closed form."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.clarid.clarid import Clarid
from clarep.clarid.directions import project_out
from clarep.report.choice_table import selection_table
from clarep.select.auto_setting import auto_setting
from clarep.select.canonicity import choose
from clarep.select.choice import aggregate, curve_points
from clarep.select.class_evidence import class_evidence
from clarep.select.controls import scrambled
from clarep.select.curve_cell import nested_latents, sample_spread
from clarep.select.grid import GridConfig, plan_grid
from clarep.select.grid_results import load_cells, walk_grid
from mixture import MixtureTeacher

KS = (2, 5, 9)
TEACHER = MixtureTeacher()
LABELS = np.arange(60) % 3
DATA = TEACHER.data(LABELS)


def clarid_of(kind: str, k: int) -> Clarid:
    return Clarid(TEACHER, t=0.4, k=k, kind=kind, steps=3, batch_size=4, tolerance=1e-6)


@pytest.fixture(scope="module")
def inverted() -> tuple[torch.Tensor, torch.Tensor]:
    some = np.arange(6)
    return clarid_of("top", 2).invert(DATA.images(some), LABELS[some])[0], torch.tensor(
        LABELS[some]
    )


@pytest.mark.parametrize(("kind", "counts"), [("top", KS), ("bottom", (26, 30, 40))])
def test_all_ks_of_one_basis_are_those_of_separate_solves(kind, counts, inverted):
    """Of bottom more than the 24 directions that J does not see, any of which serve fewer."""
    x, labels = inverted
    one = clarid_of(kind, max(counts))
    nested, energy = nested_latents(one, x, labels, counts=counts, chosen=np.arange(6), seed=0)
    for k in counts:
        alone = clarid_of(kind, k)
        apart = [
            project_out(part, alone.directions(part, own).V)
            for part, own in zip(x.split(4), labels.split(4), strict=True)
        ]
        assert nested[k] == pytest.approx(torch.cat(apart), abs=2e-3)
    held = list(energy.values())
    assert held == sorted(held)
    assert held[-1] > 0.9 if kind == "top" else held[-1] < 0.1


def test_bottom_directions_hold_nothing(inverted):
    x, labels = inverted
    one = clarid_of("bottom", 9)
    nested, energy = nested_latents(one, x, labels, counts=KS, chosen=np.arange(6), seed=0)
    assert max(energy.values()) < 1e-6
    dense = TEACHER.jacobian(x, one.sigma_te, labels)
    moved = (dense @ (x - nested[9]).flatten(1)[:, :, None]).norm(dim=1)
    assert float(moved.max()) < 1e-6


def test_random_directions_are_nested_and_random(inverted):
    x, labels = inverted
    nested, energy = nested_latents(
        clarid_of("random", 9), x, labels, counts=KS, chosen=np.arange(6), seed=0
    )
    for few, more in ((2, 5), (5, 9)):
        kept, taken = x - nested[few], x - nested[more]
        inner = (kept * taken).flatten(1).sum(1)
        assert inner == pytest.approx(kept.square().flatten(1).sum(1))  # taken before, taken again
    assert energy == {k: k / 48 for k in KS}


def test_the_energy_is_that_of_exact_jacobians(inverted):
    x, labels = inverted
    clarid = clarid_of("top", 9)
    _, energy = nested_latents(clarid, x, labels, counts=KS, chosen=np.arange(6), seed=0)
    values, _ = TEACHER.right_vectors(x, clarid.sigma_te, labels)
    squares = values.square()
    for k in KS:
        exact = float((squares[:, :k].sum(1) / squares.sum(1)).mean())
        assert energy[k] == pytest.approx(exact, rel=0.15)  # |J|^2 is estimated


def test_the_spread_of_samples_is_a_loops():
    samples, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 0, 1, 1, 1, 0])
    squares = []
    for i in range(6):
        own = torch.stack([samples[j] for j in range(6) if labels[j] == labels[i]])
        squares.append((samples[i] - own.mean(0)).square().mean())
    assert sample_spread(samples, labels) == pytest.approx(
        float(torch.stack(squares).mean().sqrt())
    )


GRID = GridConfig(
    t=(0.3, 0.9), k=(2, 4, 40), kind=("top",), seeds=(0,), images=60, steps=3, batch_size=60
)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("mixture")
    grid = plan_grid(TEACHER, DATA, GRID)
    list(walk_grid(grid, {}, folder, TEACHER.judge))
    return curve_points(load_cells(grid, folder), TEACHER.num_classes)


def test_on_a_mixture_the_rule_takes_the_background_and_leaves_the_class(points):
    """Four directions are shared by all components; nearly all 48 hold the class too."""
    found = choose(points)
    assert found.stands
    assert found.where() == {"t": 0.3, "tap": "estimate", "k": 4}
    clarid = Clarid(TEACHER, t=0.3, k=4)
    labels = torch.from_numpy(LABELS)
    x_te, _ = clarid.invert(DATA.images(np.arange(60)), labels)

    def truly(k: int) -> float:
        left = TEACHER.canonical(x_te, clarid.sigma_te, labels, k) if k else x_te
        return float(TEACHER.nats(left, clarid.sigma_te, labels).mean())

    assert truly(4) > 0.95 * truly(0)
    assert truly(40) < 0.8 * truly(0)


def test_the_automatic_setting_is_that_of_the_whole_grid(points, tmp_path: Path):
    """It finds directions at the t that stands alone, and ends with the same choice."""
    from clarep.select import auto_setting as module

    asked = {"folder": tmp_path, "judge": TEACHER.judge, "images": 60}
    config = Clarid(TEACHER, t=0.3, k=4, steps=3, batch_size=60).config
    found = auto_setting(TEACHER, DATA, config, **asked)
    assert (found.t, found.k, found.stands) == (0.3, 4, True)
    assert "60 images of mixture" in found.by
    assert module.IMAGES >= 30  # fewer never suffice
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert len(stored) == 2
    assert auto_setting(TEACHER, DATA, config, **asked) == found
    assert {path: path.stat().st_mtime_ns for path in stored} == stored


def test_of_directions_that_spare_the_class_more_may_go(tmp_path: Path):
    """Under no class the top directions of the mixture tell its classes apart."""
    grid = replace(GRID, t=(0.3,), k=(2, 4, 6, 8, 10), kind=("contrast", "top"), branch="null")
    planned = plan_grid(TEACHER, DATA, grid)
    list(walk_grid(planned, {}, tmp_path, TEACHER.judge))
    cells = load_cells(planned, tmp_path)
    ours, top = (
        choose(curve_points(cells, TEACHER.num_classes, kind)) for kind in ("contrast", "top")
    )
    assert ours.stands and ours.chosen.k > top.chosen.k
    config = Clarid(TEACHER, t=0.3, k=4, steps=3, branch="null", kind="contrast").config
    config = replace(config, k="auto", batch_size=60)
    found = auto_setting(TEACHER, DATA, config, judge=TEACHER.judge, images=60)
    assert found.stands and found.k == 2  # the largest that it tries in 48 dimensions


def test_beside_a_control_images_that_show_nothing_are_read_too(tmp_path: Path):
    """Their row is what a loop reads from them; a setting's choice does not see it."""
    config = replace(GRID, t=(0.3,), k=(4,), kind=("top", "random"), images=6, batch_size=4)
    grid = plan_grid(TEACHER, DATA, config)
    list(walk_grid(grid, {}, tmp_path, TEACHER.judge))
    (cell,) = load_cells(grid, tmp_path)
    assert [row["kind"] for row in cell["rows"]] == ["none", "top", "random", "scrambled"]
    clarid, chosen = grid.clarid(grid.cells[0]), grid.chosen[0]
    labels = torch.from_numpy(LABELS[chosen])
    shown = scrambled(DATA.images(chosen), chosen, 0)
    latents = torch.cat([clarid.invert(one[None], labels[[i]])[0] for i, one in enumerate(shown)])
    found = class_evidence(
        clarid, latents, labels, TEACHER.judge, indices=torch.from_numpy(chosen), seed=0
    )
    alone, *_, nothing = cell["rows"]
    assert nothing["evidence"] == pytest.approx(float(found.nats.mean()), abs=1e-3)
    assert nothing["evidence"] < alone["evidence"]
    assert nothing["background_spread"] is None and nothing["k"] == 0
    assert {point.k for point in curve_points([cell], 3)} == {0, 4}
    row = aggregate([cell])[-1]
    assert (row.kind, row.extraneous) == ("scrambled", None)
    assert "scrambled: " in selection_table(aggregate([cell]))
    (path,) = (tmp_path / "cells").iterdir()  # as it was stored before there was such a row
    path.write_text(json.dumps(cell | {"rows": cell["rows"][:-1]}))
    assert next(walk_grid(grid, {}, tmp_path, TEACHER.judge)).done == 0
