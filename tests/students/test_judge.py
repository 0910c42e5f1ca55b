import importlib.util
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.data.garments import garment_arrays
from clarep.engine.artefacts import sha256_file
from clarep.students.student_files import judge_card, load_judge

TOOL = Path(__file__).parents[2] / "tools/train_judge.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("train_judge", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("variant", ["original", "only_fg", "mixed_rand"])
def test_the_bundled_judge_is_as_good_as_its_card_says(tool, variant):
    accuracy = tool.judge_accuracy(load_judge(), variant)
    assert accuracy == pytest.approx(judge_card()["test_accuracy"][variant], abs=0.003)
    assert accuracy > 0.85


def test_the_bundled_judge_is_the_one_its_card_describes():
    assert judge_card()["sha256"] == sha256_file(
        files("clarep.students") / "assets" / "judge.safetensors"
    )
    judge = load_judge()
    assert sum(p.numel() for p in judge.parameters()) == judge_card()["parameters"]
    assert not judge.training and not judge.head.weight.requires_grad


def archive(path, seen, unseen):
    """Write a garment archive of some embedded images and as many that nobody has seen."""
    garments, labels = garment_arrays("train")
    x = np.concatenate([garments[:seen], garments[:unseen] ^ 1])
    y = np.concatenate([labels[:seen], labels[:unseen]])
    np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    return str(path)


def test_what_the_teacher_saw_is_left_out(tool, tmp_path):
    path = archive(tmp_path / "garments.npz", seen=30, unseen=20)
    assert tool.unseen_by_teacher(path).tolist() == list(range(30, 50))


def test_training_is_seeded_and_changes_the_weights(tool, tmp_path):
    path = archive(tmp_path / "garments.npz", seen=3, unseen=40)
    setting = tool.SETTING | {"steps": 3, "batch_size": 16}
    first, second = (tool.train_judge(path, setting).state_dict() for _ in range(2))
    other = tool.train_judge(path, setting | {"seed": 1}).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])
