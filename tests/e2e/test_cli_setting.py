"""`clarep identify` where neither t nor k is named: found, stored, refused; a real kill."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clarep.clarid import clarid_config
from clarep.clarid.canonical_set import CanonicalSet
from clarep.cli.main import main
from clarep.engine.artefacts import read_json
from clarep.engine.places import work_folder
from clarep.select import curve_cell
from clarep.teachers.stored_setting import FoundSetting

PLANT = """
import sys, torch
from dataclasses import replace
from clarep.select import curve_cell
read = curve_cell.class_evidence
def planted(clarid, latents, labels, judge, **more):
    found = read(clarid, latents, labels, judge, levels=1, most_labels=2, **more)
    sure = torch.full_like(found.nats, 0.69)
    return replace(found, nats=sure, below_nats=sure)
curve_cell.class_evidence = planted
from clarep.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def command(tiny_teacher_path: Path, garments_path: Path, tmp_path: Path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(garments_path), "--fraction", "1", "--controls", "none"]
    return ["identify", "--teacher", str(tiny_teacher_path), *data, "--steps", "1"]


@pytest.fixture
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that is sure of every class at every noise level."""
    read = curve_cell.class_evidence

    def planted(*given, **more):
        found = read(*given, levels=1, most_labels=2, **more)
        sure = torch.full_like(found.nats, 0.69)
        return replace(found, nats=sure, below_nats=sure)

    monkeypatch.setattr(curve_cell, "class_evidence", planted)


@pytest.mark.slow
@pytest.mark.usefixtures("_planted")
def test_killed_it_goes_on_and_takes_the_same_setting(command, capsys):
    asked = [*command, "--t", "auto", "--k", "4"]
    run = subprocess.Popen(
        [sys.executable, "-c", PLANT, *asked, "--out", "killed"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 300
    while len(list(Path("killed").rglob("seed-*.json"))) < 2 and time.monotonic() < deadline:
        assert run.poll() is None
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    left = {path: path.stat().st_mtime_ns for path in Path("killed").rglob("seed-*.json")}
    assert left and not Path("killed/canon").exists()

    assert main([*asked, "--out", "killed"]) == 0
    printed = capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in left} == left
    (said,) = [
        line
        for line in printed.err.splitlines()
        if "t = 0.85, k = 4, measured on your images" in line
    ]
    assert "the highest t measured" in said
    found = CanonicalSet.load("killed/canon")
    setting = found.manifest["findings"]["setting"]
    assert (setting["t"], setting["k"], setting["stands"]) == (0.85, 4, True)
    assert setting["reason"] in said
    assert (found.setting["t"], found.setting["k"]) == (0.85, 4)

    named = [*command, "--t", "0.85", "--k", "4"]
    assert main([*named, "--out", "straight"]) == 0  # the same set as of these numbers
    assert CanonicalSet.load("straight/canon").sha256 == found.sha256
    assert "setting" not in CanonicalSet.load("straight/canon").manifest["findings"]


def test_a_teacher_that_does_not_read_the_classes_is_refused(command, capsys, monkeypatch):
    quick = curve_cell.class_evidence
    monkeypatch.setattr(
        curve_cell, "class_evidence", lambda *a, **k: quick(*a, levels=1, most_labels=2, **k)
    )
    assert main([*command, "--out", "out"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be read from the latents" in last
    assert "give --t and --k" in last
    assert not Path("out/canon").exists()


def test_parts_do_not_look_for_one_setting_all_at_once(command, capsys):
    assert main([*command, "--out", "out", "--part", "1/2"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "--part 1/2" in last and "clarep select" in last and "--t and --k" in last
    assert not Path("out").exists()


def test_two_addresses_have_two_folders_here():
    ours = {work_folder(Path(f"s3://b/run{one}1")) for one in (".", "-")}
    assert len(ours) == 2 and {folder.parent for folder in ours} == {Path("runs")}


def test_a_stored_setting_is_taken_and_told(command, capsys, monkeypatch):
    stored = FoundSetting(0.5, "mid", 3, "conditional", False, "for a reason", "x")
    stored = replace(stored, tap=stored_tap(command))
    monkeypatch.setattr(clarid_config, "stored_setting", lambda teacher: stored)
    assert main([*command, "--fraction", "0.2", "--out", "out", "--json"]) == 0
    printed = capsys.readouterr()
    assert "warning: t = 0.5, k = 3, measured for this teacher, by `x`: for a reason" in printed.err
    assert json.loads(printed.out)["setting"]["reason"] == "for a reason"
    assert read_json(Path("out/canon/manifest.json"))["config"]["clarid"]["t"] == 0.5
    assert not Path("out/setting").exists()
    of_two = [*command, "--fraction", "0.2", "--out", "three", "--part", "1/2"]
    assert main(of_two) == 0  # nothing is to be found
    assert "another guidance" not in printed.err
    assert main([*command, "--guidance", "2", "--fraction", "0.2", "--out", "two"]) == 0
    assert "another guidance" in capsys.readouterr().err


def stored_tap(command: list[str]) -> str:
    from clarep.teachers.unet_teacher import load_unet

    return load_unet(Path(command[2])).default_tap
