"""What an epoch is picked by: accuracy on all images kept apart, or on those that are doubted."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.validation import Validation
from clarep.engine.training_folder import load_checkpoint, save_checkpoint
from clarep.errors import UserError
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student


@pytest.fixture
def train(quick):
    return replace(quick, validation_share=0.3, epochs=4, learning_rate=0.2)


def test_accuracies_are_of_all_and_of_the_doubted(data, audit, train):
    apart = np.arange(3, 63)
    validation = Validation.of(data, apart, train, audit)
    doubted = []
    for label in range(3):
        members = [i for i in apart if data.labels[i] == label]
        doubted += sorted(members, key=lambda i: -float(audit.doubts[i]))[:2]  # of 20
    assert torch.nonzero(validation.doubted)[:, 0].tolist() == sorted(i - 3 for i in doubted)

    def right_about_even_places(x):
        right = torch.from_numpy(data.labels[apart])
        return torch.eye(3)[torch.where(torch.arange(60) % 2 == 0, right, (right + 1) % 3)]

    student = build_student(StudentInfo("resnet8", data.class_names, (3, 16, 16)))
    student.forward = right_about_even_places
    found = validation.accuracies(student, torch.device("cpu"))
    share = np.mean([(i - 3) % 2 == 0 for i in doubted])
    assert found == {"validation_accuracy": 0.5, "doubted_accuracy": share}
    for pick, deciding in (("best", 0.5), ("doubted", share), ("last", None)):
        assert replace(validation, pick=pick).deciding(found) == deciding
    without = Validation.of(data, apart, train, None)
    assert without.accuracies(student, torch.device("cpu")) == {"validation_accuracy": 0.5}
    none = Validation.of(data, apart[:0], replace(train, pick="last"), audit)
    assert set(none.accuracies(student, torch.device("cpu")).values()) == {None}


@pytest.mark.parametrize("method", ["vanilla", "doubted"])
def test_the_epoch_is_picked_by_the_doubted(data, audit, train, method, tmp_path):
    config = replace(train, pick="doubted")
    run = StudentRun(data, tmp_path, method=method, config=config, audit=audit)
    records = list(run.records())
    done = run.finish()
    best = max(records, key=lambda record: (record["doubted_accuracy"], record["epoch"]))
    assert done["picked_epoch"] == best["epoch"]
    assert done["doubted_accuracy"] == best["doubted_accuracy"]
    assert done["validation_accuracy"] == best["validation_accuracy"]
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["audit_sha256"] == audit.sha256 and stored["train"]["pick"] == "doubted"


def test_a_run_goes_on_while_the_parts_that_it_reads_are_the_same(data, audit, train, tmp_path):
    def again(given):
        return StudentRun(data, tmp_path, method="doubted", config=train, audit=given)

    def with_files(**digests):
        files = {f"{part}.safetensors": digest for part, digest in digests.items()}
        return replace(audit, manifest=audit.manifest | {"files": files})

    first = with_files(errors="a", masks="b")
    list(again(first).records())
    assert again(with_files(errors="a", masks="c", targets="d")).epoch == train.epochs
    with pytest.raises(UserError, match="audit_read_sha256"):
        again(with_files(errors="b", masks="b"))

    path = tmp_path / "checkpoint.pt"  # as an earlier version wrote it
    described = again(first).described
    state = load_checkpoint(path, described, dict)
    del described["audit_read_sha256"]
    save_checkpoint(path, state, described)
    assert again(first).epoch == train.epochs
    with pytest.raises(UserError, match="audit_read_sha256"):
        again(with_files(errors="a", masks="c"))


def test_an_audit_that_nothing_asks_for_changes_nothing(data, audit, train, tmp_path):
    done = []
    for name, given in (("with", audit), ("without", None)):
        run = StudentRun(data, tmp_path / name, config=train, audit=given)
        records = list(run.records())
        assert all("doubted_accuracy" not in record for record in records)
        done.append({**run.finish(), "seconds": 0})
    assert done[0] == done[1] and "audit_sha256" not in done[0]


def test_without_doubted_images_it_is_refused(data, audit, train, tmp_path):
    rows = torch.arange(1)
    named = {name: getattr(audit, name)[rows] for name in ("index", "labels", "tried", "masks")}
    one = replace(audit, **named, errors=audit.errors[:, :, rows])
    config = {"audit": {}, "data_sha256": data.sha256([0])}
    few = replace(one, manifest=audit.manifest | {"config": config})
    asked = replace(train, pick="doubted")
    for given in (None, few):
        with pytest.raises(UserError, match=r"`pick=doubted` .* give `audit`"):
            StudentRun(data, tmp_path / "run", config=asked, audit=given)
    with pytest.raises(UserError, match="`validation_share=0` leaves nothing"):
        StudentRun(data, tmp_path / "run", config=replace(asked, validation_share=0.0), audit=audit)
    assert not (tmp_path / "run").exists()
