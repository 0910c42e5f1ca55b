"""`clarep run` from a recipe to a table and a report: killed, run again, fed with mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clarep.cli.main import main
from clarep.students.student_files import STUDENT_NAME


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_recipe) -> str:
    """A recipe of two methods on four images of each class, quick.toml in the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_recipe(methods='["vanilla", "cadistill"]').read_text()


def weights(out: str) -> dict[str, bytes]:
    found = Path(out, "runs").glob(f"*/student/{STUDENT_NAME}")
    return {path.parents[1].name: path.read_bytes() for path in found}


def test_the_whole_road_and_again(capsys):
    assert main(["run", "quick.toml", "--out", "out", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert "recipe quick: 2 methods, 1 seed; 0 of 5 parts exist, 5 to build" in printed.out
    assert printed.out.count("  build  ") == 5
    assert not Path("out").exists()

    assert main(["run", "quick.toml", "--out", "out"]) == 0
    printed = capsys.readouterr()
    assert "[1/5] canonical set top: 10/10 images" in printed.err
    assert "[5/5] evaluation cadistill seed 0" in printed.err
    assert "ONE seed a method" in printed.out
    assert printed.out.splitlines()[-1] == "report in out/report/index.html"
    for name in ("index.html", "table.md", "table.csv", "table.json"):
        assert Path("out/report", name).stat().st_size > 100
    rows = json.loads(Path("out/report/table.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["vanilla", "cadistill"]
    before = weights("out")
    assert len(before) == 2

    assert main(["run", "quick.toml", "--out", "out"]) == 0
    printed = capsys.readouterr()
    assert "5 of 5 parts exist, 0 to build" in printed.out
    assert "[1/" not in printed.err
    assert weights("out") == before


def test_what_verify_says_mends_what_is_cut(write_recipe, capsys):
    write_recipe(methods='["vanilla"]')
    assert main(["run", "quick.toml", "--out", "out"]) == 0
    before = weights("out")
    (history,) = Path("out").glob("runs/*/student/history.jsonl")
    seconds = Path("out/store/seconds.json")
    for path in (history, seconds):
        path.write_text(path.read_text()[:20])
    capsys.readouterr()
    assert main(["verify", "out"]) == 1
    told = capsys.readouterr().out
    assert "of a study, whose finished students are left alone, delete student.safet" in told
    assert f"{seconds}: it cannot be read" in told and "delete it and run the command" in told
    history.with_name(STUDENT_NAME).unlink()
    seconds.unlink()
    assert main(["run", "quick.toml", "--out", "out"]) == 0
    assert weights("out") == before
    assert main(["verify", "out"]) == 0


@pytest.mark.slow  # tests/e2e/test_kills.py kills this command every time
def test_killed_it_goes_on_to_the_same_weights(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = "import sys; from clarep.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", "quick.toml", "--out"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen([*command, "killed"], **quiet)
    deadline = time.monotonic() + 60
    while not list(Path("killed").glob("runs/*/student/history.jsonl")):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert len(weights("killed")) < 2

    for out in ("killed", "whole"):
        assert subprocess.run([*command, out], check=False, **quiet).returncode == 0
    assert weights("killed") == weights("whole")
    assert not list(Path("killed").rglob("*.tmp"))


WRONG = {
    "no file": ("no.toml", "", "cannot read no.toml"),
    "name": ("dmeo", "", "unknown recipe 'dmeo': did you mean demo"),
    "key": ("x.toml", "techer = 1\n", "x.toml: unknown key 'techer': did you mean teacher"),
    "toml": ("x.toml", "= 3\n", "x.toml is not valid TOML"),
    "data": ("x.toml", "[test]\ndata = 'nowhere.npz'\n", "no such file or folder"),
    "teacher": ("x.toml", "teacher", "there is no teacher at no/teacher"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_users_mistake_is_one_line_and_exit_code_2(case, recipe, tiny_teacher_path, capsys):
    name, more, words = WRONG[case]
    if more == "teacher":
        text = recipe.replace(str(tiny_teacher_path), "no/teacher")
    elif more.startswith("[test]"):
        text = recipe + more
    else:
        text = more + recipe
    Path("x.toml").write_text(text)
    assert main(["run", name, "--out", "out"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert not Path("out").exists()
