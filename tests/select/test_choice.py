"""The rule on tables made by hand, intervals against scipy, and the cells of a real grid."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from clarep.clarid.clarid import Clarid
from clarep.data.garments import load_garments
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data
from clarep.engine.artefacts import read_json
from clarep.errors import UserError
from clarep.report.choice_table import _by_another, selection_table, write_selection
from clarep.report.curve_figure import curve_figure
from clarep.report.quality import student_judge
from clarep.select import curve_cell
from clarep.select import grid_results as cells_module
from clarep.select.canonicity import Point, choose
from clarep.select.choice import ALL_COLUMNS, Estimate, aggregate, curve_points, estimate
from clarep.select.clarep_columns import COLUMNS
from clarep.select.grid import Grid, GridConfig, draw_images, plan_grid
from clarep.select.grid_results import load_cells, walk_grid
from clarep.students.student_files import load_judge
from clarep.teachers.unet_teacher import load_unet

SMALL = GridConfig(t=(0.6, 0.85), k=(4, 8), kind=("top",), seeds=(0, 1), images=20, steps=2)


@pytest.fixture(scope="module", autouse=True)
def _read_quickly():
    """Two labels at one noise level: what the class evidence is worth is measured elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        quick = partial(curve_cell.class_evidence, levels=1, most_labels=2)
        patch.setattr(curve_cell, "class_evidence", quick)
        yield


@pytest.mark.parametrize("count", [2, 3, 8])
def test_intervals_are_students(count):
    values = np.random.default_rng(count).normal(size=count).tolist()
    ours = estimate(values)
    error = np.std(values, ddof=1) / np.sqrt(count)
    low, high = student.interval(0.95, count - 1, loc=np.mean(values), scale=error)
    assert (ours.mean, ours.standard_error) == pytest.approx((np.mean(values), error))
    assert (ours.low, ours.high) == pytest.approx((low, high))


def test_one_seed_has_no_interval():
    assert estimate([0.4]) == Estimate(0.4, None, None, None)


def cell(seed: int, images: list[int], rows: dict[tuple[str, int], list[float]], t=0.5) -> dict:
    """A stored cell whose teacher reads the class with these probabilities, of four labels."""
    told = {"null_right": [1.0] * len(images)}
    measured = [
        dict.fromkeys(ALL_COLUMNS)
        | {"kind": kind, "k": k, "share": k / 100, "nmi_null": 0.1 * seed, "sample_spread": 1.0 + k}
        | {"read": {"posterior": read, "below": [v - 0.1 for v in read]} | told, "labels_tried": 4}
        for (kind, k), read in rows.items()
    ]
    return {
        "cell": {"seed": seed, "t": t, "tap": "mid", "sigma": 10 * t},
        "images": images,
        "rows": measured,
    }


CELLS = [
    cell(1, [3, 7], {("none", 0): [1.0, 0.5], ("top", 5): [0.5, 0.5], ("random", 5): [1.0, 0.5]}),
    cell(2, [7, 9], {("none", 0): [0.9, 0.8], ("top", 5): [0.7, 0.2], ("random", 5): [0.9, 0.8]}),
]


def test_aggregate_groups_by_t_tap_kind_and_k():
    found = aggregate(CELLS)
    assert [(row.t, row.sigma, row.kind, row.k, row.share, row.seeds) for row in found] == [
        (0.5, 5.0, "none", 0, 0.0, 2),
        (0.5, 5.0, "top", 5, 0.05, 2),
        (0.5, 5.0, "random", 5, 0.05, 2),
    ]
    assert [row.measures["nmi_null"].mean for row in found] == pytest.approx([0.15] * 3)
    assert found[0].measures["judge_accuracy"] is None


def test_the_points_of_a_curve_hold_every_image_once():
    """Image 7 was drawn by two seeds and counts with its mean, as do the teacher's two readings."""
    alone, top = curve_points(CELLS, num_classes=10)
    assert (alone.k, top.k) == (0, 5)
    assert alone.evidence["teacher"] == pytest.approx(np.array([1.0, 0.7, 0.8]) - 0.05 - 1 / 4)
    assert top.evidence["teacher"] == pytest.approx(np.array([0.5, 0.6, 0.2]) - 0.05 - 1 / 4)
    assert top.evidence["null_right"] == pytest.approx(np.full(3, 1 - 1 / 10))
    assert (alone.extraneous, top.extraneous) == (1.0, 6.0)
    (_, random) = curve_points(CELLS, num_classes=10, kind="random")
    assert random.evidence["teacher"] == pytest.approx(alone.evidence["teacher"])


