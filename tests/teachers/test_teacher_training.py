"""Training is a function of its configuration, however often it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from clarep.cli.main import main
from clarep.data.load import DataConfig, load_data
from clarep.errors import UserError
from clarep.teachers import TeacherRun, TrainConfig, UNetConfig, load_teacher
from clarep.teachers.train import held_out_losses

STEPS = 150
OPTIONS = (
    f"--train.steps {STEPS} --train.batch-size 4 --train.checkpoint-every 20 "
    "--train.learning-rate 3e-3 --train.warmup-steps 10 "
    "--train.unet.widths 8 16 --train.unet.embed-dim 16 --sample-every 1000"
)
CONFIG = TrainConfig(
    steps=STEPS,
    batch_size=4,
    checkpoint_every=20,
    learning_rate=3e-3,
    warmup_steps=10,
    unet=UNetConfig(
        image_size=16,
        num_classes=3,
        widths=(8, 16),
        embed_dim=16,
        encoder_blocks=1,
        decoder_blocks=1,
    ),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 256, (60, 16, 16, 3)) // 4 + 64 * labels[:, None, None, None]
    images = images.astype(np.uint8)
    np.savez(path, x_train=images, y_train=labels, x_test=images[:30], y_test=labels[:30])
    return path


@pytest.fixture(scope="module")
def data(archive):
    return load_data(DataConfig(data=str(archive)))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    records = list(TeacherRun(data, data, CONFIG, out).records())
    return out, records


def history(out):
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def checkpoint(out):
    return torch.load(out / "checkpoint.pt", weights_only=True)


def assert_same_state(out, other):
    a, b = checkpoint(out), checkpoint(other)
    assert a["step"] == b["step"] == STEPS
    for part in ("net", "ema"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    for key, moments in a["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, b["optimizer"]["state"][key][name])


def test_the_loss_falls_and_the_average_follows(whole):
    out, records = whole
    assert records == history(out)
    assert [record["step"] for record in records] == [50, 100, 150]
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]
    assert set(records[-1]["held_out"]) == {"0.01-0.1", "0.1-0.5", "0.5-2", "2-10", "10-80"}
    saved = checkpoint(out)
    assert any(not torch.equal(saved["net"][name], saved["ema"][name]) for name in saved["net"])


def test_a_stopped_run_goes_on_to_the_same_weights(whole, data, tmp_path):
    run = TeacherRun(data, data, CONFIG, tmp_path)
    next(run.records())  # the record of step 50; the last checkpoint is that of step 40
    assert checkpoint(tmp_path)["step"] == 40
    assert [record["step"] for record in history(tmp_path)] == [50]
    with open(tmp_path / "history.jsonl", "a") as stream:
        stream.write('{"step": 99, "lo')  # killed while it wrote
    (tmp_path / ".checkpoint.pt.1.tmp").write_bytes(b"half")

    resumed = TeacherRun(data, data, CONFIG, tmp_path)
    assert resumed.step == 40 and history(tmp_path) == []
    list(resumed.records())
    assert_same_state(tmp_path, whole[0])
    assert [record["step"] for record in history(tmp_path)] == [50, 100, 150]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_finished_run_has_nothing_left(whole, data):
    before = (whole[0] / "checkpoint.pt").read_bytes()
    run = TeacherRun(data, data, CONFIG, whole[0])
    assert run.step == STEPS and list(run.records()) == []
    assert (whole[0] / "checkpoint.pt").read_bytes() == before


def test_another_seed_gives_other_weights(whole, data, tmp_path):
    list(TeacherRun(data, data, replace(CONFIG, seed=1), tmp_path).records())
    with pytest.raises(AssertionError):
        assert_same_state(tmp_path, whole[0])


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 151}, {"learning_rate": 2e-3}])
def test_folder_of_another_configuration(whole, data, change):
    with pytest.raises(UserError, match="another configuration: give another --out"):
        TeacherRun(data, data, replace(CONFIG, **change), whole[0])
    assert TeacherRun(data, data, CONFIG, whole[0]).step == STEPS  # and is left as it was


def test_folder_of_other_data(whole, data):
    with pytest.raises(UserError, match="another configuration"):
        TeacherRun(replace(data, name="other"), data, CONFIG, whole[0])


def test_damaged_checkpoint(whole, data, tmp_path):
    part = (whole[0] / "checkpoint.pt").read_bytes()[:5_000]
    (tmp_path / "checkpoint.pt").write_bytes(part)
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        TeacherRun(data, data, CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 4}, "has 3 classes and the network 4"),
        ({"image_size": 18}, "image size 18 is not a multiple of 4"),
        ({"widths": (8, 12)}, "not all multiples of 8"),
    ],
)
def test_network_that_does_not_fit(data, tmp_path, change, message):
    config = replace(CONFIG, unet=replace(CONFIG.unet, **change))
    with pytest.raises(UserError, match=message):
        TeacherRun(data, data, config, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path):
    config = replace(CONFIG, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(UserError, match=r"lower --train\.learning-rate"):
        list(TeacherRun(data, data, config, tmp_path).records())


def test_held_out_loss_of_a_network_of_zeros_is_about_one(data):
    from clarep.teachers import UNet

    net = UNet(CONFIG.unet)  # its last layer is zero
    losses = held_out_losses(net, data)
    x = data.images(range(30)).float() / 127.5 - 1
    # c_skip alone: as sigma grows the estimate goes to 0, and the loss to E[x^2] / 0.5^2.
    assert losses["10-80"] == pytest.approx(float(x.square().mean()) / 0.25, rel=0.1)


def command(archive, out):
    return ["train-teacher", "--data", str(archive), "--out", str(out), *OPTIONS.split()]


def test_killed_by_the_system_the_same_command_goes_on(whole, archive, tmp_path, capsys):
    out = tmp_path / "run"
    code = "import sys; from clarep.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command(archive, out)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (out / "history.jsonl").exists() or len(history(out)) < 1:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 40 <= checkpoint(out)["step"] < STEPS
    assert not (out / "teacher.safetensors").exists()

    assert main([*command(archive, out), "--json"]) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["steps"] == STEPS and "step 150/150" in printed.err
    assert [line["step"] for line in history(out)] == [50, 100, 150]
    assert_same_state(out, whole[0])

    teacher = load_teacher(str(out))
    ema = checkpoint(out)["ema"]
    weights = teacher.net.state_dict()
    assert all(torch.equal(weights[name], ema[name].half().float()) for name in ema)
    card = json.loads((out / "card.json").read_text())
    assert card["weights"]["sha256"] == teacher.fingerprint
    assert card["training"]["steps"] == STEPS and card["training"]["images"] == 4 * STEPS
    assert card["held_out_loss"] == history(out)[-1]["held_out"] == record["held_out"]

    from PIL import Image

    with Image.open(out / "samples/final.png") as grid:
        assert grid.size == (8 * 16, 3 * 16) and len(grid.getcolors(10_000)) > 100

    assert main([*command(archive, out), "--train.seed", "5"]) == 2
    assert "another configuration" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(archive, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(command(archive, tmp_path / "file" / "run")) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_a_full_disk_leaves_the_last_checkpoint_valid(whole, data, archive, tmp_path):
    next(TeacherRun(data, data, CONFIG, tmp_path).records())
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from clarep.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    full = [sys.executable, "-c", code, *command(archive, tmp_path)]
    done = subprocess.run(full, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "mend that, and the same command goes on" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob(".*.tmp"))

    resumed = TeacherRun(data, data, CONFIG, tmp_path)
    assert resumed.step == 40
    list(resumed.records())
    assert_same_state(tmp_path, whole[0])


def test_data_without_a_test_split(tmp_path, capsys):
    path = tmp_path / "undivided.npz"
    np.savez(path, x=np.zeros((6, 16, 16, 3), np.uint8), y=np.arange(6) % 3)
    assert main(command(path, tmp_path / "run")) == 2
    assert "the held-out loss needs a test split" in capsys.readouterr().err
