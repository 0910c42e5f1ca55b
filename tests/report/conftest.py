"""Run folders and canonical sets for the report's tests."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def fabricated() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "fabricated", Path(__file__).parent / "fabricated.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def canon(fabricated: ModuleType, tiny_teacher_path: Path, tmp_path_factory) -> Path:
    """A canonical set of 12 images by the tiny teacher; not to be changed."""
    return fabricated.make_canon(tmp_path_factory.mktemp("set") / "canon", str(tiny_teacher_path))


@pytest.fixture(scope="session")
def runs(fabricated: ModuleType, tmp_path_factory) -> list[Path]:
    """Two seeds of vanilla, two of cadistill and one of random; not to be changed."""
    root = tmp_path_factory.mktemp("runs")
    given = [("vanilla", 0), ("vanilla", 1), ("cadistill", 0), ("cadistill", 1), ("random", 0)]
    return [fabricated.make_run(root / f"{method}-{seed}", method, seed) for method, seed in given]


@pytest.fixture(scope="session")
def report(runs: list[Path], canon: Path, tmp_path_factory) -> Path:
    """The page of all of them."""
    from clarep.report.html import build_report

    return build_report(runs, canon, tmp_path_factory.mktemp("report"))
