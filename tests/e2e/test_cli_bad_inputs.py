"""Parts that do not belong together, and what is missing: by the command line, in one sentence."""

import importlib.util
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.data.load import DataConfig
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, save_student

FEW = "--images 10 --attack-images 4 --check-images 0"


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> str:
    """The folder of a run whose student was never trained."""
    student = build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 32, 32)))
    save_student(student, Path("x/student/student.safetensors"))
    options = asdict(DataConfig(correlation=0.9))
    Path("x/student/config.json").write_text(json.dumps({"data_options": options}))
    return "x"


@pytest.fixture
def fabricated():
    path = Path(__file__).parents[1] / "report" / "fabricated.py"
    spec = importlib.util.spec_from_file_location("fabricated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_refused(capsys, arguments: str, *words: str) -> None:
    capsys.readouterr()
    assert main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    for word in words:
        assert word in printed.err
    assert "Traceback" not in printed.err


# What does not belong together


def test_nothing_that_verify_looks_at(run, capsys):
    Path("x/student/checkpoint.pt").write_bytes(b"cut short")
    assert_refused(capsys, "verify x/student/checkpoint.pt", "is of no kind that is checked alone")
    assert_refused(capsys, "verify x --correlation 0.9", "no --data is")


def test_a_canonical_set_of_another_class_list(capsys, fabricated, tiny_teacher_path) -> None:
    fabricated.make_canon(Path("canon"), str(tiny_teacher_path))
    manifest = json.loads(Path("canon/manifest.json").read_text())["config"]
    size = manifest["data_options"]["image_size"] or 32
    classes = np.array(manifest["class_names"])
    pixels = np.zeros((60, size, size, 3), np.uint8)
    labels = np.arange(60) % len(classes)
    np.savez("same.npz", x=pixels, y=labels, classes=classes)
    np.savez("other.npz", x=pixels, y=labels, classes=np.char.upper(classes))
    command = "distill --train.epochs 1 --canon canon --out out"
    assert_refused(capsys, f"{command} --data same.npz", "made of other data than same")
    words = f"classes are not those of other.npz/train ('{manifest['class_names'][0]}' there"
    assert_refused(capsys, f"{command} --data other.npz", words)
    assert not Path("out").exists()


def test_a_classifier_of_other_classes(run: str, capsys) -> None:
    np.savez("two.npz", x=np.zeros((40, 32, 32, 3), np.uint8), y=np.arange(40) % 2)
    command = f"distill --method kd --classifier {run} --data two.npz --out out"
    assert_refused(capsys, command, "the classifier's classes", "are not those of two.npz")


def test_a_student_whose_head_is_not_of_its_classes(run: str, capsys) -> None:
    file = Path(run, "student/student.safetensors")
    with safe_open(file, framework="pt") as archive:
        metadata = archive.metadata()
    weights = load_file(file)
    weights |= {name: weights[name][:7] for name in ("head.weight", "head.bias")}
    del metadata["data_sha256"]  # as if somebody else had written it
    save_file(weights, file, metadata)
    for command in (f"evaluate {run}", f"distill --method kd --classifier {run} --out out"):
        assert_refused(capsys, command, "holds no student that this clarep can build")


# Units


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--eps-255 2 -0.5", "--eps-255 -0.5 is no radius"),
        ("--eps-255 256", "its unit is one step of 0-255"),
        ("--autoattack-eps-255 300", "its unit is one step of 0-255"),
        ("--eps-l2 -1", "--eps-l2 -1.0 is no radius"),
        ("--eps-l2 128", "its unit is that of pixels in [0, 1]"),
        ("--eps-255 nan", "nan"),
    ],
)
def test_a_radius_below_zero_or_in_another_unit(run: str, capsys, given: str, words: str) -> None:
    assert_refused(capsys, f"evaluate {run} {FEW} {given}", words)
    assert not Path(run, "robustness").exists()


@pytest.mark.parametrize("given", ["-1", "300"])
def test_the_radius_trained_on_too(capsys, given: str) -> None:
    option = "--train.rivals.adv-eps-255"
    assert_refused(capsys, f"distill --method adv {option} {given} --out out", option, given)
    assert not Path("out").exists()


# Missing extras


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("timm [timm]", "distill --method vanilla --student timm:resnet10t --data small.npz"),
        (
            "pyautoattack [attacks]",
            f"evaluate x {FEW} --groups clean attacks --autoattack-eps-255 1",
        ),
    ],
)
def test_a_missing_extra_is_named(
    run: str, capsys, monkeypatch: pytest.MonkeyPatch, missing: str, arguments: str
) -> None:
    module, extra = missing.split()
    np.savez("small.npz", x=np.zeros((60, 32, 32, 3), np.uint8), y=np.arange(60) % 2)
    monkeypatch.setitem(sys.modules, module, None)
    words = f"clarep: {module} is not installed: give pip install '.{extra}'"
    assert_refused(capsys, arguments, words)
    assert not Path(run, "robustness").exists()


# Reports of what is incomplete


def test_a_report_says_what_is_missing_and_shows_the_rest(fabricated, capsys) -> None:
    fabricated.make_run(Path("whole"))
    fabricated.make_run(Path("unmeasured"), "cadistill", evaluated=False)
    fabricated.make_run(Path("killed"), "random")
    Path("killed/robustness/evaluation.json").write_text("{")
    Path("nothing").mkdir()
    assert main(["report", "whole", "unmeasured", "killed", "nothing", "--out", "out"]) == 0
    page = Path("out/index.html").read_text()
    assert "This report is incomplete" in page
    for words in ("clarep evaluate unmeasured", "killed", "nothing", "vanilla"):
        assert words in page
    table = Path("out/data/main_table.csv").read_text()
    assert "vanilla" in table
    assert "random" not in table


def test_a_report_of_nothing(fabricated, capsys) -> None:
    Path("nothing").mkdir()
    assert_refused(capsys, "report nothing --out out", "none of the 1 runs can be read")
    assert_refused(capsys, "report nowhere --out out", "nowhere")
    assert not Path("out").exists()


def test_a_report_with_a_canonical_set_that_is_damaged(
    fabricated, capsys, tiny_teacher_path
) -> None:
    fabricated.make_run(Path("whole"))
    fabricated.make_canon(Path("canon"), str(tiny_teacher_path))
    shutil.copytree("canon", "damaged")
    for shard in Path("damaged").glob("shard-*"):
        shard.write_bytes(shard.read_bytes()[:-7])
    assert_refused(capsys, "report whole --canon damaged --out out", "is truncated or changed")
