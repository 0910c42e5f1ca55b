import json
import shutil

import pytest

from clarep.cli.main import main
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, save_student
from clarep.teachers.zoo import load_teacher

TINY = ["--train.steps", "3", "--train.batch-size", "4"]
TINY += ["--train.unet.widths", "8", "16", "--train.unet.embed-dim", "16"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train-teacher", "--out", str(out), *TINY, "--json"]) == 0
    return out


def test_a_finished_run_has_a_card_without_quality(run_folder):
    card = json.loads((run_folder / "card.json").read_text())
    assert card["name"] == "tiny" and card["quality"] is None
    assert card["recipe"]["data"] == "backdrops/train/seed=0/correlation=0/original"
    assert card["recipe"]["train"]["unet"]["num_classes"] == 10
    assert card["training"]["steps"] == 3 and card["training"]["seconds"] > 0
    assert list(card["held_out_loss"]) == ["0.01-0.1", "0.1-0.5", "0.5-2", "2-10", "10-80"]


def test_card_adds_what_the_judge_measures(run_folder, tmp_path, capsys):
    out = tmp_path / "named.json"
    options = ["--name", "named", "--images-per-class", "2", "--steps", "2", "--seed", "4"]
    assert main(["card", str(run_folder), "--out", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert "guidance 3: class accuracy" in printed and str(out) in printed

    card = json.loads(out.read_text())
    assert card["name"] == "named"
    assert card["weights"]["sha256"] == load_teacher(str(run_folder)).fingerprint
    quality = card["quality"]
    assert quality["sampler"] == {"solver": "heun", "steps": 2, "seed": 4}
    assert [sample["guidance"] for sample in quality["samples"]] == [1.0, 3.0]
    floor = quality["frechet_distance_of_train_images"]
    for sample in quality["samples"]:  # of a network that has learnt nothing
        assert 0 <= sample["class_accuracy"] <= 0.5
        assert sample["frechet_distance"] > floor > 0


def test_a_folder_with_the_name_of_a_bundled_teacher_is_measured_itself(
    run_folder, tmp_path, monkeypatch
):
    shutil.copytree(run_folder, tmp_path / "backdrops")
    monkeypatch.chdir(tmp_path)
    found = []
    for number, folder in enumerate(["backdrops", str(run_folder)]):
        out = tmp_path / f"{number}.json"
        options = ["--images-per-class", "2", "--steps", "2", "--guidances", "1"]
        assert main(["card", folder, "--out", str(out), *options]) == 0
        found.append(json.loads(out.read_text())["round_trip"])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--images-per-class 0", "--images-per-class 0 is below 1"),
        ("--images-per-class 101", "give between 1 and 100 images per class"),
        ("--steps 0", "--steps 0 is below 1"),
        ("--seed -1", "-1 is below 0"),
        ("--guidances 1 nan", "--guidances nan is not finite"),
        ("--guidances", "--guidances is empty"),
    ],
)
def test_options_that_cannot_be_measured_with(run_folder, tmp_path, capsys, option, message):
    out = tmp_path / "card.json"
    assert main(["card", str(run_folder), "--out", str(out), *option.split()]) == 2
    assert message in capsys.readouterr().err and not out.exists()


def test_card_of_no_run(tmp_path, capsys):
    assert main(["card", str(tmp_path)]) == 2
    assert "holds no finished training run" in capsys.readouterr().err


def test_a_classifier_of_ones_own_takes_the_judges_place(run_folder, tmp_path, capsys):
    names = load_teacher(str(run_folder)).class_names
    student = build_student(StudentInfo("resnet8", names, (3, 32, 32)), seed=0)
    save_student(student, tmp_path / "student.safetensors")
    out = tmp_path / "card.json"
    few = ["--images-per-class", "1", "--steps", "1", "--guidances", "1"]
    given = ["--classifier", str(tmp_path), "--correlation", "0.5"]
    assert main(["card", str(run_folder), "--out", str(out), *few, *given]) == 0
    assert "median round trip" in capsys.readouterr().out
    card = json.loads(out.read_text())
    assert card["quality"]["classifier"]["student"] == "resnet8"
    assert card["quality"]["reference"] == "10 test images"
    assert card["round_trip"]["images"] == 100
    assert card["round_trip"]["psnr_least"] <= card["round_trip"]["psnr_median"]
