"""One folder of class folders of photographs of mixed sizes, without a test split: the road."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from clarep.cli.main import main
from clarep.data.held_out import load_held_out
from clarep.data.load import DataConfig, load_data
from clarep.robustness.evaluation import Evaluation
from clarep.students.student_files import load_student

CLASSES, EACH = 3, 12
STUDENT = "--train.epochs 2 --train.batch-size 16 --train.learning-rate 0.05"
QUICK = "--groups clean calibration corruptions --corruptions fog --severities 1"


def clarep(words: str) -> int:
    return main(words.split())


def photos() -> DataConfig:
    return DataConfig(data="photos", image_size=32)


def test_teacher_and_students_hold_out_the_same_images(photos_home):
    data = load_data(photos())
    sides = [load_held_out(Path(run), data) for run in ("t", "v/student", "c/student")]
    names = [list(held_out.sources) for _, held_out in sides]
    assert names[0] == names[1] == names[2] and len(names[0]) == CLASSES
    assert set(sides[1][0].sources) == set(data.sources) - set(names[0])


def test_evaluate_measures_what_was_held_out(photos_home, capsys):
    assert clarep(f"evaluate v {QUICK}") == 0
    assert "picked on these very images" in capsys.readouterr().err
    found = Evaluation.load(Path("v/robustness"))
    _, held_out = load_held_out(Path("v/student"), load_data(photos()))
    assert found.arrays["label"].tolist() == held_out.labels.tolist()
    assert found.config["data_options"]["split"] == "held-out"
    assert found.config["on_training_data"] is False and "picked" in found.config["caveat"]
    assert clarep(f"evaluate v --split held-out {QUICK}") == 0  # what was stored is gone on with
    assert Evaluation.load(Path("v/robustness")).config["data"] == found.config["data"]
    assert clarep(f"evaluate c {QUICK}") == 0
    assert Evaluation.load(Path("c/robustness")).config["caveat"] == ""


def test_what_was_passed_over_stands_in_every_record_and_in_the_report(photos_home, capsys):
    told = "1 of the files and links in photos are passed over: coffee/new.heic"
    assert clarep(f"evaluate c {QUICK}") == 0
    assert f"note: {told}" in capsys.readouterr().err
    records = [json.loads(Path(run, "config.json").read_text()) for run in ("t", "c/student")]
    records += [json.loads(Path("c/canon/manifest.json").read_text())["config"]]
    for record in records:
        assert [note.split(" (")[0] for note in record["data_notes"]] == [told]
    said = Evaluation.load(Path("c/robustness")).config["said"]
    assert [note for note in said if note.startswith(told)]
    assert clarep("report c --canon c/canon --out page") == 0
    page = Path("page/index.html").read_text()
    assert told in page[page.index('id="setup"') :] and f"<li>{told}" in page


def test_a_moved_folder_is_measured_by_its_new_name_and_a_changed_one_refused(photos_home, capsys):
    Path("photos").rename("pictures")
    assert clarep(f"evaluate v --data pictures --split held-out {QUICK}") == 0
    pictures = load_data(replace(photos(), data="pictures"))
    _, held_out = load_held_out(Path("v/student"), pictures)
    Image.new("RGB", (50, 50)).save(held_out.sources[1])
    Path("pictures").rename("photos")
    assert clarep(f"evaluate v --data ./photos {QUICK}") == 2
    assert "v/student held out of photos are not there as they were" in capsys.readouterr().err


def test_images_that_were_trained_on_are_told_wherever_they_lie(photos_home, capsys):
    """By their pixels: another folder, an archive, a split that says test, some of many."""
    data = load_data(photos())
    trained, held_out = load_held_out(Path("v/student"), data)
    pixels = [image.permute(1, 2, 0).numpy() for image in data.images(range(len(data)))]
    half = [data.sources.index(one) for one in (*held_out.sources, *trained.sources[:4])]
    for name, chosen in ("all_test.npz", range(len(data))), ("half_test.npz", half):
        x, y = np.stack([pixels[i] for i in chosen]), data.labels[[*chosen]]
        np.savez(name, x=x, y=y, classes=np.array(data.class_names))
    shutil.copytree("photos", "p/test")
    shutil.copytree("photos", "p/train")
    for given, seen, images in (
        ("--split train", 33, 36),
        ("--data p", 33, 36),
        ("--data p/train --split train", 33, 36),
        ("--data all_test.npz", 33, 36),
        ("--data half_test.npz", 4, 7),
    ):
        assert clarep(f"evaluate v {given} {QUICK}") == 0
        told = f"the model is trained on {seen} of {images} images of "
        assert f"warning: {told}" in capsys.readouterr().err
        config = Evaluation.load(Path("v/robustness")).config
        assert config["on_training_data"] is True and config["caveat"].startswith(told)
    assert clarep(f"evaluate v {QUICK}") == 0
    assert "warning" not in capsys.readouterr().err
    Path("v/student/held_out.json").unlink()  # as an earlier clarep left it
    assert clarep(f"evaluate v --data p {QUICK}") == 0
    assert Evaluation.load(Path("v/robustness")).config["on_training_data"] is None


def test_what_has_no_held_out_images_says_so(photos_home, capsys):
    data = "--data photos --image-size 32"
    none = "--train.validation-share 0 --train.pick last"
    assert clarep(f"distill {data} --method vanilla --out n {STUDENT} {none}") == 0
    assert clarep(f"evaluate n {QUICK}") == 2
    assert "held out no image" in capsys.readouterr().err
    shutil.copytree("photos", "others")
    assert clarep(f"evaluate v --data others {QUICK}") == 0  # the same images elsewhere
    Path("others/coffee/00.jpg").unlink()
    assert clarep(f"evaluate v --data others {QUICK}") == 2
    assert "give --split train" in capsys.readouterr().err
    assert clarep(f"evaluate v --data others --split train {QUICK}") == 0


def test_an_image_that_cannot_be_read(photos_home, capsys):
    broken = Path("photos/coffee/03.jpg")
    broken.write_bytes(broken.read_bytes()[:100])
    run = f"distill --data photos --image-size 32 --method vanilla --out b {STUDENT}"
    assert clarep(run) == 2
    assert f"cannot read {broken}" in (told := capsys.readouterr().err) and "--skip-bad" in told
    assert clarep(f"{run} --skip-bad") == 0
    assert f"skipped {broken}" in capsys.readouterr().err
    config = json.loads(Path("b/student/config.json").read_text())
    assert [reason.split(":")[0] for reason in config["skipped"]] == [str(broken)]
    assert clarep(f"{run} --skip-bad --json") == 0
    assert clarep(f"evaluate b {QUICK}") == 0
    identify = "--fraction 0.5 --k 2 --steps 2 --solver euler --inversion euler --skip-bad"
    data = "--data photos --image-size 32"
    assert clarep(f"identify {data} --teacher t --out d {identify}") == 0
    assert clarep(f"distill {data} --canon d/canon --out d --skip-bad {STUDENT}") == 0
    assert not Evaluation.load(Path("b/robustness")).config["on_training_data"]


def test_a_card_of_a_teacher_of_class_folders(photos_home, capsys):
    few = "--steps 1 --guidances 1"
    assert clarep(f"card t {few}") == 2
    assert "--classifier RUN" in capsys.readouterr().err
    assert clarep(f"card t --classifier v {few}") == 0
    card = json.loads(Path("t/card.json").read_text())
    _, held_out = load_held_out(Path("t"), load_data(photos()))
    student = load_student("v")
    logits = student(torch.stack([held_out.images([i])[0] for i in range(3)]) / 255)
    right = (logits.argmax(1).numpy() == held_out.labels).mean()
    assert card["quality"]["classifier"]["test_accuracy"] == pytest.approx(right, abs=1e-4)
    assert card["quality"]["images_per_class"] == 1 and card["round_trip"]["images"] == 3
    shutil.copytree("photos", "p/train")
    shutil.move("p/train", "p/test")
    shutil.copytree("p/test", "p/train")
    assert clarep(f"card t --data p --classifier v {few}") == 2  # of which both saw nine tenths
    assert "the model is trained on 33 of 36 images of p/test" in capsys.readouterr().err
    for path in Path("p/test").rglob("*.jpg"):
        ImageOps.invert(Image.open(path)).save(path)
    assert clarep(f"card t --data p --classifier v {few}") == 0  # a test split comes first
    assert json.loads(Path("t/card.json").read_text())["quality"]["images_per_class"] == EACH


def test_a_card_by_a_classifier_that_saw_the_images_is_refused(photos_home, capsys):
    data = "--data photos --image-size 32"
    all_seen = "--train.validation-share 0 --train.pick last"
    assert clarep(f"distill {data} --method vanilla --out n {STUDENT} {all_seen}") == 0
    assert clarep("card t --classifier n") == 2
    told = capsys.readouterr().err
    assert "n/student: the model is trained on 3 of 3 images of photos held-out" in told
    mend = told.split("give one of clarep distill ")[1]
    assert clarep(f"distill {data} --method vanilla --out m {STUDENT} {mend}") == 0
    assert clarep("card t --classifier m --steps 1") == 0
    Path("t/held_out.json").unlink()
    assert clarep("card t --classifier v") == 2
    assert "t does not say which images it held out" in capsys.readouterr().err
    assert clarep("card t --classifier v --data backdrops") == 2
    assert "the teacher's classes" in capsys.readouterr().err
