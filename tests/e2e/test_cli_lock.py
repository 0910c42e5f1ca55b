"""While another process writes in a folder, a command names it and ends with 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clarep.cli.main import main

_HOLD = """
import sys
from pathlib import Path
from clarep.engine.lock import hold
locks = [hold(Path(place)) for place in sys.argv[1:]]
print("held", flush=True)
sys.stdin.read()
"""
QUICK = "--train.epochs 1 --train.batch-size 16 --train.validation-share 0.25"
WHERE_IT_WRITES = {
    "train-teacher --data {data} --train.steps 1 --train.batch-size 2 --out out": "out",
    "distill --method vanilla --data {data} " + QUICK + " --out out": "out/student",
    "identify --data {data} --teacher {teacher} --k 2 --steps 2 --out out": "out",
    "select --data {data} --teacher {teacher} --t 0.6 --k 2 --images 20 --out out": "out",
    "export {teacher} --out out": "out",
    "run quick.toml --out out": "out",
    "evaluate run --groups clean": "run/robustness",
    "evaluate run --groups clean --out out": "out",
    "report run --out out": "out",
    "compare run --out out": "out",
    "bench distill --data {data} --out out": "out",
}


@pytest.fixture(scope="module")
def evaluated(garments_path: Path, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("evaluated") / "run"
    distill = f"distill --method vanilla --data {garments_path} {QUICK} --out {run}"
    assert main(distill.split()) == 0
    assert main(f"evaluate {run} --groups clean".split()) == 0
    return run


@pytest.fixture
def holder(evaluated, write_recipe, tmp_path, monkeypatch):
    """Another process, which writes in all of these folders."""
    write_recipe()
    monkeypatch.chdir(tmp_path)
    Path("run").symlink_to(evaluated)
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, *sorted(set(WHERE_IT_WRITES.values()))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_every_command_that_writes_a_folder_is_refused(
    holder, garments_path, tiny_teacher_path, capsys
):
    wrong = []
    for command in WHERE_IT_WRITES:
        given = command.format(data=garments_path, teacher=tiny_teacher_path)
        code, error = main(given.split()), capsys.readouterr().err
        if code != 2 or f"process {holder.pid} on {os.uname().nodename}" not in error:
            wrong.append((command, code, error))
    assert not wrong
    assert {path.name for path in Path("out").rglob("*")} == {".lock", "student"}
    holder.communicate("")
    assert not Path("out").exists() and not Path("run/robustness/.lock").exists()
    assert main(["report", "run", "--out", "out"]) == 0
