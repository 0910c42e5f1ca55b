"""`clarep evaluate` on an untrained student: table, JSON, a real kill, and users' mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.data.load import DataConfig
from clarep.distill.student import StudentInfo
from clarep.distill.students import build_student, save_student
from clarep.robustness.evaluation import Evaluation

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
    for words in ("clean accuracy", "PGD", "corruptions, mean", "mixed_rand", "BG-gap", "ECE"):
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


def test_one_json_object(run: str, capsys) -> None:
    assert evaluate(run, QUICK, "--json --out elsewhere") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["wrote"] == "elsewhere"
    keys = [one["key"] for one in answer["measurements"]]
    assert "background/gap" in keys
    assert len(keys) == len(set(keys))
    assert answer["cost"]["forward_passes"]["clean"] == 20


def test_killed_it_goes_on_and_ends_with_the_same_bytes(run: str, capsys) -> None:
    shutil.copytree("x", "whole")
    assert evaluate("whole", QUICK) == 0
    command = "from clarep.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "evaluate", run, *QUICK.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
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
    assert len(names) == 6
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nowhere", "there is no student at nowhere"),
        ("empty", "empty holds no student.safetensors"),
        ("x --groups atacks", "unknown group 'atacks'"),
        ("x --eps-255 -1", "-1"),
        ("x --eps-255 300", "300"),
        ("x --data garments --correlation 0.5", "--correlation 0.5 does not apply to garments"),
        ("x --data small.npz --split train", "10 classes and the data 2"),
        ("x --data large.npz --split train", "--image-size 32"),
        ("x --ood nothing.npz", "unknown data set 'nothing.npz'"),
        ("x --baseline empty", "empty holds no evaluation"),
        ("x --reference empty", "empty holds no student.safetensors"),
        ("broken", "cannot read"),
    ],
)
def test_a_mistake_is_one_sentence(run: str, capsys, arguments: str, words: str) -> None:
    Path("empty").mkdir()
    shutil.copytree("x", "broken")
    Path("broken/student/config.json").write_text("{")
    pixels, classes = np.zeros((20, 8, 8, 3), np.uint8), np.array(CLASS_NAMES)
    np.savez("small.npz", x=pixels, y=np.arange(20) % 2)
    np.savez("large.npz", x=pixels, y=np.arange(20) % 10, classes=classes)
    assert evaluate(arguments, FEW) == 2
    assert_one_line(capsys.readouterr(), words)
    assert not Path("x/robustness").exists()
