"""`Evaluation` on disk: round trip, damage, and parts that do not belong together."""

import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from scipy import stats

from clarep.errors import UserError
from clarep.robustness.evaluation import (
    ARRAYS_NAME,
    EVALUATION_NAME,
    Evaluation,
    Measurement,
    mean_of,
)


@pytest.fixture
def evaluation() -> Evaluation:
    right = torch.tensor([1.0, 0.0, 1.0, 1.0])
    measured = [mean_of("clean/accuracy", right), mean_of("attack/x", 1 - right, "it is masked")]
    return Evaluation({"seed": 0}, measured, {"clean/accuracy": right, "label": torch.arange(4)})


def test_what_is_saved_is_loaded(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.save(tmp_path)
    loaded = Evaluation.load(tmp_path)
    assert loaded.config == evaluation.config
    assert loaded.measurements == evaluation.measurements
    assert loaded["attack/x"].untrustworthy == "it is masked"
    assert {name: value.tolist() for name, value in loaded.arrays.items()} == {
        "clean/accuracy": [1, 0, 1, 1],
        "label": [0, 1, 2, 3],
    }
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    loaded.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_figures_are_found_by_key(evaluation: Evaluation) -> None:
    assert evaluation["clean/accuracy"].value == 0.75
    assert evaluation["clean/accuracy"].images == 4
    assert "clean/accuracy" in evaluation
    assert "clean" not in evaluation
    with pytest.raises(KeyError, match="ood"):
        evaluation["ood/x/auroc"]


def test_it_is_readable_in_a_session_and_in_a_notebook(evaluation: Evaluation) -> None:
    lines = repr(evaluation).splitlines()
    assert "2 figures" in lines[0]
    assert lines[2].split()[:2] == ["clean/accuracy", "0.75"]
    assert "not trustworthy: it is masked" in lines[3]
    html = evaluation._repr_html_()
    assert html.count("<tr>") == 3
    assert "<td>attack/x</td><td>0.25</td>" in html
    assert "<b>" not in Evaluation({"run": "<b>"}, [], {})._repr_html_()


def test_as_a_frame_it_has_a_row_a_figure(evaluation: Evaluation, monkeypatch) -> None:
    made = ModuleType("pandas")
    made.DataFrame = lambda rows: rows
    monkeypatch.setitem(sys.modules, "pandas", made)
    first, second = evaluation.to_frame()
    assert (first["key"], first["value"], first["images"]) == ("clean/accuracy", 0.75, 4)
    assert (second["low"], second["high"]) == evaluation["attack/x"].interval
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pandas is not installed: give pip install .*notebooks"):
        evaluation.to_frame()


def test_an_interval_holds_its_mean_and_narrows_with_images() -> None:
    values = (torch.arange(40) % 4 > 0).float()
    few, many = mean_of("a", values), mean_of("a", values.repeat(25))
    assert few.interval[0] < 0.75 < few.interval[1]
    width = few.interval[1] - few.interval[0]
    assert width == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 40) ** 0.5, rel=0.15)
    assert many.interval[1] - many.interval[0] == pytest.approx(width / 5, rel=0.15)


def test_arrays_of_another_evaluation_are_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.save(tmp_path / "a")
    evaluation.arrays["label"] = torch.ones(4)
    evaluation.save(tmp_path / "b")
    (tmp_path / "b" / ARRAYS_NAME).replace(tmp_path / "a" / ARRAYS_NAME)
    with pytest.raises(UserError, match="its SHA-256 differs") as raised:
        Evaluation.load(tmp_path / "a")
    assert str(raised.value).count("run clarep evaluate again") == 1
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="file holds no evaluation"):
        Evaluation.load(tmp_path / "file")


@pytest.mark.parametrize("name", [EVALUATION_NAME, ARRAYS_NAME])
def test_a_missing_file_is_named(evaluation: Evaluation, tmp_path: Path, name: str) -> None:
    evaluation.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"holds no evaluation .no {name}"):
        Evaluation.load(tmp_path)


@pytest.mark.parametrize("name", [EVALUATION_NAME, ARRAYS_NAME])
def test_a_pipe_is_not_waited_for(evaluation: Evaluation, tmp_path: Path, name: str) -> None:
    evaluation.save(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=r"no regular file.*run clarep evaluate again"):
        Evaluation.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": 1}', '{"format": 2, "config": {}}', "[" * 9_000, '{"format": NaN}'],
)
def test_another_json_is_refused_in_one_sentence(
    evaluation: Evaluation, tmp_path: Path, text: str
) -> None:
    evaluation.save(tmp_path)
    (tmp_path / EVALUATION_NAME).write_text(text)
    with pytest.raises(UserError, match="run clarep evaluate again"):
        Evaluation.load(tmp_path)


def test_a_measurement_with_another_field_is_refused(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    evaluation.save(tmp_path)
    content = json.loads((tmp_path / EVALUATION_NAME).read_text())
    content["measurements"][0]["colour"] = "red"
    del content["content_sha256"]
    (tmp_path / EVALUATION_NAME).write_text(json.dumps(content))
    with pytest.raises(UserError, match="colour"):
        Evaluation.load(tmp_path)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where in a JSON value others lie."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*place, key)
        yield from places(inner, (*place, key))


def test_a_null_is_refused_wherever_something_is_read(tmp_path: Path) -> None:
    found = [Measurement("clean/accuracy", 0.75, (0.5, 0.9), 4, "it is masked", "of few")]
    Evaluation({"data": {}, "suite": {}}, found, {}).save(tmp_path)
    text = (tmp_path / EVALUATION_NAME).read_text()
    for *path, last in places(json.loads(text)):
        content = inner = json.loads(text)
        for key in path:
            inner = inner[key]
        inner[last] = None
        if last == "content_sha256":
            continue
        del content["content_sha256"]
        (tmp_path / EVALUATION_NAME).write_text(json.dumps(content))
        with pytest.raises(UserError, match="run clarep evaluate again"):
            Evaluation.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"), [("0.75", "0.76"), ("it is masked", ""), ('"seed": 0', '"seed": 1')]
)
def test_a_digit_or_a_word_changed_by_hand_is_told(
    evaluation: Evaluation, tmp_path: Path, old: str, new: str
) -> None:
    evaluation.save(tmp_path)
    text = (tmp_path / EVALUATION_NAME).read_text()
    assert old in text
    (tmp_path / EVALUATION_NAME).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=r"SHA-256 differs.*run clarep evaluate again"):
        Evaluation.load(tmp_path)


def test_a_distance_that_is_infinite_comes_back(tmp_path: Path) -> None:
    far = Measurement("attack/cw-l2/median_l2", math.inf, (0.5, math.inf), 4)
    Evaluation({}, [far], {}).save(tmp_path)
    assert Evaluation.load(tmp_path).measurements == [far]
    assert "Infinity" not in (tmp_path / EVALUATION_NAME).read_text()


@pytest.mark.parametrize("right", [0, 1, 5, 8])
def test_a_share_has_the_exact_interval(right: int):
    one = mean_of("clean/accuracy", (torch.arange(8) < right).double())
    exact = stats.binomtest(right, 8).proportion_ci(0.95, method="exact")
    assert one.interval == pytest.approx((exact.low, exact.high))
