"""Figures for a paper: inches, letters as text, what they show, and settings left alone."""

import importlib.util
import math
import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from clarep.errors import UserError
from clarep.geometry.subspace import Subspace
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.measures import heading_of
from clarep.study.comparison import compare

OKABE_ITO = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    path = Path(__file__).parent / "report" / "fabricated.py"
    spec = importlib.util.spec_from_file_location("fabricated", path)
    fabricated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fabricated)
    root = tmp_path_factory.mktemp("runs")
    return [fabricated.make_run(root / name, name) for name in ("vanilla", "cadistill", "random")]


def subspace(values: torch.Tensor) -> Subspace:
    n, k = values.shape
    V = torch.eye(6)[None, :, :k].expand(n, -1, -1)
    return Subspace(V, values, torch.zeros(n, k), torch.zeros(n, dtype=torch.float64), 3)


def all_figures(runs):
    yield subspace(torch.tensor([[4.0, 2.0, 1.0], [3.0, 2.0, 0.5]])).figure()
    yield Evaluation.load(runs[0] / "robustness").figure()
    yield compare(runs).figure()


def test_figures_are_vector_pdfs_of_their_size_with_letters_as_text(runs, tmp_path):
    before = dict(matplotlib.rcParams)
    for figure in all_figures(runs):
        figure.savefig(tmp_path / "x.pdf")
        content = (tmp_path / "x.pdf").read_bytes()
        page = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+)", content)
        assert np.allclose([float(side) / 72 for side in page.groups()], figure.get_size_inches())
        assert b"/TrueType" in content or b"/CIDFontType2" in content
        assert b"/Type3" not in content and b"/Subtype /Image" not in content
        drawn = {
            matplotlib.colors.to_hex(line.get_color()) for a in figure.axes for line in a.lines
        }
        assert drawn <= OKABE_ITO | {"#808080"}  # greys are what others are held against
    assert dict(matplotlib.rcParams) == before


def test_the_spectrum_shows_the_median_of_the_images():
    figure = subspace(torch.tensor([[4.0, 2.0, 1.0], [3.0, 2.0, 0.5]])).figure()
    median = figure.axes[0].lines[0].get_ydata()
    assert np.allclose(median, [3.5, 2.0, 0.75])
    with pytest.raises(UserError, match="random"):
        subspace(torch.full((1, 2), math.nan)).figure()


def test_an_evaluation_shows_its_shares_and_curves(runs):
    evaluation = Evaluation.load(runs[2] / "robustness")
    dots, linf, l2 = evaluation.figure().axes
    names = [label.get_text() for label in dots.get_yticklabels()]
    place = names.index(heading_of("clean/accuracy"))
    values = {
        line.get_ydata()[0]: line.get_xdata()[0] for line in dots.lines if line.get_marker() == "o"
    }
    assert values[place] == evaluation["clean/accuracy"].value
    assert any(name.endswith("↓") for name in names) and "PGD 4/255" not in names
    curve = next(line for line in linf.lines if line.get_label() == "PGD")
    keys = [f"attack/pgd-linf/eps_255={eps:g}" for eps in (0.25, 0.5, 1, 2, 4)]
    assert list(curve.get_ydata()) == [evaluation[key].value for key in keys]
    hollow = [line for line in linf.lines if line.get_fillstyle() == "none"]
    assert len(hollow) == 3 and "L2" in l2.get_xlabel()  # what `fabricated` does not trust
    with pytest.raises(UserError):
        replace(evaluation, measurements=[]).figure()


def test_a_comparison_shows_means_verdicts_and_the_reference(runs):
    compared = compare(runs)
    axes = compared.figure().axes
    assert [axis.get_title().rstrip(" ↓") for axis in axes] == list(
        map(heading_of, compared.measures)
    )
    marks = {"better": "^", "worse": "v", "neither": "o", "untested": "s"}
    for place, axis in enumerate(axes):
        drawn = [line for line in axis.lines if line.get_marker() in marks.values()]
        cells = [row.cells[place] for row in compared.rows]
        assert [line.get_xdata()[0] for line in drawn] == [cell.value for cell in cells]
        assert [line.get_marker() for line in drawn] == [marks[cell.verdict] for cell in cells]
        dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert [line.get_xdata()[0] for line in dashed] == [cells[0].value]
