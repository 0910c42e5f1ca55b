"""`clarep evaluate` on an untrained student: table, JSON, a real kill, and users' mistakes."""

import csv
import hashlib
import json
import os
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.data.load import DataConfig
from clarep.robustness.evaluation import Evaluation
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, load_student, save_student
from forked import COMMAND

FEW = "--images 20 --corruption-images 10 --focus-images 10 --attack-images 10 --flip-backdrops 2"
QUICK = f"{FEW} --groups clean calibration backgrounds corruptions --corruptions brightness fog"


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> str:
    """The folder of a run whose student was never trained, at rho = 0.9."""
    folder = tmp_path / "x" / "student"
    student = build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 32, 32)))
    save_student(student, folder / "student.safetensors")
    options = asdict(DataConfig(correlation=0.9))
    (folder / "config.json").write_text(json.dumps({"method": "vanilla", "data_options": options}))
    return "x"


def assert_one_line(printed, words: str) -> None:
    assert printed.out == ""
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert "Traceback" not in printed.err


def evaluate(*arguments: str) -> int:
    return main(["evaluate", *(word for part in arguments for word in part.split())])


def test_all_groups_end_in_a_table_and_a_folder(run: str, capsys) -> None:
    options = "--eps-255 0.5 --corruptions contrast --severities 5"
    assert evaluate(run, FEW, options) == 0
    out = capsys.readouterr().out
    for words in ("clean", "PGD", "corruptions", "mixed_rand", "BG-gap", "ECE"):
        assert words in out
    assert "evaluation in" in out
    found = Evaluation.load(Path("x/robustness"))
    for key in ("attack/pgd-linf/eps_255=0.5", "focus/integrated_gradients", "ood/only_bg/auroc"):
        assert key in found
    assert found.config["data_options"]["correlation"] == 0.9
    assert found.config["data_options"]["split"] == "test"
    assert found.config["run"] == "x"
    for one in found.measurements:
        if one.key in found.arrays and found.arrays[one.key].ndim == 1:
            assert one.value == pytest.approx(float(found.arrays[one.key].double().mean()))


def test_the_hash_of_the_weights_is_the_file_s_wherever_it_stands(run: str, capsys) -> None:
    student, config = Path(run, "student", "student.safetensors"), Path(run, "student/config.json")

    def recorded() -> str:
        """Put into the run's configuration what distill puts there; return it."""
        digest = hashlib.sha256(student.read_bytes()).hexdigest()
        content = json.loads(config.read_text()) | {"seed": 0, "student_sha256": digest}
        config.write_text(json.dumps(content))
        return digest

    digest = recorded()
    assert evaluate(run, FEW, "--groups clean") == 0
    assert Evaluation.load(Path(run, "robustness")).config["student_sha256"] == digest
    assert main(["report", run, "--out", "page"]) == 0
    with open("page/data/runs.csv", newline="") as stream:
        assert next(csv.DictReader(stream))["weights sha256"] == digest
    assert digest in Path("page/index.html").read_text()
    assert main(["compare", run]) == 0
    # Trained again: the evaluation is of the weights before.
    other = load_student(student)
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    save_student(other, student)
    assert recorded() != digest
    capsys.readouterr()
    assert main(["compare", run]) == 2
    assert f"run clarep evaluate {run} again" in capsys.readouterr().err
    assert main(["report", run, "--out", "page"]) == 0
    assert "other weights" in capsys.readouterr().err
    assert evaluate(run, FEW, "--groups clean") == 0
    assert main(["compare", run]) == 0


def test_one_json_object(run: str, capsys) -> None:
    assert evaluate(run, QUICK, "--json --out elsewhere") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["wrote"] == "elsewhere"
    keys = [one["key"] for one in answer["measurements"]]
    assert "background/gap" in keys
    assert len(keys) == len(set(keys))
    assert answer["cost"]["forward_passes"]["clean"] == 20


def test_killed_it_goes_on_and_ends_with_the_same_bytes(run: str, programs) -> None:
    shutil.copytree("x", "whole")
    assert evaluate("whole", QUICK) == 0
    process = programs.start(COMMAND, "evaluate", run, *QUICK.split())
    parts = Path("x/robustness/parts")
    deadline = time.monotonic() + 120
    while not (parts / "clean/evaluation.json").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = {path: path.stat().st_mtime_ns for path in parts.rglob("evaluation.json")}
    assert left
    assert not Path("x/robustness/evaluation.json").exists()
    assert evaluate(run, QUICK) == 0
    assert {path: path.stat().st_mtime_ns for path in left} == left
    names = [path.relative_to("whole") for path in Path("whole").rglob("arrays.safetensors")]
    assert len(names) == 7
    for name in names:
        assert ("x" / name).read_bytes() == ("whole" / name).read_bytes()
    both = [Evaluation.load(Path(folder, "robustness")).measurements for folder in ("x", "whole")]
    assert both[0] == both[1]
    assert not list(Path("x").rglob("*.tmp"))


def test_a_file_alone_takes_data_options_and_a_baseline(run: str, capsys) -> None:
    options = "--groups clean corruptions --corruptions fog"
    assert evaluate(run, FEW, options) == 0
    Path("alone").mkdir()
    shutil.copy("x/student/student.safetensors", "alone")
    given = "--data backdrops --correlation 0.9 --baseline x"
    assert evaluate("alone/student.safetensors", FEW, options, given) == 0
    found = Evaluation.load(Path("alone/robustness"))
    assert found["corruption/mce"].value == pytest.approx(1)
    original = Evaluation.load(Path("x/robustness"))
    assert torch.equal(found.arrays["probabilities"], original.arrays["probabilities"])


