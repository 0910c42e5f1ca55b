"""Curves: TensorBoard's files, and Weights & Biases by a library of that name that writes here."""

import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from clarep.cli.main import main
from clarep.engine.tracker import check_tracker, curves
from clarep.errors import UserError


@pytest.fixture
def wandb(monkeypatch) -> ModuleType:
    """A library called wandb that keeps what it is told, in `runs`."""
    module = ModuleType("wandb")
    module.__spec__, module.runs = ModuleSpec("wandb", None), []

    class Run:
        def __init__(self, **given):
            self.given, self.logged, self.open = given, [], True
            module.runs.append(self)

        def log(self, values, step):
            self.logged.append((step, values))

        def finish(self):
            self.open = False

    module.init = Run
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


RECORD = {"step": 50, "loss": 1.5, "held_out": {"0.1-0.5": 0.25}, "picked": None}
FLAT = {"step": 50, "loss": 1.5, "held_out/0.1-0.5": 0.25}


def test_curves_after_the_checkpoint_are_replaced(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with curves(tmp_path, 0) as draw:
        for epoch in (1, 2, 3):
            draw({"epoch": epoch, "train": {"loss": 1.0}})
    time.sleep(1.1)  # the next file's name holds the second
    with curves(tmp_path, 1) as draw:
        draw({"epoch": 2, "train": {"loss": 2.0}})
    scalars = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(1, 1.0), (2, 2.0)]


def test_weights_and_biases_by_accelerates_tracker(wandb, tmp_path):
    for _ in range(2):  # the second goes on with the first
        with curves(tmp_path, 0, "wandb", {"seed": 3}, unit="step") as draw:
            draw(RECORD)
    first, second = wandb.runs
    assert first.logged == [(50, FLAT)] and not first.open
    assert first.given["config"] == {"seed": 3} and first.given["project"] == "clarep"
    assert first.given["id"] == second.given["id"] and second.given["resume"] == "allow"
    with curves(tmp_path / "other", 0, "wandb", {"seed": 3}, unit="step"):
        pass
    assert wandb.runs[2].given["id"] != first.given["id"]


def test_a_run_ends_when_training_fails(wandb, tmp_path):
    with pytest.raises(ZeroDivisionError), curves(tmp_path, 0, "wandb", unit="step"):
        raise ZeroDivisionError
    assert not wandb.runs[0].open


def test_what_weights_and_biases_refuses_is_one_sentence(wandb, tmp_path):
    def refuse(**_):
        raise RuntimeError("api_key not configured")

    wandb.init = refuse
    with pytest.raises(UserError, match=r"api_key.*WANDB_MODE"), curves(tmp_path, 0, "wandb"):
        pass


@pytest.mark.parametrize("missing", ["wandb", "tensorboard"])
def test_a_tracker_that_is_missing_is_named(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"{missing} is not installed"):
        check_tracker(missing)


def test_the_commands_take_it(wandb, tmp_path, garments_path):
    options = f"--data {garments_path} --out {tmp_path}/a --tracker wandb --json"
    tiny = "--train.unet.widths 8 --train.unet.embed-dim 16 --train.batch-size 4 --train.steps 2"
    assert main(["train-teacher", *options.split(), *tiny.split()]) == 0
    student = "--method vanilla --train.epochs 1 --train.batch-size 16"
    assert main(["distill", *options.split(), *student.split()]) == 0
    teacher, student = wandb.runs
    assert teacher.logged[0][0] == 2 and "loss" in teacher.logged[0][1]
    assert student.logged[0][0] == 1 and "train/ce" in student.logged[0][1]
    assert not (tmp_path / "a" / "student" / "tensorboard").exists()


def test_curves_on_a_full_disk_are_told_once(tiny_disk, capfd):
    disk = tiny_disk("4k")
    (disk / "all").write_bytes(bytes(4096))
    with pytest.raises(OSError) as caught, curves(disk, 0, "tensorboard"):
        pass
    assert caught.value.filename == str(disk / "tensorboard")
    (disk / "all").unlink()
    with pytest.raises(OSError) as caught, curves(disk, 0, "tensorboard") as draw:
        draw({"epoch": 1, "loss": 1.0})
        for epoch in range(2, 100):
            draw({"epoch": epoch, "loss": 1.0})
    assert caught.value.filename == str(disk / "tensorboard")
    assert capfd.readouterr().err == ""  # its thread prints no traceback
