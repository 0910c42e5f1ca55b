"""`clarep compare` from run folders to a table, and what it says of runs it cannot compare."""

import json
from pathlib import Path

import pytest
import torch

from clarep.cli.main import main
from clarep.robustness.evaluation import Evaluation, mean_of


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def make_run(folder: str, method: str, seed: int, accuracy: float, correlation: float = 0.9):
    config = {"method": method, "seed": seed, "data_options": {"correlation": correlation}}
    student = Path(folder, "student")
    student.mkdir(parents=True)
    (student / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(seed)
    right = (torch.rand(300, generator=generator) < accuracy).float()
    arrays = {"clean/accuracy": right, "label": torch.arange(300) % 10}
    config = {"seed": 0, "suite": {"groups": ["clean"]}}
    evaluation = Evaluation(config, [mean_of("clean/accuracy", right)], arrays)
    evaluation.save(Path(folder, "robustness"))


@pytest.fixture
def runs() -> list[str]:
    for seed in (0, 1):
        make_run(f"v{seed}", "vanilla", seed, 0.6)
        make_run(f"c{seed}", "cadistill", seed, 0.8)
    return ["v0", "c0", "v1", "c1"]


def test_a_table(runs, capsys):
    assert main(["compare", *runs, "--out", "report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["method", "clean"]
    assert lines[1].startswith("vanilla")
    assert lines[2].startswith("cadistill") and lines[2].endswith("▲")
    assert lines[3].startswith("2 seeds: mean over seeds")
    assert "Holm over 1 tests" in lines[4]
    assert max(map(len, lines[:3])) <= 80
    assert lines[-1] == "table in report/table.md"
    for name in ("table.md", "table.csv", "table.json"):
        assert Path("report", name).stat().st_size > 100


def test_json_measures_and_reference(runs, capsys):
    options = ["--json", "--measures", "clean/*", "--reference", "cadistill"]
    assert main(["compare", *runs, *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["reference"] == "cadistill"
    assert answer["verdicts"] == {"vanilla": {"clean/accuracy": "worse"}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["v0", "nowhere"], "nowhere holds no trained student"),
        (["study"], "study holds no trained student (no student/config.json): give study/runs/*"),
        (["v0", "v0"], "both vanilla with seed 0"),
        (["v0", "other"], "trained on other data (correlation: 0.9 in v0, 0.0 in other)"),
        (["v0", "--measures", "clean/acuracy"], "unknown measure 'clean/acuracy': did you mean"),
        (["v0", "--measures"], "--measures names none: give at least one"),
        (["v0", "--reference", "nope"], "unknown reference 'nope': valid are vanilla"),
        ([], "nothing to compare"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments, words, runs, capsys):
    make_run("other", "kd", 0, 0.7, correlation=0.0)
    Path("study/runs").mkdir(parents=True)
    assert main(["compare", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
