"""What a canonical set or a grid's cell is of: the content of its images, not where they lay."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from clarep.clarid.canonical_set import MANIFEST, CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.clarid.identify import identify_steps
from clarep.data.labelled import LabelledImages
from clarep.errors import UserError
from clarep.select.controls import measure_set
from clarep.select.grid import GridConfig, plan_grid
from clarep.select.grid_results import load_cells, walk_grid

COUNT = 24
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
CHOSEN = np.arange(0, COUNT, 2)


def data_of(pixels=PIXELS, labels=None, place="x"):
    return LabelledImages(
        name=place,
        labels=np.arange(COUNT) % 3 if labels is None else labels,
        class_names=("cat", "dog", "owl"),
        sources=[f"{place}/{i}" for i in range(COUNT)],
        read=lambda i: pixels[i],
    )


def of_place(place):
    return {"teacher": f"{place}/t", "data_options": {"data": place}, "skipped": [f"{place}/1: x"]}


def changed(i):
    pixels = PIXELS.copy()
    pixels[i, -1, -1, -1] ^= 1
    return pixels


def swapped(i, j):
    labels = np.arange(COUNT) % 3
    labels[[i, j]] = labels[[j, i]]
    return labels


def walk(teacher, data, folder, place="x", stop=99, **settings):
    clarid = Clarid(teacher, **({"sigma": 2.0, "steps": 2, "k": 3, "batch_size": 2} | settings))
    steps = identify_steps(
        clarid, data, folder, CHOSEN, described=of_place(place), seed=0, shard_size=4
    )
    done = [step.done for _, step in zip(range(stop), steps, strict=False)]
    return done, clarid


@pytest.fixture
def folder(teacher, tmp_path):
    assert walk(teacher, data_of(), tmp_path / "canon")[0] == [0, 4, 8, 12]
    return tmp_path / "canon"


def test_the_same_images_found_elsewhere_are_the_same_set(teacher, folder):
    again = data_of(PIXELS.copy(), place="/elsewhere")
    assert walk(teacher, again, folder, place="/elsewhere")[0] == [12]
    other = data_of(changed(1), labels=swapped(1, 3))  # 1 and 3 are not chosen
    assert walk(teacher, other, folder)[0] == [12]


@pytest.mark.parametrize(
    "other", [data_of(changed(22)), data_of(labels=swapped(20, 22))], ids=["pixel", "labels"]
)
def test_other_images_under_the_same_names_are_refused(teacher, folder, other):
    with pytest.raises(UserError, match=r"another configuration \(.*images or labels themselves"):
        walk(teacher, other, folder)


def test_the_batch_may_change_in_the_middle(teacher, folder, tmp_path):
    other = tmp_path / "other"
    walk(teacher, data_of(), other, stop=2)
    assert walk(teacher, data_of(), other, batch_size=4, memory_mb=64.0)[0] == [4, 8, 12]
    shards = json.loads((other / MANIFEST).read_text())["shards"]
    assert [shard["cost"]["batch_size"] for shard in shards] == [2, 4, 4]
    ours, theirs = CanonicalSet.load(other), CanonicalSet.load(folder)
    assert ours.manifest["config"] == theirs.manifest["config"]
    first = (other / "shard-00000.safetensors").read_bytes()
    assert first == (folder / "shard-00000.safetensors").read_bytes()
    for name in ("latent", "sample"):  # within the solver's tolerance
        torch.testing.assert_close(ours.tensors[name], theirs.tensors[name], rtol=0.1, atol=0.1)


def test_k_of_energy_is_settled_once_for_a_set(teacher, tmp_path, monkeypatch):
    settings = {"k": "energy:0.5"}
    _, first = walk(teacher, data_of(), tmp_path, stop=2, **settings)
    assert first.num_dirs and first.num_dirs > 1
    monkeypatch.setattr("clarep.clarid.clarid.k_for_energy", lambda *_: first.num_dirs + 1)
    done, second = walk(teacher, data_of(), tmp_path, **settings)
    assert done == [4, 8, 12]
    assert second.num_dirs == first.num_dirs
    with pytest.raises(UserError, match="images or labels themselves"):
        walk(teacher, data_of(changed(0)), tmp_path, **settings)


@pytest.mark.parametrize("kind", ["none", "top"])
def test_k_of_energy_is_settled_once_for_all_rows_of_a_table(teacher, tmp_path, monkeypatch, kind):
    settings = {"k": "energy:0.5", "kind": kind}
    _, made = walk(teacher, data_of(), tmp_path, **settings)
    canonical = CanonicalSet.load(tmp_path)
    settled = []

    def other_each_time(jacobian, share):
        settled.append(share)
        return 4 + len(settled)

    monkeypatch.setattr("clarep.clarid.clarid.k_for_energy", other_each_time)
    seen = []
    directions = Clarid.directions

    def noted(self, *given):
        found = directions(self, *given)
        seen.append(None if found is None else found.V.shape[2])
        return found

    monkeypatch.setattr(Clarid, "directions", noted)
    fresh = Clarid(teacher, made.config)
    for control in ("none", "random", "bottom", "middle", "reconstruction"):
        measure_set(fresh, lambda x: x.flatten(1)[:, :3], data_of(), canonical, control)
    assert settled == ([0.5] if kind == "none" else [])
    assert set(seen) - {None} == {5 if kind == "none" else made.num_dirs}


def grid_of(teacher, data, seeds=(0,), **settings):
    given = {"t": (0.6,), "k": (2,), "seeds": seeds, "images": 6, "steps": 2, "batch_size": 3}
    return plan_grid(teacher, data, GridConfig(**(given | settings)))


def cells_done(grid, folder, place="x"):
    return [step.done for step in walk_grid(grid, of_place(place), folder)]


def test_cells_are_told_by_their_images(teacher, tmp_path):
    grid = grid_of(teacher, data_of())
    assert cells_done(grid, tmp_path) == [0, 1]
    elsewhere = grid_of(teacher, data_of(PIXELS.copy(), place="./x"))
    assert cells_done(elsewhere, tmp_path, "./x") == [1]
    drawn = grid.chosen[0].tolist()
    unused = next(i for i in range(COUNT) if i not in drawn)
    assert cells_done(grid_of(teacher, data_of(changed(unused))), tmp_path) == [1]
    other = data_of(changed(drawn[-1]))
    with pytest.raises(UserError, match="images or labels themselves"):
        cells_done(grid_of(teacher, other), tmp_path)
    with pytest.raises(UserError, match="images or labels themselves"):  # another seed's cell
        cells_done(grid_of(teacher, other, seeds=(1,)), tmp_path)
    fewer = replace(data_of(), labels=np.arange(12) % 3, sources=data_of().sources[:12])
    with pytest.raises(UserError, match="images or labels themselves"):
        cells_done(grid_of(teacher, fewer, seeds=(1,)), tmp_path)


def test_the_batch_may_change_in_the_middle_of_a_grid(teacher, tmp_path):
    assert cells_done(grid_of(teacher, data_of()), tmp_path) == [0, 1]
    grid = grid_of(teacher, data_of(), seeds=(0, 1), batch_size=2)
    assert cells_done(grid, tmp_path) == [1, 2]
    assert [cell["cost"]["batch_size"] for cell in load_cells(grid, tmp_path)] == [3, 2]