@pytest.mark.parametrize("count", [20, 25, 50])
def test_images_are_drawn_evenly_and_by_seed(count):
    data = load_garments("train")
    drawn = draw_images(data, count, 0)
    assert np.bincount(data.labels[drawn]).tolist() == [count // 10] * 10
    assert np.array_equal(drawn, draw_images(data, count, 0))
    assert not np.array_equal(drawn, draw_images(data, count, 1))


def few(members: list[int]) -> LabelledImages:
    labels = np.repeat(np.arange(len(members)), members)
    names = tuple("abc")[: len(members)]
    return LabelledImages("few", labels, names, [""] * len(labels), lambda i: np.zeros(0, np.uint8))


def test_too_few_images():
    with pytest.raises(UserError, match="give `images` at least 6"):
        draw_images(few([9, 9, 9]), 5, 0)
    with pytest.raises(UserError, match=r"class 'b' has 3 images.*give `images` at most 9"):
        draw_images(few([9, 3, 9]), 15, 0)


def test_only_readable_images_are_drawn():
    data = few([9, 4, 9])
    readable = np.delete(np.arange(22), [0, 10, 20])
    drawn = draw_images(data, 9, 0, readable)
    assert np.bincount(data.labels[drawn]).tolist() == [3, 3, 3]
    assert set(drawn) <= set(readable)
    assert 9 in drawn  # class b has only these three
    with pytest.raises(UserError, match="class 'b' has 3 images"):
        draw_images(data, 12, 0, readable)
    assert np.array_equal(draw_images(data, 9, 0, np.arange(22)), draw_images(data, 9, 0))


def test_smaller_ks_are_nested_in_the_largest(tiny_teacher_path: Path):
    clarid = Clarid(load_unet(tiny_teacher_path), t=0.85, k=24, steps=2)
    data = load_data(DataConfig())
    labels = torch.from_numpy(data.labels[:1])
    x_te, _ = clarid.invert(data.images([0]), labels)
    found = clarid.directions(x_te, labels)
    assert bool((found.singular_values.diff(dim=1) <= 0).all())
    dense = clarid.jacobian(x_te, labels).dense()[0].double()
    exact = torch.linalg.eigvalsh(dense @ dense.mT).flip(0)
    for k in (1, 6, 12, 24):
        captured = (dense @ found.V[0, :, :k].double()).square().sum()
        assert 0.98 < float(captured / exact[:k].sum()) < 1 + 1e-5


@pytest.fixture(scope="module")
def grid(tiny_teacher_path: Path) -> Grid:
    return plan_grid(load_unet(tiny_teacher_path), load_data(DataConfig()), SMALL)


@pytest.fixture(scope="module")
def walked(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, judge = tmp_path_factory.mktemp("walked"), student_judge(load_judge())
    walk = walk_grid(grid, {"name": "x"}, folder, judge)
    steps = [(step.done, step.new, step.total) for step in walk]
    assert steps == [(done, min(done, 1), 4) for done in range(5)]
    return folder


def without_clock(path: Path) -> dict:
    cell = read_json(path)
    del cell["cost"]["seconds"], cell["cost"]["peak_memory_mb"]
    for cost in cell["directions"].values():
        del cost["seconds"]
    return cell


def test_a_cell_holds_all_measures_for_every_k(grid: Grid, walked: Path):
    stored = load_cells(grid, walked)
    assert [cell["cell"]["seed"] for cell in stored] == [0, 0, 1, 1]
    assert stored[0]["images"] == stored[1]["images"] != stored[2]["images"]
    for cell in stored:
        assert [row["k"] for row in cell["rows"]] == [0, 4, 8]
        assert [row["kind"] for row in cell["rows"]] == ["none", "top", "top"]
        assert cell["directions"]["top"]["products"] > 0
        assert cell["rows"][0]["removed_on_background"] is None
        assert all(row[name] is not None for row in cell["rows"][1:] for name in COLUMNS)
    assert {"config", "versions", "cost"} <= set(stored[0])
    config = stored[0]["config"]  # so that other defaults are never mixed in
    assert (config["clarid"]["solver"], config["clarid"]["tolerance"]) == ("heun", 0.01)


def test_a_missing_cell_alone_is_computed_again(
    grid: Grid, walked: Path, monkeypatch: pytest.MonkeyPatch
):
    gone = walked / "cells" / grid.cells[2].name
    before = {path: without_clock(path) for path in (walked / "cells").iterdir()}
    times = {path: path.stat().st_mtime_ns for path in before if path != gone}
    gone.unlink()
    (walked / "cells" / f".{gone.name}.{2**40}.tmp").write_text("half a ce")
    calls = []
    compute = cells_module.compute_cell
    monkeypatch.setattr(cells_module, "compute_cell", lambda *a: calls.append(a[1]) or compute(*a))
    judge = student_judge(load_judge())
    assert [step.done for step in walk_grid(grid, {"name": "x"}, walked, judge)] == [3, 4]
    assert calls == [grid.cells[2]]
    assert {path: without_clock(path) for path in (walked / "cells").iterdir()} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_finished_grid_computes_nothing(grid: Grid, walked: Path):
    assert [step.done for step in walk_grid(grid, {"name": "x"}, walked)] == [4]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"guidance": 2.0}, "guidance: 3.0 there, 2.0 now"),
        ({"k": (4, 9)}, "ks: [4, 8] there, [4, 9] now"),
        ({"images": 30}, "images: 20 there, 30 now"),
    ],
)
def test_another_configuration_is_refused(grid: Grid, walked: Path, changed, named):
    other = plan_grid(grid.teacher, grid.data, GridConfig(**(vars(SMALL) | changed)))
    with pytest.raises(UserError) as mistake:
        next(walk_grid(other, {"name": "x"}, walked))
    assert named in str(mistake.value)
    assert str(walked) in str(mistake.value)


