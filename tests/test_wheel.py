"""What is published: all that is committed of the package is in it, and it is light."""

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

hatchling = pytest.importorskip("hatchling.build")
ROOT = Path(__file__).parents[1]
LARGEST = 20_000_000
"""Bytes of clarep's wheel; what is heavier goes into clarep-weights."""


def committed(folder: Path) -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("no clone")
    listed = subprocess.check_output(["git", "ls-files", "-z", "."], cwd=folder, text=True)
    return set(filter(None, listed.split("\0")))


@pytest.mark.parametrize("project", [".", "weights"])
def test_the_wheel_holds_all_that_is_committed_and_nothing_else(project, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / project)
    wheel = tmp_path / hatchling.build_wheel(str(tmp_path))
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == committed(ROOT / project / "src") and packed
    assert any(name.endswith("licenses/LICENSE") for name in names)
    if project == ".":
        assert any(name.endswith("NOTICE.txt") and ".dist-info/" in name for name in names)
        assert wheel.stat().st_size < LARGEST


def test_the_source_has_what_its_tests_read_and_no_heavy_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with tarfile.open(tmp_path / hatchling.build_sdist(str(tmp_path))) as source:
        names = {name.split("/", 1)[1] for name in source.getnames()}
    wanted = {name for name in committed(ROOT) if not name.startswith(("weights/", ".ci/"))}
    assert wanted <= names
    assert not any(name.startswith("weights/") for name in names)
