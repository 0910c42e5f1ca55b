"""A run is opened from other folders than the one it was made in, and from where it was moved."""

import json
import shutil
from pathlib import Path

import pytest

from clarep.cli.main import main

QUICK = "--train.epochs 1 --train.batch-size 16 --train.validation-share 0.25"
SET = "--fraction 0.25 --k 2 --steps 2 --tolerance 0.9"


def test_runs_know_their_data_and_teacher_from_anywhere(
    tmp_path: Path,
    garments_path: Path,
    tiny_teacher_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    made, elsewhere = tmp_path / "made", tmp_path / "else" / "where"
    made.mkdir()
    elsewhere.mkdir(parents=True)
    shutil.copy(garments_path, made / "mine.npz")
    shutil.copy(tiny_teacher_path, made / "teacher.safetensors")
    monkeypatch.chdir(made)
    identify = f"identify --data mine.npz --teacher teacher.safetensors {SET}"
    assert main(f"{identify} --out id".split()) == 0
    distill = f"distill --method vanilla --data mine.npz {QUICK}"
    assert main(f"{distill} --out run".split()) == 0
    assert main(["evaluate", "run", "--groups", "clean"]) == 0

    monkeypatch.chdir(elsewhere)
    shutil.move(made / "run", "moved")
    shutil.move(made / "id", "id")
    capsys.readouterr()
    assert main(["evaluate", "moved", "--groups", "clean", "calibration"]) == 0
    stored = json.loads(Path("moved/robustness/evaluation.json").read_text())
    assert stored["config"]["data_options"]["data"] == str(made / "mine.npz")
    capsys.readouterr()
    assert main(["report", "moved", "--canon", "id/canon", "--out", "report"]) == 0
    assert "cannot be" not in capsys.readouterr().err  # the set's teacher and data are found
    away = distill.replace("mine.npz", "../../made/mine.npz")
    assert main(f"{away} --out moved".split()) == 0  # and it is the same run
