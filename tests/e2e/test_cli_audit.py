"""`clarep audit` from images to what a teacher says of them, gone on with, and mistaken."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.audit.audit import Audit
from clarep.audit.projected_evidence import projected_evidence
from clarep.clarid.canonical_set import CanonicalSet
from clarep.cli.main import main
from clarep.data.load import DataConfig, load_data
from clarep.report.audit_table import said_of
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, save_student
from clarep.teachers.zoo import load_teacher

QUICK = "--draws 1 --rivals 2 --mask-draws 0 --target-share 0"


@pytest.fixture(scope="session")
def audited(tiny_teacher_path, garments_path, tmp_path_factory) -> Path:
    """The folder of a finished audit of forty garments; to be copied."""
    out = tmp_path_factory.mktemp("audited") / "out"
    command = f"audit --data {garments_path} --teacher {tiny_teacher_path} --out {out} {QUICK}"
    assert main(command.split()) == 0
    return out


@pytest.fixture
def command(audited, tiny_teacher_path, garments_path, tmp_path):
    """Run the same command, with more options, in a copy of the folder: code."""
    shutil.copytree(audited, tmp_path / "out")
    base = f"audit --data {garments_path} --teacher {tiny_teacher_path} --out {tmp_path / 'out'}"
    return lambda more="": main(f"{base} {QUICK} {more}".split())


def test_the_table_and_the_most_doubted(command, garments_path, capsys):
    assert command("--show 3") == 0
    printed = capsys.readouterr()
    data = load_data(str(garments_path))
    assert all(name in printed.out for name in data.class_names)
    assert printed.out.count("rather") == 3 and "120 denoiser evaluations" in printed.out
    assert "0 of 120 denoisings to do" in printed.err


def test_only_a_doubted_image_is_said_to_be_rather_of_another_class():
    image = {"source": "a.png", "label": "cat", "rival": "ship", "interval": [-1.5, 0.2]}
    assert "rather 'ship'" in said_of(image | {"doubt": 0.2})
    assert "[-1.5, +0.2]" in said_of(image | {"doubt": 0.2})
    assert all("rather" not in said_of(image | {"doubt": doubt}) for doubt in (0.0, -0.2))


def test_one_json_object(command, tmp_path, garments_path, capsys):
    assert command("--json --show 5") == 0
    answer = json.loads(capsys.readouterr().out)
    found, data = Audit.load(tmp_path / "out"), load_data(str(garments_path))
    assert answer["images"] == 40 and len(answer["classes"]) == 10
    assert sum(one["against"] for one in answer["classes"]) == int((found.doubts > 0).sum())
    first = answer["most_doubted"][0]
    row = int(found.doubts.argmax())
    assert first["index"] == row and first["doubt"] == pytest.approx(float(found.doubts[row]))
    assert first["label"] == data.class_names[data.labels[row]] != first["rival"]
    assert first["standard_error"] is first["interval"] is None and answer["detection"] == []
    assert answer["cost"]["denoiser_evaluations"] == 120


def test_a_classifier_is_of_the_data_and_is_held_against_their_cues(
    command, garments_path, tmp_path, capsys
):
    names = load_data(str(garments_path)).class_names
    for classes, code, words in ((names, 0, "knows no cues"), (names[:2], 2, "the classifier's")):
        student = build_student(StudentInfo("resnet8", classes, (3, 32, 32)))
        save_student(student, tmp_path / "student.safetensors")
        assert command(f"--classifier {tmp_path / 'student.safetensors'}") == code
        assert words in capsys.readouterr().err


def test_a_share_of_every_class_knows_the_cues(tiny_teacher_path, tmp_path, capsys):
    """The cheap audit of backdrops: a share of their images, and what it finds among these."""
    out = tmp_path / "share"
    asked = f"audit --data backdrops --correlation 0.5 --teacher {tiny_teacher_path} --out {out}"
    cheap = "--rivals 0 --draws 1 --mask-draws 0 --target-share 0 --fraction 0.01 --json"
    assert main(f"{asked} {cheap}".split()) == 0
    answer, found = json.loads(capsys.readouterr().out), Audit.load(out)
    data = load_data(DataConfig(correlation=0.5))
    assert answer["images"] == 50 and found.labels.bincount().tolist() == [5] * 10
    assert torch.equal(found.labels, torch.from_numpy(data.labels)[found.index])
    assert answer["cost"]["denoiser_evaluations"] == 100
    foreign = data.cues()[found.index] != found.labels.numpy()
    assert answer["detection"][0]["found"] == foreign.sum() and len(found.index.unique()) == 50


def test_evidence_before_and_after_the_projection_is_asked_once_and_kept(
    tiny_teacher_path, tmp_path, capsys
):
    shirts = load_data(DataConfig(correlation=0.5))
    chosen = np.concatenate([np.flatnonzero(shirts.labels == c)[:5] for c in (0, 1)])
    pixels = shirts.images(chosen).permute(0, 2, 3, 1).numpy()
    names, labels = np.array(shirts.class_names), shirts.labels[chosen]
    np.savez(tmp_path / "ten.npz", classes=names, x_train=pixels, y_train=labels)
    data = f"--data {tmp_path / 'ten.npz'} --teacher {tiny_teacher_path} --fraction 1"
    setting = "--kind random --t 0.6 --k 4 --steps 1 --control-images 0 --seed 2"
    assert main(f"identify {data} {setting} --out {tmp_path}".split()) == 0
    canonical = CanonicalSet.load(tmp_path / "canon")
    capsys.readouterr()
    cheap = "--rivals 0 --draws 1 --mask-draws 0 --target-share 0 --seed 2"
    command = f"audit {data} {cheap} --canon {tmp_path / 'canon'} --out {tmp_path / 'audit'}"
    assert main(f"{command} --json".split()) == 0
    first = capsys.readouterr()
    assert "evidence before and after" in first.err
    answer = json.loads(first.out)
    images, whole = answer["projected_images"], answer["projected"][2]
    assert [one["index"] for one in images] == canonical.index.tolist()
    assert whole["group"] == "all" and whole["images"] == 10
    assert whole["before"] == pytest.approx(sum(one["before"] for one in images) / 10)
    found = projected_evidence(load_teacher(tiny_teacher_path), canonical, seed=2)
    assert [one["after"] for one in images] == pytest.approx(found.after.tolist(), abs=1e-3)
    assert sum(one["doubted"] for one in images) == answer["projected"][3]["images"] == 2
    assert len(answer["readable"]) == 3
    capsys.readouterr()
    assert main(command.split()) == 0
    again = capsys.readouterr()
    assert "evidence before and after" not in again.err and "no longer" in again.out
    assert again.out.count("again without") == min(10, whole["against_no_longer"])


def test_a_canonical_set_of_the_doubted(
    audited, tiny_teacher_path, garments_path, tmp_path, capsys
):
    data = f"--data {garments_path} --teacher {tiny_teacher_path} --fraction 0.25"
    setting = "--kind random --t 0.6 --k 4 --steps 1 --control-images 0"
    command = f"identify {data} {setting} --choose doubted --audit {audited} --out {tmp_path}"
    assert main(command.split()) == 0
    found, config = Audit.load(audited), CanonicalSet.load(tmp_path / "canon").config
    members = [np.flatnonzero(found.labels.numpy() == label) for label in range(10)]
    most = [int(rows[found.doubts[rows].argmax()]) for rows in members]
    assert config["chosen"] == sorted(most) and config["choose"] == "doubted"
    assert config["audit_sha256"] == found.sha256_of(("errors",))
    capsys.readouterr()
    assert main(command.replace("doubted", "typical").split()) == 2  # the folder holds another set
    assert "chosen" in capsys.readouterr().err
    assert main(f"identify {data} --audit {audited} --out {tmp_path / 'b'}".split()) == 2
    assert "--choose" in capsys.readouterr().err


def test_other_numbers_of_classes_are_refused_without_a_word_on_how_they_match(
    tiny_teacher_path, tmp_path, capsys
):
    path = tmp_path / "three.npz"
    np.savez(path, x_train=np.zeros((6, 32, 32, 3), np.uint8), y_train=np.arange(6) % 3)
    command = f"audit --data {path} --teacher {tiny_teacher_path} --out {tmp_path / 'three'}"
    assert main(command.split()) == 2
    printed = capsys.readouterr().err
    assert "has 3" in printed and "matched by number" not in printed


def test_mistakes_are_told_in_a_sentence(command, tmp_path, capsys):
    before = (tmp_path / "out/manifest.json").read_bytes()
    for more, words in (
        ("--seed 1", "seed: 0 there, 1 now"),
        ("--sigmas 99", "sigma 99 is outside"),
        ("--rivals 10", "--rivals 10 is more than the 9 classes"),
        ("--fraction 0", "--fraction 0"),
        ("--canon nowhere", "holds no canonical set"),
        ("--classifier nowhere", "no student at nowhere"),
    ):
        assert command(more) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and words in printed.err
    assert (tmp_path / "out/manifest.json").read_bytes() == before