def test_sets_of_no_class_are_named_by_their_file(run: str, capsys) -> None:
    noise = np.random.default_rng(0).integers(256, size=(12, 20, 20, 3)).astype(np.uint8)
    np.savez("my noise.npz", x=noise, y=np.arange(12) % 2)
    arguments = ["evaluate", run, *FEW.split(), "--groups", "ood", "--ood", "my noise.npz"]
    assert main(arguments) == 0
    assert "AUROC against my_noise" in capsys.readouterr().out
    found = Evaluation.load(Path("x/robustness"))
    assert found["ood/my_noise/auroc"].images == 20 + 12


def test_boxed_images_have_backgrounds_too(capsys) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(12, 32, 32, 3)).astype(np.uint8)
    box = np.tile([8, 8, 20, 24], (12, 1))
    np.savez("boxed.npz", x=pixels, y=np.arange(12) % 3, box=box)
    student = build_student(StudentInfo("resnet8", ("0", "1", "2"), (3, 32, 32)))
    save_student(student, Path("b/student.safetensors"))
    options = "--data boxed.npz --split train --groups clean backgrounds focus"
    assert evaluate("b", FEW, options) == 0
    found = Evaluation.load(Path("b/robustness"))
    assert found["focus/area"].value == pytest.approx(13 * 17 / 32**2)
    assert "background/gap" in found


def photographs(name: str, count: int = 40) -> None:
    """A set of the student's classes without masks or boxes, divided by x_train and x_test."""
    pixels = np.random.default_rng(0).integers(256, size=(count, 32, 32, 3)).astype(np.uint8)
    labels, classes = np.arange(count) % 10, np.array(CLASS_NAMES)
    half = {"x_train": pixels[::2], "y_train": labels[::2]}
    half |= {"x_test": pixels[1::2], "y_test": labels[1::2]}
    np.savez(name, **half, classes=classes)


def told(capsys, kind: str) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith(f"clarep: {kind}: ")]


def test_groups_of_the_default_list_that_do_not_apply_are_noted(run: str, capsys) -> None:
    photographs("px.npz")
    quick = "--corruptions fog --severities 1 --eps-255 1 --eps-l2 --attacks pgd --check-images 0"
    assert evaluate(run, FEW, "--data px.npz", quick) == 0
    (note,) = told(capsys, "note")
    assert "backgrounds, focus, ood cannot be measured on px.npz/test" in note


def test_other_settings_replace_an_evaluation_and_say_so(run: str, capsys) -> None:
    few = "--images 20 --groups clean"
    assert evaluate(run, few) == 0
    assert evaluate(run, few) == 0
    assert not told(capsys, "note")
    assert evaluate(run, "--images 10 --groups clean") == 0
    (note,) = told(capsys, "note")
    assert "x/robustness holds an evaluation of other settings (images: 20 there, 10 now" in note
    assert Evaluation.load(Path("x/robustness"))["clean/accuracy"].images == 10


def test_the_attacked_images_have_a_row_of_their_own_and_l2_its_unit(run: str, capsys) -> None:
    options = "--groups clean attacks --eps-255 1 --eps-l2 8 --attacks pgd --pgd-steps 1"
    assert evaluate(run, FEW, options, "--check-images 0") == 0
    printed = capsys.readouterr()
    assert "note: --eps-l2 8 is room to change every value of a 3x32x32 image by 14%" in printed.err
    rows = {line.split("  ")[0]: line.split() for line in printed.out.splitlines()}
    assert rows["clean"][-1] == "20"
    assert rows["clean, attacked"][-1] == "10"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("x --data px.npz --groups backgrounds focus", "--groups backgrounds focus cannot be"),
        ("x --data px.npz --groups ood", "ood needs images of none of the classes (--ood)"),
        ("x --out afile", "afile is no folder: give --out a folder"),
        ("x --reference other", "--reference does not fit: the student's classes are not those of"),
        ("x --reference x", "--reference x holds the weights of x itself"),
        ("x --groups clean --ood garments", "--ood gives garments, which --groups clean leaves"),
        ("x --ood nope", "--ood nope: unknown data set 'nope'"),
        ("x --baseline afile", "afile holds no evaluation"),
        ("nowhere", "there is no student at nowhere"),
        ("empty", "empty holds no student.safetensors"),
        ("x --groups atacks", "unknown group 'atacks'"),
        ("x --eps-255 -1", "-1"),
        ("x --eps-255 300", "300"),
        ("x --data garments --correlation 0.5", "--correlation 0.5 does not apply to garments"),
        ("x --data small.npz --split train", "10 classes there, 2 here"),
        ("x --data large.npz --split train", "--image-size 32"),
        ("x --ood nothing.npz", "unknown data set 'nothing.npz'"),
        ("x --baseline empty", "empty holds no evaluation"),
        ("x --reference empty", "empty holds no student.safetensors"),
        ("broken", "cannot read"),
    ],
)
def test_a_mistake_is_one_sentence(run: str, capsys, arguments: str, words: str) -> None:
    Path("empty").mkdir()
    Path("afile").write_text("mine")
    photographs("px.npz")
    other = build_student(StudentInfo("resnet8", ("a", "b"), (3, 32, 32)))
    save_student(other, Path("other/student.safetensors"))
    shutil.copytree("x", "broken")
    Path("broken/student/config.json").write_text("{")
    pixels, classes = np.zeros((20, 8, 8, 3), np.uint8), np.array(CLASS_NAMES)
    np.savez("small.npz", x=pixels, y=np.arange(20) % 2)
    np.savez("large.npz", x=pixels, y=np.arange(20) % 10, classes=classes)
    assert evaluate(arguments, FEW) == 2
    assert_one_line(capsys.readouterr(), words)
    assert not Path("x/robustness").exists()
