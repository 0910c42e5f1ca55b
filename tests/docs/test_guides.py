"""The guides run, cell by cell, as notebooks on the embedded data; the site is built strictly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """---
jupyter:
  kernelspec: {name: python3, display_name: Python 3, language: python}
---

"""
LONG = {"own_images", "reading_a_report", "study"}  # half a minute each
GUIDES = [
    pytest.param(path, marks=[pytest.mark.slow] if path.stem in LONG else [], id=path.stem)
    for path in [ROOT / "docs/index.md", *sorted((ROOT / "docs/guides").glob("*.md"))]
]


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_runs(guide, tmp_path, monkeypatch):
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    notebook = jupytext.reads(PYTHON + guide.read_text(encoding="utf-8"), fmt="md")
    assert any(cell.cell_type == "code" for cell in notebook.cells)
    beside = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{beside}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    # Raises CellExecutionError, with the cell and what it printed.
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()


def test_the_site_is_built_without_a_warning(tmp_path):
    """A broken link, a page that no menu names or an undocumented public name fails."""
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    for page in ("index", "api", "commands", "guides/own_images"):
        assert (tmp_path / f"site/{page}.html").stat().st_size > 10_000
