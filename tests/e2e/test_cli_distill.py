"""`clarep identify`, then `clarep distill`: one road by the command line; and its benchmark."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.cli.bench import BenchDistill
from clarep.cli.distill import Distill
from clarep.cli.main import main
from clarep.data.load import DataConfig, load_data
from clarep.distill.distill_config import DistillConfig
from clarep.errors import UserError
from clarep.students.student_files import load_student
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import save_unet

QUICK = "--train.epochs 2 --train.batch-size 32 --train.learning-rate 0.05"


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with data, a tiny teacher, and a canonical set of a quarter of the data."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 128, (120, 16, 16, 3))
    images[np.arange(120), :, :, labels] += 64
    images = images.astype(np.uint8)
    arrays = {"x_train": images, "y_train": labels, "x_test": images + 1, "y_test": labels}
    np.savez(home / "tiny.npz", **arrays)
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    net = UNet(UNetConfig(image_size=16, num_classes=3, widths=(8, 16), embed_dim=16))
    torch.set_rng_state(torch_state)
    save_unet(net, home / "teacher.safetensors", ("0", "1", "2"), 0.01, 80.0)
    options = "--fraction 0.25 --k 2 --steps 1 --solver euler --inversion euler"
    identify = ["identify", "--data", str(home / "tiny.npz"), "--out", str(home / "run")]
    teacher = ["--teacher", str(home / "teacher.safetensors")]
    assert main([*identify, *teacher, *options.split()]) == 0
    return home


@pytest.fixture
def command(home):
    """Build the arguments of a run into out/."""

    def build(more="", canon=True):
        given = ["--canon", str(home / "run/canon")] if canon else []
        base = ["distill", "--data", str(home / "tiny.npz"), "--out", "out", *QUICK.split()]
        return [*base, *given, *more.split()]

    return build


def test_cadistill_by_the_command_line(command, home, capsys):
    arguments = command(f"--teacher {home / 'teacher.safetensors'}")
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "student in out/student/student.safetensors" in printed.out
    assert "training: 216/216 images" in printed.err and "validation accuracy" in printed.err
    files = {path.name for path in Path("out/student").iterdir()}
    assert files == {
        *("student.safetensors", "config.json", "history.jsonl", "checkpoint.pt"),
        *("held_out.json", "tensorboard"),
    }
    config = json.loads(Path("out/student/config.json").read_text())
    assert (config["method"], config["student"], config["seed"]) == ("cadistill", "resnet8", 0)
    assert config["data_options"]["data"] == str(home / "tiny.npz")
    assert config["train"]["epochs"] == 2 and config["canon"]["images"] == 30
    assert config["seconds"] > 0 and config["versions"]["torch"] == torch.__version__.split("+")[0]
    student = load_student("out")
    assert student.info.class_names == ("0", "1", "2")

    before = Path("out/student/student.safetensors").read_bytes()
    assert main([*arguments, "--json"]) == 0  # it is finished: prints, no more
    answer = json.loads(capsys.readouterr().out)
    assert answer["student"] == "out/student/student.safetensors"
    assert answer["picked_epoch"] == config["picked_epoch"]
    assert Path("out/student/student.safetensors").read_bytes() == before

    assert main(command("--train.seed 4")) == 2
    assert "run of another configuration (seed: 0 there, 4 now)" in capsys.readouterr().err


def test_kd_from_a_student_of_ours(command, capsys):
    assert main([*command("--method vanilla", canon=False), "--out", "strong"]) == 0
    assert main(command("--method kd --classifier strong --train.rivals.kd-weight 0.5")) == 0
    printed = capsys.readouterr()
    assert "kd: epoch" in printed.out
    config = json.loads(Path("out/student/config.json").read_text())
    assert config["classifier_sha256"] and config["canon"] is None
    assert config["options"] == {"kd_weight": 0.5}


def test_what_a_method_does_not_read_is_told(command, capsys):
    assert main(command("--method vanilla --canon nowhere --audit nowhere")) == 0
    assert "note: method vanilla does not read --canon or --audit\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--method cadistil", "unknown method 'cadistil': did you mean cadistill"),
        ("--method random", "takes a canonical set of kind random"),
        ("--method kd", "method kd needs --classifier"),
        ("--method generated", "method generated needs --teacher"),
        ("--split test", '(split: "train" there, "test" now;'),
        ("--teacher backdrops", "was made with another teacher than --teacher"),
        ("--train.epochs 0", "--train.epochs 0 is below 1"),
        ("--student resnet9", "unknown student 'resnet9'"),
        ("--canon nowhere", "holds no canonical set"),
        ("--method kd --classifier nowhere", "nowhere"),
    ],
)
def test_mistakes_in_one_sentence(command, capsys, more, words):
    assert main(command(more)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1 and words in printed.err
    assert not Path("out").exists()


def test_benchmark(home, capsys):
    config = DistillConfig(epochs=2, batch_size=32)
    bench = BenchDistill(DataConfig(data=str(home / "tiny.npz")), config, out=Path("bench"))
    bench.run()
    printed = capsys.readouterr()
    assert "wrote bench/bench_distill.json" in printed.out and "overhead" in printed.out
    result = json.loads(Path("bench/bench_distill.json").read_text())
    epochs = result["epochs"]
    assert [e["method"] for e in epochs] == ["vanilla", "cadistill"] * 3
    assert [e["epoch"] for e in epochs] == [1, 1, 2, 2, 3, 3]
    ratios = [epochs[i + 1]["seconds"] / epochs[i]["seconds"] for i in (2, 4)]
    overhead = result["result"]["cadistill"]["overhead"]
    assert overhead["median"] == pytest.approx(sum(ratios) / 2)
    assert (overhead["lowest"], overhead["highest"]) == pytest.approx((min(ratios), max(ratios)))
    assert 0 < result["result"]["vanilla"]["loader_share"] < 1
    assert overhead["counted"] == pytest.approx(epochs[-1]["gigaops"] / epochs[-2]["gigaops"])
    assert 1 + 11 / 32 < overhead["counted"] + 0.05 < 1.6  # a step has 11 canonical images more
    assert result["config"]["canonical_images"] == 12 and result["config"]["canonical_batch"] == 11

    given = {"methods": ("evidence", "gradient-norm"), "activation": "silu", "json": True}
    BenchDistill(DataConfig(data=str(home / "tiny.npz")), replace(config, epochs=1), **given).run()
    found = json.loads(capsys.readouterr().out)["result"]
    assert list(found) == ["vanilla", "evidence", "gradient-norm"]
    assert [name for name, of in found.items() if "overhead" not in of] == ["vanilla"]
    assert found["gradient-norm"]["overhead"]["counted"] > 1.2  # of a share of the batch
    for methods, words in ((("kd",), "kd asks another model"), (("evidenc",), "did you mean")):
        with pytest.raises(UserError, match=words):
            BenchDistill(methods=methods).run()
    with pytest.raises(UserError, match="epochs=0"):
        BenchDistill(train=DistillConfig(epochs=0)).run()


def test_students_on_backdrops_learn_where_a_scene_comes_with_its_class():
    assert Distill()._data().correlation == 0.9
    assert Distill(data=DataConfig(correlation=0.0))._data().correlation == 0.0
    assert Distill(data=DataConfig(data="garments", correlation=0.9))._data().correlation == 0.0
    load_data(Distill(data=DataConfig(data="garments", correlation=0.9))._data())  # not refused
    tinted = DataConfig(data="garments", correlation=0.9, cue="tint")
    assert Distill(data=tinted)._data() == tinted
