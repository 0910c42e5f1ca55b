"""What the page computes: once each, and what CLARID itself computes."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.identify import identify
from clarep.cli.main import main
from clarep.data.labelled import to_uint8
from clarep.data.load import DataConfig, load_data
from clarep.errors import UserError
from clarep.explore.catalogue import ENERGY, EVIDENCE, ROUND_TRIP, Catalogue
from clarep.explore.copied import Given, as_command, as_python
from clarep.explore.explorer import Explorer
from clarep.teachers.options import TeacherOptions
from clarep.teachers.zoo import load_teacher

CONFIG = ClaridConfig(t=0.85, k=6, steps=2, tolerance=1e-4)


@pytest.fixture(scope="module")
def explorer(tiny_teacher_path) -> Explorer:
    return Explorer(load_teacher(tiny_teacher_path), load_data("backdrops"), CONFIG)


@pytest.fixture(scope="module")
def given(tiny_teacher_path) -> Given:
    return Given(str(tiny_teacher_path), TeacherOptions(), DataConfig(), CONFIG)


def test_moving_k_solves_nothing_anew_and_gives_what_clarid_gives(explorer, monkeypatch):
    chosen, setting = explorer.chosen(3), explorer.start
    explorer.canonical(chosen, setting)
    solved = []
    monkeypatch.setattr(Clarid, "directions", lambda *_: solved.append(1))
    few = explorer.canonical(chosen, replace(setting, k=2))
    monkeypatch.undo()
    assert solved == []
    clarid = Clarid(explorer.teacher, replace(CONFIG, k=2))
    reps = clarid(chosen.pixels[None], [chosen.label], seed=3)
    difference = (few.int() - to_uint8(reps.sample)[0].int()).abs().float().mean()
    other = (few.int() - explorer.guided(chosen, setting).int()).abs().float().mean()
    assert difference < 1 < other
    nothing = replace(setting, k=0)
    assert torch.equal(explorer.canonical(chosen, nothing), explorer.guided(chosen, setting))
    assert not explorer.removed(chosen, nothing).float().std()


def test_the_stops_of_k_reach_from_none_to_all(explorer):
    stops = explorer.stops()
    assert stops[:4] == [0, 1, 2, 3] and stops[-1] == 256 and explorer.start.k in stops
    assert stops == sorted(set(stops))


def test_a_walk_goes_through_the_image_and_both_ways(explorer):
    chosen, setting = explorer.chosen(3), explorer.start
    frames = explorer.walk(chosen, setting, chosen, 0, (-3.0, 0.0, 3.0))
    assert torch.equal(frames[1], explorer.guided(chosen, setting))
    assert not torch.equal(frames[0], frames[2])


def test_a_swap_with_itself_changes_nothing_and_with_all_directions_gives_the_donor(explorer):
    chosen, donor, setting = explorer.chosen(3), explorer.chosen(4), explorer.start
    same = explorer.swapped(chosen, chosen, setting)
    assert torch.equal(same, explorer.guided(chosen, setting))
    x = explorer.inverted(chosen, setting)[0]
    swapped = explorer.swapped(chosen, donor, setting)
    V = explorer.basis(chosen, setting)[0][0, :, : setting.k]
    y = explorer.inverted(donor, setting)[0]
    expected = x.flatten() + V @ (V.T @ (y - x).flatten())
    by_hand = explorer.clarid(setting).sample(expected.view_as(x), [chosen.label])
    assert (swapped.int() - to_uint8(by_hand)[0].int()).abs().max() <= 1


def test_what_is_copied_gives_the_same_picture(explorer, given, tmp_path, monkeypatch):
    """The command and the Python are run; a photograph of an upload lies where they run."""
    monkeypatch.chdir(tmp_path)
    photograph = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(photograph).save("my photo.png")
    upload = explorer.uploaded(tmp_path / "my photo.png", 2)
    setting = replace(explorer.start, k=4, guidance=2.0)
    for chosen, own in ((explorer.chosen(7), True), (upload, False)):
        name = explorer.teacher.class_names[chosen.label]
        shown = explorer.canonical(chosen, setting).float()
        *shell, command = as_command(given.at(setting), chosen, name, own).splitlines()
        for line in shell:
            assert os.system(line) == 0
        assert main(shlex.split(command)[1:]) == 0
        stored = CanonicalSet.load("runs/explored/canon")
        told: dict = {}
        exec(as_python(given.at(setting), chosen, name), told)
        assert Path("canonical.pdf").read_bytes().startswith(b"%PDF")
        for sample in (stored.sample, told["reps"].sample):
            assert (to_uint8(sample)[0].float() - shown).abs().mean() < 1
        os.system("rm -r runs")
    python = as_python(given.at(replace(setting, k=0)), upload, "coat")
    exec(python, told := {})
    plain = explorer.canonical(replace(upload, label=4), replace(setting, k=0)).float()
    assert (to_uint8(told["reps"].sample)[0].float() - plain).abs().mean() < 1


def test_where_no_command_gives_the_picture_it_says_so(explorer, given):
    other = replace(explorer.chosen(7), label=0)
    assert as_command(given, other, "t-shirt", False).startswith("#")


def test_what_does_not_fit_is_refused(tiny_teacher_path, tmp_path, explorer):
    teacher, data = explorer.teacher, explorer.data
    for wrong in ({"sigma": 2.0}, {"t": 0.8, "k": "energy:0.5"}, {"kind": "random", "t": 0.5}):
        with pytest.raises(UserError):
            Explorer(teacher, data, ClaridConfig(**wrong))
    (tmp_path / "no.png").write_bytes(b"nothing")
    with pytest.raises(UserError):
        explorer.uploaded(tmp_path / "no.png", 0)


def test_a_set_is_sorted_as_it_says(explorer, tmp_path, monkeypatch):
    clarid = Clarid(explorer.teacher, replace(CONFIG, k=4))
    stored = identify(clarid, explorer.data, tmp_path / "canon", [5, 0, 9, 1, 2, 3])
    on_gpu = {"clarid": stored.manifest["config"]["clarid"] | {"precision": "tf32"}}
    monkeypatch.setitem(stored.manifest, "config", stored.manifest["config"] | on_gpu)
    monkeypatch.setattr(CanonicalSet, "load", lambda folder: stored)
    catalogue = Catalogue(explorer, tmp_path)  # of a set that a GPU made too
    assert catalogue.has_originals
    assert catalogue.order(None, EVIDENCE, True) == list(range(6))  # not asked yet
    assert list(catalogue.ask_evidence())[-1] == 1
    for by in (EVIDENCE, ROUND_TRIP, ENERGY):
        values = catalogue.values(by)
        assert catalogue.order(None, by, False) == list(np.argsort(values, kind="stable"))
    label = int(stored.label[0])
    assert set(catalogue.order(label, ROUND_TRIP, True)) == set(
        np.flatnonzero(stored.label.numpy() == label)
    )
    before, after = catalogue.places("PCA")
    assert before.shape == after.shape == (len(catalogue.laid_out()), 2)
    other = Explorer(load_teacher("backdrops"), explorer.data, CONFIG)
    with pytest.raises(UserError, match="another teacher"):
        Catalogue(other, tmp_path)