def test_other_seeds_and_ts_extend_a_folder(grid: Grid, walked: Path):
    config = GridConfig(**(vars(SMALL) | {"seeds": (1, 2), "t": (0.85, 0.7)}))
    other = plan_grid(grid.teacher, grid.data, config)
    start = next(walk_grid(other, {"name": "x"}, walked))
    assert (start.done, start.total) == (1, 4)


def test_a_damaged_cell_is_named(grid: Grid, walked: Path, tmp_path: Path):
    (tmp_path / "cells").mkdir()
    whole = (walked / "cells" / grid.cells[0].name).read_text()
    (tmp_path / "cells" / grid.cells[0].name).write_text(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="delete it"):
        next(walk_grid(grid, {"name": "x"}, tmp_path))


def test_a_copy_of_another_cell_is_none(grid: Grid, walked: Path, tmp_path: Path):
    (tmp_path / "cells").mkdir()
    whole = (walked / "cells" / grid.cells[0].name).read_bytes()
    (tmp_path / "cells" / grid.cells[1].name).write_bytes(whole)
    with pytest.raises(UserError, match="delete it"):
        next(walk_grid(grid, {"name": "x"}, tmp_path))


def test_data_without_masks_have_the_measures_that_labels_suffice_for(
    tiny_teacher_path: Path, tmp_path: Path
):
    config = GridConfig(t=(0.6,), k=(4,), kind=("top",), seeds=(0,), images=20, steps=2)
    grid = plan_grid(load_unet(tiny_teacher_path), load_data(DataConfig(data="garments")), config)
    list(walk_grid(grid, {}, tmp_path))
    settings = aggregate(load_cells(grid, tmp_path))
    known = {"nmi_null", "nmi_conditional", "sample_within", "feature_within", "evidence"}
    known |= {"posterior_share", "below_share"}
    for row in settings:
        known |= {"evidence_change"} if row.k else set()
        assert {name for name in COLUMNS if row.measures[name] is not None} == known
    assert all(row.measures["sample_spread"].mean > 0 for row in settings)
    assert "judge" not in selection_table(settings)


def darkness(images: torch.Tensor) -> torch.Tensor:
    """Logits of ten classes by the mean of an image: something that depends on every pixel."""
    centres = torch.linspace(-0.5, 0.5, 10, dtype=images.dtype)
    return -(images.mean(dim=(1, 2, 3))[:, None] - centres).abs()


