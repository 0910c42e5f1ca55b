"""`clarep report` from run folders to a page, and what it says of mistakes."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from clarep.cli.main import main
from clarep.cli.report import Report
from clarep.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = Path(__file__).parents[1] / "report" / "fabricated.py"
    spec = importlib.util.spec_from_file_location("fabricated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_run(tmp_path_factory.mktemp("runs") / "vanilla")


def test_it_writes_the_page_and_says_where(run, tmp_path, capsys):
    Report((run,), out=tmp_path / "out", title="A title").run()
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"report in {tmp_path}/out/index.html"
    assert "<h1>A title, 20" in (tmp_path / "out" / "index.html").read_text()


def test_as_json(run, tmp_path, capsys):
    Report((run,), out=tmp_path / "out", json=True).run()
    wrote = json.loads(capsys.readouterr().out)["wrote"]
    assert Path(wrote["report"]).is_file()
    assert Path(wrote["data"], "main_table.csv").is_file()


def test_what_is_missing_is_noted_once_each(run, tmp_path, capsys):
    half = tmp_path / "half"
    shutil.copytree(run / "student", half / "student")
    Report((run, half), out=tmp_path / "out").run()
    said = capsys.readouterr().err.splitlines()
    assert sorted(said) == [
        f"clarep: note: half is not evaluated: clarep evaluate {half} measures it",
        "clarep: note: no canonical set was given, so that its samples, spectrum and cost are not "
        "shown: clarep report RUN… --canon DIR shows them",
    ]


def test_a_path_that_does_not_exist_is_one_sentence_and_2(run, tmp_path, capsys):
    gone = tmp_path / "nothing"
    assert main(["report", str(run), str(gone), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"clarep: the run {gone} does not exist: give folders that clarep distill wrote\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="none of the 1 runs can be read"):
        Report((tmp_path / "nothing",), out=tmp_path / "out").run()
