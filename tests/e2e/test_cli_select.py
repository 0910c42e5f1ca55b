"""`clarep select` from the command line: its files, a real kill, and users' mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clarep.cli.main import main
from clarep.engine.artefacts import read_json
from clarep.select import curve_cell

QUICK = (
    "from functools import partial; from clarep.select import curve_cell as c; "
    "c.class_evidence = partial(c.class_evidence, levels=1, most_labels=2)"
)
SMALL = "--t 0.6 0.85 --k 4 0.004 --kind top --seeds 0 1 --images 20 --steps 2"


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _read_quickly(monkeypatch: pytest.MonkeyPatch):
    """Two labels at one noise level: what the class evidence is worth is measured elsewhere."""
    quick = partial(curve_cell.class_evidence, levels=1, most_labels=2)
    monkeypatch.setattr(curve_cell, "class_evidence", quick)


def cells(out: str) -> dict[str, dict]:
    """Return the stored cells, without what a clock or a meter measured."""
    stored = {path.name: read_json(path) for path in Path(out, "cells").glob("*.json")}
    for cell in stored.values():
        del cell["cost"]["seconds"], cell["cost"]["peak_memory_mb"]
        for cost in cell["directions"].values():
            del cost["seconds"]
    return stored


@pytest.mark.slow  # tests/e2e/test_kills.py kills this command every time
def test_killed_it_goes_on_and_ends_with_the_same_numbers(
    tiny_teacher_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["select", "--teacher", str(tiny_teacher_path), *SMALL.split(), "--out"]
    whole = f"import sys; {QUICK}; from clarep.cli.main import main; sys.exit(main(sys.argv[1:]))"
    run = subprocess.Popen(
        [sys.executable, "-c", whole, *command, "killed"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not list(Path("killed/cells").glob("*.json")) and time.monotonic() < deadline:
        assert run.poll() is None
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    left = {path: path.stat().st_mtime_ns for path in Path("killed/cells").glob("*.json")}
    assert 1 <= len(left) < 4
    assert not Path("killed/best.json").exists()

    assert main([*command, "killed"]) == 0
    printed = capsys.readouterr()
    assert f"{len(left) + 1}/4 cells" in printed.err
    assert {path: path.stat().st_mtime_ns for path in left} == left
    for line in (
        "nothing is recommended; take lower t",  # of a teacher that learnt nothing
        "table in killed/table.csv",
        "curve in killed/curve.png",
        "recommendation in killed/best.json",
    ):
        assert line in printed.out

    assert main([*command, "straight", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["wrote"]["recommendation"] == "straight/best.json"
    assert cells("killed") == cells("straight")
    assert Path("killed/table.json").read_bytes() == Path("straight/table.json").read_bytes()
    assert Path("killed/curve.png").read_bytes() == Path("straight/curve.png").read_bytes()
    best = json.loads(Path("killed/best.json").read_text())
    assert (best["t"], best["tap"], best["k"]) == (answer["t"], answer["tap"], answer["k"])
    assert best["seeds"] == [0, 1]
    assert best["config"]["ks"] == [4, 12]
    assert {"sigma", "reason", "stands", "rule", "directions", "versions", "cost"} <= set(best)
    with Image.open("killed/curve.png") as picture:
        assert picture.width > 4 * 150

    assert main([*command, "killed", "--guidance", "2"]) == 2
    assert "guidance: 3.0 there, 2.0 now" in capsys.readouterr().err


def test_garments_are_compared_without_a_judge(
    tiny_teacher_path: Path, capsys: pytest.CaptureFixture[str]
):
    small = "--data garments --t 0.6 --k 4 --kind top --seeds 0 --images 20 --steps 2"
    assert main(["select", "--teacher", str(tiny_teacher_path), *small.split()]) == 0
    captured = capsys.readouterr()
    printed = captured.out
    found = json.loads(Path("runs/select/best.json").read_text())["recognition"]
    assert found["verdict"] == "near chance" and found["images"] == 20  # it has learnt nothing
    (warned,) = [s for s in captured.err.splitlines() if "does not know these classes" in s]
    assert found["said"] in warned
    assert "one seed: no intervals" in printed
    assert "judge accuracy" not in printed


def make_broken(name: str) -> None:
    """Write class folders of three images each, of which one is of zero bytes."""
    rng = np.random.default_rng(0)
    for label in range(10):
        folder = Path(name, f"class{label}")
        folder.mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    Path(name, "class4", "1.png").write_bytes(b"")


def test_skip_bad_draws_from_what_can_be_read(
    tiny_teacher_path: Path, capsys: pytest.CaptureFixture[str]
):
    make_broken("broken")
    options = (
        "--data broken --image-size 32 --t 0.6 --k 4 --kind top --seeds 0 1 --steps 1 --images"
    )
    command = ["select", "--teacher", str(tiny_teacher_path), *options.split()]
    assert main([*command, "30"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "class4/1.png: it is empty (zero bytes); --skip-bad goes on" in printed.err

    assert main([*command, "30", "--skip-bad"]) == 2
    assert "class 'class4' has 2 images" in capsys.readouterr().err
    assert main([*command, "20", "--skip-bad", "--json"]) == 0
    printed = capsys.readouterr()
    assert "labels are matched by number" in printed.err
    skipped = "broken/class4/1.png: it is empty (zero bytes)"
    assert json.loads(printed.out)["skipped"] == [skipped]
    broken = 3 * 4 + 1
    for cell in cells("runs/select").values():
        assert len(cell["images"]) == 20
        assert broken not in cell["images"]
        assert {broken - 1, broken + 1} <= set(cell["images"])
        assert cell["config"]["skipped"] == [skipped]
    assert main([*command, "20", "--skip-bad"]) == 0
    assert f"skipped {skipped}\n" in capsys.readouterr().out


def test_no_more_fits(tiny_teacher_path: Path, no_file_above, capsys: pytest.CaptureFixture[str]):
    small = "--data garments --t 0.6 --k 4 --kind top --seeds 0 --images 20 --steps 1"
    command = ["select", "--teacher", str(tiny_teacher_path), *small.split()]
    with no_file_above(200):
        assert main(command) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("clarep: cannot write runs/select/cells/seed-0_t-0.6_mid.json (File too")
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]
    assert main(command) == 0


WRONG = {
    "tap": ("--tap midd", "did you mean mid"),
    "t": ("--t 0.6 1.5", "t 1.5 is outside (0, 1)"),
    "t in time, not in sigma": ("--t 0.999", "outside the teacher's range"),
    "k above the latent": ("--k 4 4000", "outside 1 to 3072"),
    "k below 1": ("--k 0", "outside 1 to 3072"),
    "k between": ("--k 4.5", "whole number"),
    "energy": ("--k 4 energy:0.8", "another number of directions at every t"),
    "k is no number": ("--k many", "k = 'many' is not understood"),
    "no ts": ("--t", "--t is empty"),
    "no ks": ("--k", "--k is empty"),
    "no taps": ("--tap", "--tap is empty"),
    "no seeds": ("--seeds", "--seeds is empty"),
    "t twice": ("--t 0.6 0.60", "--t holds 0.6 and 0.6"),
    "k twice": ("--k 0.01 31", "--k holds 0.01 and 31, which are the same (31)"),
    "tap twice": ("--tap mid mid", "--tap holds mid and mid"),
    "a control first": ("--kind random top", "--kind begins with random"),
    "kind twice": ("--kind top top", "--kind holds top and top"),
    "kind": ("--kind middle", "--kind"),
    "seed twice": ("--seeds 1 1", "--seeds holds 1 and 1"),
    "seed": ("--seeds -1", "-1 is below 0"),
    "images": ("--images 9", "give --images at least 20"),
    "images of a class": ("--images 60000", "give --images at most"),
    "steps": ("--steps 0", "--steps 0 is below 1"),
    "guidance": ("--guidance -1", "guidance -1.0 is below 0"),
    "branch": ("--branch nul", "--branch"),
    "teacher": ("--teacher backdrp", "did you mean backdrops"),
    "data": ("--data garmets", "did you mean garments"),
    "size": ("--data wide.npz --images 20", "--image-size 32"),
    "labels": ("--data many.npz --images 30", "label 10 is outside the teacher's classes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    case: str, tiny_teacher_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, classes, side in (("wide", 10, 16), ("many", 11, 32)):
        labels = np.repeat(np.arange(classes), 3)
        names = np.array([str(i) for i in range(classes)])
        x = np.zeros((len(labels), side, side, 3), np.uint8)
        np.savez(f"{name}.npz", x=x, y=labels, classes=names)
    options, words = WRONG[case]
    assert main(["select", "--teacher", str(tiny_teacher_path), *options.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert not Path("runs").exists()