def test_a_given_judge_is_asked_by_a_loop(
    tiny_teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its accuracies are those of samples decoded one by one, of data of which no mask is known."""
    config = GridConfig(t=(0.6,), k=(4,), kind=("top",), seeds=(0,), images=20, steps=2)
    data = load_data(DataConfig(data="garments"))
    grid = plan_grid(load_unet(tiny_teacher_path), data, config)
    list(walk_grid(grid, {}, tmp_path, darkness))
    (cell,) = load_cells(grid, tmp_path)
    clarid, chosen = grid.clarid(grid.cells[0]), grid.chosen[0]
    right = 0
    for i in chosen:
        label = torch.from_numpy(data.labels[[i]])
        x_te, _ = clarid.invert(data.images([int(i)]), label)
        sample = clarid.sample(x_te, label).clamp(-1, 1)
        right += int(darkness(sample).argmax()) == int(label)
    alone, projected = cell["rows"]
    assert 0 < right < 20
    assert alone["judge_accuracy"] == pytest.approx(right / 20)
    assert alone["judge_confidence"] != projected["judge_confidence"]
    assert alone["background_colour"] is projected["background_colour"] is None
    text = selection_table(aggregate([cell]))
    assert "judge accuracy" in text and "background" not in text


def test_a_given_judge_takes_the_bundled_ones_place(grid: Grid, walked: Path, tmp_path: Path):
    """Where that one knows the classes: what the judge does not say stays as it is."""
    config = GridConfig(**(vars(SMALL) | {"t": (0.6,), "seeds": (0,)}))
    one = plan_grid(grid.teacher, grid.data, config)
    list(walk_grid(one, {}, tmp_path, darkness))
    (cell,), bundled = load_cells(one, tmp_path), load_cells(grid, walked)[0]
    for row, its in zip(cell["rows"], bundled["rows"], strict=True):
        other = {name for name in row if row[name] != its[name]}
        assert "judge_confidence" in other
        assert {name.split("_")[0] for name in other} <= {"judge", "null", "swap", "read"}
        assert row["read"]["posterior"] == its["read"]["posterior"]


@pytest.mark.parametrize("before", [{}, {"classifier_sha256": "ab"}])
def test_cells_of_another_classifier_are_not_mixed(grid: Grid, walked: Path, before, tmp_path):
    (tmp_path / "cells").mkdir()
    cell = read_json(walked / "cells" / grid.cells[0].name)
    cell["config"] |= before
    (tmp_path / "cells" / grid.cells[0].name).write_text(json.dumps(cell))
    assert next(walk_grid(grid, {"name": "x"} | before, tmp_path)).done == 1
    for other in ({}, {"classifier_sha256": "cd"}):
        if other != before:
            with pytest.raises(UserError, match="classifier_sha256"):
                next(walk_grid(grid, {"name": "x"} | other, tmp_path))


def test_a_teacher_of_other_classes_is_not_judged(
    tiny_teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    teacher = load_unet(tiny_teacher_path)
    teacher.class_names = tuple("abcdefghij")
    config = GridConfig(t=(0.6,), k=(4,), kind=("top",), seeds=(0,), images=20, steps=2)
    grid = plan_grid(teacher, load_data(DataConfig()), config)
    list(walk_grid(grid, {}, tmp_path))
    for row in aggregate(load_cells(grid, tmp_path)):
        assert row.measures["judge_accuracy"] is None
        assert row.measures["nmi_null"] is not None


def test_table_and_picture(grid: Grid, walked: Path, tmp_path: Path):
    cells = load_cells(grid, walked)
    settings = aggregate(cells)
    text = selection_table(settings)
    assert "k = 0 is guidance alone" in text
    assert "Student's t over 2 seeds" in text
    assert max(map(len, text.splitlines())) <= 100
    head = text.splitlines()[1].split()
    assert head[:7] == ["t", "tap", "taken", "out", "k", "evidence", "change"]
    assert "NMI given class" not in text
    assert len(selection_table(settings, 0.6).splitlines()) < len(text.splitlines())
    curves = {"top": curve_points(cells, 10, "top")}
    found = choose(curves["top"])
    written = write_selection(settings, curves, found, tmp_path)
    assert written["curve"].exists() and written["curve, energy"].exists()
    r2 = {"background_r2": Estimate(0.5, None, None, None)}
    read = [replace(setting, measures=setting.measures | r2) for setting in settings]
    assert write_selection(read, curves, found, tmp_path)["curve, r2"].exists()
    energy = _by_another(curves, settings, "captured_energy", lambda captured: 1 - captured)
    for point in energy["top"]:
        own = [s for s in settings if (s.t, s.tap, s.k) == (point.t, point.tap, point.k)]
        held = next(s for s in own if s.kind in ("top", "none")).measures["captured_energy"]
        assert point.extraneous == pytest.approx(1 - held.mean)
        assert (point.extraneous == 1) == (point.k == 0)
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert rows[0].startswith("t,tap,kind,k,sigma,share,seeds,extraneous,evidence,evidence_low")
    assert "nmi_conditional" in rows[0]
    assert len(rows) == 1 + 6
    assert len(json.loads((tmp_path / "table.json").read_text())) == 6
    # A network of random weights reads no class: of that nothing is drawn but where it lies.
    assert not any(axis.texts for axis in curve_figure(curves, found, "what is left").axes)
    read = {"posterior": np.linspace(0.4, 0.6, 20)}
    curves = {"top": [replace(point, evidence=read) for point in curves["top"]]}
    figure = curve_figure(curves, choose(curves["top"]), "what is left")
    assert [axis.get_title() for axis in figure.axes] == ["t = 0.6", "t = 0.85"]
    for axis, t in zip(figure.axes, (0.6, 0.85), strict=True):
        drawn = {line.get_label(): line.get_xdata() for line in axis.lines}
        top = sorted((p for p in curves["top"] if p.t == t), key=lambda p: p.k)
        assert drawn["top directions (CLARID)"].tolist() == [p.extraneous for p in top]
        assert [text.get_text() for text in axis.texts] == ["4", "8"]
    # Of kinds, the choice is drawn on the first, and every panel shows every point.
    shifted = [replace(point, extraneous=9 * point.extraneous) for point in curves["top"]]
    figure = curve_figure({"contrast": shifted, "random": curves["top"]}, choose(shifted), "left")
    for axis in figure.axes:
        drawn = {line.get_label(): line.get_xdata() for line in axis.lines}
        assert axis.get_xlim()[1] >= 9 * max(point.extraneous for point in curves["top"])
        alone = float(drawn["nothing taken out"][0])
        assert alone in [point.extraneous for point in shifted if point.k == 0]


def drawn(held: dict[tuple[float, int], float]):
    points = [
        Point(t, "mid", k, {"teacher": np.full(200, 0.5 * left)}, 1 / (1 + k))
        for (t, k), left in held.items()
    ]
    found = choose(points)
    figure = curve_figure({"top": points}, found, "spread")
    rings = [line for axis in figure.axes for line in axis.lines if line.get_color() == "tab:red"]
    assert len(rings) == 1
    words = {text.get_text() for axis in figure.axes for text in axis.texts}
    return found, figure, rings[0].get_ydata()[0], words


def test_the_dashed_line_is_a_tenth_below_the_panels_own_star():
    """A choice at a t whose star has sunk lies above its own panel's line, if below 0.9."""
    held = {(0.3, 0): 1.0, (0.3, 4): 0.99, (0.6, 0): 0.94, (0.6, 4): 0.87, (0.6, 8): 0.3}
    found, figure, ring, words = drawn(held)
    assert found.where() == {"t": 0.6, "tap": "mid", "k": 4} and found.stands
    for axis, star in zip(figure.axes, (1.0, 0.94), strict=True):
        dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in dashed] == [pytest.approx(0.9 * star)]
    assert ring == pytest.approx(0.87) and "least harmful" not in words


def test_a_ring_below_the_line_is_named_no_recommendation():
    found, figure, ring, words = drawn({(0.3, 0): 1.0, (0.3, 4): 0.6, (0.3, 8): 0.3})
    assert not found.stands and ring == pytest.approx(0.6)
    assert "least harmful" in words
    assert "no recommendation" in " ".join(figure.get_supxlabel().split())
