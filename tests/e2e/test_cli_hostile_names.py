"""Through the command line: names of folders, of a recipe and of a student's file are text."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clarep.cli.main import main
from clarep.engine.printable import one_line, printable
from clarep.errors import UserError
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, save_student
from clarep.study.recipe import load_recipe

CLASSES = (
    "=cmd()|' '!A0",
    "\x1b[31mred\x07",
    "\u202egpj.exe",
    "<img src=x onerror=a()>",
    "@SUM(A1)",
)
STUDENT = "--train.epochs 1 --train.batch-size 8 --student resnet8-half --train.crop-padding 1"


def harmless(text: str) -> bool:
    return printable(text) == text and "<img src" not in text


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 3)):
        for name in CLASSES:
            for i in range(count):
                path = root / split / name / f"+{i}\x1b[2J\u202e.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (root / "train" / CLASSES[1] / "\x1b[2Jno image").touch()
    return root


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "=run"
    data = ["--data", str(photos)]
    assert main(["distill", *data, "--method", "vanilla", "--out", str(out), *STUDENT.split()]) == 0
    groups = ["--groups", "clean", "calibration", "--images", "15"]
    assert main(["evaluate", str(out), *data, *groups]) == 0
    return out


def test_folders_are_shown_as_text(photos: Path, tmp_path: Path, capsys):
    assert main(["data", "show", str(photos), "--out", str(tmp_path / "s.png")]) == 0
    printed = capsys.readouterr()
    assert printable(printed.out + printed.err) == printed.out + printed.err
    assert all(one_line(name) in printed.out for name in CLASSES)


def test_a_report_of_them_is_text(trained: Path, tmp_path: Path, capsys):
    capsys.readouterr()
    before = {path for path in tmp_path.parent.rglob("*")}
    assert main(["report", str(trained), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert harmless(printed.out + printed.err)
    assert harmless((tmp_path / "out" / "index.html").read_text())
    tables = sorted((tmp_path / "out" / "data").glob("*.csv"))
    assert tables
    for path in tables:
        with open(path, newline="", encoding="utf-8") as stream:
            for row in csv.reader(stream):
                for cell in row:
                    is_number = re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", cell)
                    assert is_number or not cell.startswith(("=", "+", "-", "@", "\t"))
    inside = {path for path in (tmp_path / "out").rglob("*")} | {tmp_path / "out"}
    assert {path for path in tmp_path.parent.rglob("*")} - before <= inside


def test_a_students_file_names_classes_as_text(photos: Path, tmp_path: Path, capsys):
    info = StudentInfo("resnet8-half", ("=a", "\x1b]0;x\x07"), (3, 8, 8))
    save_student(build_student(info), tmp_path / "student.safetensors")
    assert main(["evaluate", str(tmp_path), "--data", str(photos)]) == 2
    printed = capsys.readouterr()
    assert harmless(printed.err) and printed.err.count("\n") == 1
    info = StudentInfo("\x1b[2J\u202ename", ("a", "b"), (3, 8, 8))
    net = build_student(StudentInfo("resnet8-half", ("a", "b"), (3, 8, 8)))
    net.info = info
    save_student(net, tmp_path / "student.safetensors")
    assert main(["evaluate", str(tmp_path), "--data", str(photos)]) == 2
    told = capsys.readouterr().err
    assert harmless(told) and "\\x1b[2J" in told


def variant(write_recipe, name: str) -> Path:
    path = write_recipe()
    quoted = json.dumps(name, ensure_ascii="\x1b" in name)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("methods")]
    own = [f"[variants.{quoted}]", 'method = "vanilla"']
    path.write_text("\n".join([f"methods = [{quoted}]", *lines, *own]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name", ["../../evil", "a/b", "..", ".x", "\x1b[2J", "\u202etxt", "", "x" * 101]
)
def test_a_variant_that_is_no_folders_name_is_refused(write_recipe, capsys, name: str):
    path = variant(write_recipe, name)
    with pytest.raises(UserError, match="names a folder: give"):
        load_recipe(path)
    assert main(["run", str(path), "--out", str(path.parent / "out")]) == 2
    told = capsys.readouterr().err
    assert harmless(told) and told.count("\n") == 1


@pytest.mark.parametrize("name", ["=1+1", "<img src=x onerror=a()>", "a b", "Gerät"])
def test_a_variant_of_any_other_name_is_taken(write_recipe, name: str):
    assert load_recipe(variant(write_recipe, name)).variants[0].name == name
