"""Scales, ticks, markers and bins of the charts."""

import math
import re

import numpy as np
import pytest
import torch

from clarep.report.html.charts import Point, Series, bar_chart, line_chart
from clarep.report.html.figure_cells import figure_cell
from clarep.report.html.run_folders import ReportRun, group_runs
from clarep.report.html.sections.features_section import project_pca, project_tsne
from clarep.report.html.sections.results_section import middle_eps
from clarep.report.html.svg import WIDTH, Axis, Plot, linear_axis, log_axis
from clarep.robustness.calibration import reliability
from clarep.robustness.evaluation import Measurement


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.07), (-3, 17), (2, 2), (0, 1e-7)])
def test_ticks_are_round_inside_and_evenly_apart(low, high):
    axis = linear_axis("x", low, high)
    values = [value for value, _ in axis.ticks]
    assert 2 <= len(values) <= 8
    assert all(axis.low - 1e-12 <= value <= axis.high + 1e-12 for value in values)
    assert np.allclose(np.diff(values), np.diff(values)[0])
    for value, words in axis.ticks:
        assert float(words) == pytest.approx(value, abs=1e-12)


def test_a_logarithmic_axis_puts_powers_evenly():
    axis = log_axis("k", 1, 1000)
    assert [axis.share(10**i) for i in range(4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [words for _, words in axis.ticks] == ["1", "10", "100", "1000"]


def test_points_land_where_the_axes_say():
    plot = Plot("p", "t", "d", Axis("x", 0, 10), Axis("y", 0, 1))
    assert plot.px(0) == plot.left
    assert plot.px(10) == WIDTH - plot.right
    assert plot.py(0) > plot.py(1)
    plot.whisker(5, -3, 2, "s0")  # an interval beyond the frame is cut at it
    [y1, y2] = re.search(r'class="whisker.*?y1="([\d.]+)" y2="([\d.]+)"', plot.svg()).groups()
    assert (float(y1), float(y2)) == pytest.approx((plot.py(0), plot.py(1)), abs=0.06)


def test_end_labels_never_overlap_nor_leave_the_frame():
    plot = Plot("p", "t", "d", Axis("x", 0, 1), Axis("y", 0, 1), right=90)
    plot.end_labels([(0.01 * i, f"m{i}", "s0") for i in range(6)])
    places = sorted(
        float(y) for y in re.findall(r'class="label s0" x="[\d.]+" y="([\d.]+)"', plot.svg())
    )
    assert min(np.diff(places)) >= 11.9
    assert places[-1] <= plot.py(0) + 4.1


def series(label: str, *points: Point) -> Series:
    return Series(label, "s0", 0, points)


def test_a_line_chart_says_and_marks_what_it_shows():
    svg = line_chart(
        "c", "PGD", "eps", [series("a<b", Point(0, 0.9, 0.8, 1), Point(4, 0.1, 0, 0.2, "masked"))]
    )
    assert "a&lt;b: 0.900 [0.800, 1.000] at eps 0, 0.100 [0.000, 0.200] at 4." in svg
    assert "not trustworthy: masked" in svg
    assert svg.count("hollow") == 1


def test_bars_are_as_long_as_their_figures():
    one = series("m")
    svg = bar_chart(
        "b",
        "t",
        "accuracy",
        [(n, [(one, Point(0, v, v, 1.0))]) for n, v in (("x", 0.4), ("y", 0.8))],
    )
    short, long = (float(w) for w in re.findall(r'class="bar s0".*?width="([\d.]+)"', svg))
    assert long == pytest.approx(2 * short, rel=0.01)


@pytest.mark.parametrize("high", [0.03, 0.52, 0.95, 1.0, 2.5])
def test_bars_leave_room_for_whiskers(high):
    point = Point(0, min(high, 1) / 2, -0.5, high)
    svg = bar_chart("b", "t", "accuracy", [("x", [(series("m"), point)])])
    end = float(re.search(r'class="axis".*?x2="([\d.]+)"', svg).group(1))
    whisker = float(re.search(r'class="whisker.*?x2="([\d.]+)"', svg).group(1))
    assert whisker < end if high <= 1 else whisker == pytest.approx(end)
    last_tick = [float(x) for x in re.findall(r'class="tickmark" x1="([\d.]+)"', svg)][-1]
    assert last_tick >= whisker or high > 1


def test_reliability_bins_against_a_loop():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 200)
    labels = rng.integers(0, 3, 200)
    bins = reliability(torch.from_numpy(probabilities), torch.from_numpy(labels))
    expected = []
    for b in range(15):
        members = [i for i in range(200) if b / 15 < probabilities[i].max() <= (b + 1) / 15]
        if members:
            expected.append(
                (
                    sum(probabilities[i].max() for i in members) / len(members),
                    sum(probabilities[i].argmax() == labels[i] for i in members) / len(members),
                    len(members) / 200,
                )
            )
    assert np.allclose(bins, expected)
    assert sum(share for _, _, share in bins) == pytest.approx(1)


def test_projections_find_two_far_clusters_and_bear_constant_features():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((40, 60)) + 30 * (np.arange(40) < 20)[:, None]
    (first, _), places = project_pca(torch.from_numpy(flat))
    assert first > 0.9
    for found in map(np.array, (places, project_tsne(torch.from_numpy(flat)))):
        one, other = found[:20], found[20:]
        within = max(np.ptp(one, axis=0).max(), np.ptp(other, axis=0).max())
        assert np.linalg.norm(one.mean(0) - other.mean(0)) > 0.5 * within
    for constant in (torch.ones(6, 4), torch.ones(6, 1)):
        assert not np.any(project_pca(constant)[1])
        assert not np.any(project_tsne(constant))


def test_at_most_three_strengths_weak_to_strong():
    keys = [f"attack/pgd-linf/eps_255={eps:g}" for eps in (8, 0.25, 0, 1, 4, 2)]
    assert [key.split("=")[1] for key in middle_eps(keys)] == ["0.25", "2", "8"]
    assert middle_eps(keys[1:3]) == keys[1:2]


def test_a_figure_that_is_nan_is_a_dash():
    cell = figure_cell(Measurement("k", math.nan, (math.nan, math.nan), 3))
    assert cell.text == "\N{EN DASH}"
    cell = figure_cell(Measurement("k", -0.5, (-0.7, 0.1), 3))
    assert (cell.text, cell.below) == ("\N{MINUS SIGN}0.500", "[\N{MINUS SIGN}0.700, 0.100]")


def test_colours_stay_with_their_methods(tmp_path):
    names = ["random", "cadistill", "kd", "vanilla"]
    runs = [ReportRun(tmp_path / n, n, {"method": n, "seed": 0}, None) for n in names]
    slots = {group.method: group.slot for group in group_runs(runs)}
    assert slots == {"random": 2, "cadistill": 1, "kd": 3, "vanilla": 0}
    many = [ReportRun(tmp_path / str(i), str(i), {"method": f"m{i}"}, None) for i in range(18)]
    looks = {(group.css, group.slot % 4) for group in group_runs(many)}
    assert len(looks) >= 14  # colour, dash and marker
