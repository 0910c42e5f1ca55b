"""The Makefile's set-up, cut off at every point, in front of a stand-in for Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# What `python -m venv` and pip do, a line each into a log; CUT ends it after so many steps. Like
# the real one, a python in .venv/bin without a pyvenv.cfg is the system's.
PYTHON = """#!/bin/sh
home=$(dirname "$(dirname "$0")")
step() { count=$((count + 1)); [ "$count" != "${CUT:-0}" ] || exit 1; }
case "$2" in
venv)
    mkdir -p .venv/bin && step
    ln -s "$(command -v python-stand-in)" .venv/bin/python && step
    touch .venv/pyvenv.cfg && step
    touch .venv/pip && step ;;
pip)
    [ -e "$home/pyvenv.cfg" ] || { echo "into the system" >>log; exit 1; }
    [ -e "$home/pip" ] || { echo "without pip" >>log; exit 1; }
    [ ! -e "$home/half" ] || { echo "over half a package" >>log; exit 1; }
    touch "$home/half"; [ -z "$CUT_PIP" ] || exit 1
    rm "$home/half"; echo "installed" >>log ;;
esac
"""


@pytest.fixture
def make(tmp_path: Path):
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    shutil.copy(Path(__file__).parents[1] / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/pyproject.toml").touch()
    stand_in = tmp_path / "bin" / "python-stand-in"
    stand_in.parent.mkdir()
    stand_in.write_text(PYTHON)
    stand_in.chmod(0o755)

    def run(**environment: str) -> list[str]:
        """Run the set-up; return what it says of itself."""
        path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
        command = ["make", "-s", ".venv/ready", "PYTHON=python-stand-in"]
        given = {**os.environ, "PATH": path, **environment}
        subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, check=False)
        log = tmp_path / "log"
        return log.read_text().splitlines() if log.exists() else []

    return run


@pytest.mark.parametrize(
    "cut", [{"CUT": "1"}, {"CUT": "2"}, {"CUT": "3"}, {"CUT": "4"}, {"CUT_PIP": "1"}]
)
def test_a_set_up_that_was_cut_off_starts_again(make, cut, tmp_path: Path):
    assert make(**cut) == []
    assert not (tmp_path / ".venv/ready").exists()
    assert make() == ["installed"]
    assert make() == ["installed"]  # nothing is left to do


def test_another_pyproject_is_installed_again_and_may_be_cut_off_too(make, tmp_path: Path):
    make()
    project, kept = tmp_path / "pyproject.toml", tmp_path / ".venv/kept"
    kept.touch()
    ahead = (tmp_path / ".venv/ready").stat().st_mtime + 10
    os.utime(project, (ahead, ahead))
    assert make(CUT_PIP="1") == ["installed"] and kept.exists()
    assert not (tmp_path / ".venv/ready").exists()
    assert make() == ["installed"] * 2 and not kept.exists()
