import numpy as np
import pytest
import torch

from clarep.data import garment_arrays, load_backdrops
from clarep.errors import UserError
from clarep.teachers import Judge, load_judge
from clarep.teachers.judge import judge_card, save_judge
from clarep.teachers.judge_training import (
    JudgeConfig,
    judge_accuracy,
    train_judge,
    unseen_by_teacher,
)


def test_the_head_reads_the_features():
    judge = load_judge()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = judge.features(x)
    assert features.shape == (4, 112) and float(features.std()) > 0
    assert torch.equal(judge(x), judge.head(features))
    assert sum(p.numel() for p in judge.parameters()) <= 300_000


@pytest.mark.parametrize("variant", ["original", "only_fg", "mixed_rand"])
def test_the_bundled_judge_is_as_good_as_its_card_says(variant):
    accuracy = judge_accuracy(load_judge(), load_backdrops("test", variant=variant))
    assert accuracy == pytest.approx(judge_card()["test_accuracy"][variant], abs=0.003)
    assert accuracy > 0.85


def test_the_bundled_judge_is_the_one_its_card_describes():
    from importlib.resources import files

    from clarep.engine.artefacts import sha256_file

    path = files("clarep.teachers") / "assets" / "judge.safetensors"
    assert judge_card()["sha256"] == sha256_file(path)


def archive(path, seen, unseen):
    """Write a garment archive of some embedded images and as many that nobody has seen."""
    garments, labels = garment_arrays("train")
    fresh = garments[:unseen] ^ 1
    x, y = (
        np.concatenate([garments[:seen], fresh]),
        np.concatenate([labels[:seen], labels[:unseen]]),
    )
    np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    return path


def test_what_the_teacher_saw_is_left_out(tmp_path):
    path = archive(tmp_path / "garments.npz", seen=30, unseen=20)
    assert unseen_by_teacher(path).tolist() == list(range(30, 50))
    with pytest.raises(UserError, match="holds 20 garments that the teacher has not seen"):
        next(train_judge(Judge(), path, JudgeConfig(batch_size=32)))


def test_training_is_seeded_and_lowers_the_loss(tmp_path):
    path = archive(tmp_path / "garments.npz", seen=3, unseen=40)
    config = JudgeConfig(steps=60, batch_size=16, learning_rate=5e-3)

    def trained():
        torch.manual_seed(0)
        judge = Judge()
        return judge, list(train_judge(judge, path, config))

    (first, records), (second, _) = trained(), trained()
    assert [record["step"] for record in records] == [50, 60]
    assert records[-1]["loss"] < 0.9 * np.log(10)
    weights = second.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.state_dict().items())
    assert not first.training


def test_save_and_load(tmp_path):
    judge = Judge()
    save_judge(judge, tmp_path / "judge.safetensors")
    loaded = load_judge(tmp_path / "judge.safetensors")
    assert torch.equal(loaded.stem.weight, judge.stem.weight.half().float())
    assert not loaded.training and not loaded.head.weight.requires_grad


@pytest.mark.parametrize("kept", [0, 1_000])
def test_truncated_weights(tmp_path, kept):
    path = tmp_path / "judge.safetensors"
    save_judge(Judge(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="cannot read a judge from"):
        load_judge(path)


def test_weights_of_something_else(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no judge"):
        load_judge(tmp_path / "other.safetensors")


@pytest.mark.parametrize("change", ["missing", "shape", "extra"])
def test_weights_of_another_shape(tmp_path, change):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "judge.safetensors"
    save_judge(Judge(), path)
    weights = load_file(path)
    if change == "extra":
        weights["tail.weight"] = torch.zeros(3)
    else:
        weights.pop("head.bias")
    if change == "shape":
        weights["head.bias"] = torch.zeros(11)
    save_file(weights, path, {"kind": "clarep judge"})
    with pytest.raises(UserError, match="holds a judge of another shape"):
        load_judge(path)


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"batch_size": 1}, {"learning_rate": 0.0}, {"label_smoothing": 1.0}]
)
def test_settings_that_cannot_be_trained_with(tmp_path, change):
    [(name, value)] = change.items()
    with pytest.raises(UserError, match=f"^`{name}={value}` "):
        next(train_judge(Judge(), tmp_path / "none.npz", JudgeConfig(**change)))


def test_no_seed(tmp_path):
    with pytest.raises(UserError, match="seed -1 is outside"):
        next(train_judge(Judge(), tmp_path / "none.npz", JudgeConfig(seed=-1)))


def test_a_judge_that_cannot_be_computed_with_or_is_another(tmp_path):
    judge, path = Judge(), tmp_path / "judge.safetensors"
    save_judge(judge, path)
    (tmp_path / "judge.json").write_text('{"sha256": "' + "0" * 64 + '"}')
    with pytest.raises(UserError, match=r"is not the file that judge\.json"):
        load_judge(path)
    (tmp_path / "judge.json").unlink()
    judge.head.bias.data[3] = float("nan")
    save_judge(judge, path)
    with pytest.raises(UserError, match=r"head\.bias of .* hold NaN"):
        load_judge(path)
