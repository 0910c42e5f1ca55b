"""Training is a function of its configuration, however often it is stopped."""

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from clarep.cli.main import main
from clarep.data.load import DataConfig, load_data, stored_options
from clarep.engine.artefacts import unseal
from clarep.errors import UserError
from clarep.teachers.denoising import held_out_losses
from clarep.teachers.teacher_config import TrainConfig
from clarep.teachers.teacher_run import TeacherRun, is_due
from clarep.teachers.unet import UNetShape
from clarep.teachers.zoo import load_teacher
from forked import COMMAND

STEPS = 150
NO_PROCESS = 2**22  # beyond every process id
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
    unet=UNetShape(widths=(8, 16), embed_dim=16),
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
    return [unseal(json.loads(line)) for line in (out / "history.jsonl").read_text().splitlines()]


def curves(records):
    """All that is logged but the rate, which no two runs have the same."""
    return [record | {"images_per_s": None} for record in records]


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
    (tmp_path / f".checkpoint.pt.{NO_PROCESS}.tmp").write_bytes(b"half")

    resumed = TeacherRun(data, data, CONFIG, tmp_path)
    assert resumed.step == 40 and history(tmp_path) == []
    list(resumed.records())
    assert_same_state(tmp_path, whole[0])
    assert curves(history(tmp_path)) == curves(whole[1])  # with the losses of steps 1 to 40
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
    with pytest.raises(
        UserError, match=r"another configuration \(.* there, .* now\): give another"
    ):
        TeacherRun(data, data, replace(CONFIG, **change), whole[0])
    assert TeacherRun(data, data, CONFIG, whole[0]).step == STEPS  # and is left as it was


def test_folder_of_other_data(whole, data):
    def changed(i):
        pixels = data.read(i).copy()
        pixels[-1, -1] ^= i == len(data) - 1  # one pixel of the last image
        return pixels

    other = replace(data, read=changed)
    for given in ((other, data), (data, other)):
        with pytest.raises(UserError, match=r"another configuration .*sha256"):
            TeacherRun(*given, CONFIG, whole[0])
    moved = replace(data, name="elsewhere/train")
    assert TeacherRun(moved, moved, CONFIG, whole[0]).step == STEPS


def test_data_read_in_another_way(data, tmp_path):
    def run(**options):
        return TeacherRun(data, data, CONFIG, tmp_path, data_options=options)

    next(run(alpha_colour="black", split="train").records())
    assert run(alpha_colour="black", split="train").step == 40
    assert run(alpha_colour="white", split="train").step == 40  # to the same pixels
    labels = (data.labels + 1) % len(data.class_names)
    options = {"alpha_colour": "white", "split": "train"}
    with pytest.raises(UserError, match='alpha_colour: "black" there, "white" now; data_sha256'):
        TeacherRun(replace(data, labels=labels), data, CONFIG, tmp_path, data_options=options)


def test_damaged_checkpoint(whole, data, tmp_path):
    part = (whole[0] / "checkpoint.pt").read_bytes()[:5_000]
    (tmp_path / "checkpoint.pt").write_bytes(part)
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        TeacherRun(data, data, CONFIG, tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {"history.jsonl": "epoch 1\n"},
        {"config.json": '{"model": "mine"}\n'},
        {"config.json": "not JSON", "history.jsonl": '{"step": 50}\n'},
    ],
)
def test_a_folder_of_something_else_is_left_alone(data, tmp_path, files):
    files = files | {".notes.txt.tmp": "mine"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"of something else and no checkpoint\.pt: give another"):
        TeacherRun(data, data, CONFIG, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_killed_before_its_first_checkpoint_a_run_begins_anew(data, tmp_path):
    config = replace(CONFIG, checkpoint_every=100)
    next(TeacherRun(data, data, config, tmp_path).records())
    names = ("checkpoint.pt", "history.jsonl", "config.json", "teacher.safetensors", "card.json")
    for name in names:
        (tmp_path / f".{name}.{NO_PROCESS}.tmp").write_text("half")
    living = tmp_path / f".checkpoint.pt.{os.getppid()}.tmp"
    living.write_text("half")
    assert not (tmp_path / "checkpoint.pt").exists() and len(history(tmp_path)) == 1
    assert TeacherRun(data, data, config, tmp_path).step == 0 and history(tmp_path) == []
    assert list(tmp_path.glob(".*.tmp")) == [living]
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        TeacherRun(data, data, replace(config, seed=1), tmp_path)


@pytest.mark.parametrize("contents", [{"model": 1}, [1, 2], {"config": None}, {"config": "[1]"}])
def test_a_checkpoint_of_something_else(data, tmp_path, contents):
    torch.save(contents, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        TeacherRun(data, data, CONFIG, tmp_path)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("steps", [0, -1], "is below 1"),
        ("batch_size", [0], "is below 1"),
        ("checkpoint_every", [0], "is below 1"),
        ("evaluate_every", [0], "is below 1"),
        ("warmup_steps", [-1], "is below 0"),
        ("learning_rate", [0.0, -1e-3, NAN, INF], "is not (above 0|finite)"),
        ("ema_halflife_kimg", [0.0, NAN], "is not (above 0|finite)"),
        ("clip_norm", [0.0, NAN], "is not (above 0|finite)"),
        ("sigma_max", [0.0, INF], "is not (above 0|finite)"),
        ("sigma_min", [0.0, -0.1], "is not (above 0|finite)"),
        ("sigma_min", [80.0, 90.0], r"is not below `sigma_max=80"),
        ("label_dropout", [-0.1, 1.0, NAN], r"is (outside \[0, 1\)|not finite)"),
    ],
)
def test_settings_that_cannot_be_trained_with(data, tmp_path, name, values, rule):
    for value in values:
        with pytest.raises(UserError, match=f"^`{name}={value}` {rule}"):
            TeacherRun(data, data, replace(CONFIG, **{name: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_no_seed(data, tmp_path, seed):
    with pytest.raises(UserError, match=f"`seed={seed}` is (below 0|not finite)"):
        TeacherRun(data, data, replace(CONFIG, seed=seed), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 0}, r"`unet\.patch=0` is below 1"),
        ({"encoder_blocks": 0}, r"`unet\.encoder_blocks=0` is below 1"),
        ({"decoder_blocks": 0}, r"`unet\.decoder_blocks=0` is below 1"),
        ({"embed_dim": 0}, r"`unet\.embed_dim=0` is below 1"),
        ({"sigma_data": 0.0}, r"`unet\.sigma_data=0\.0` is not"),
        ({"widths": ()}, r"`unet\.widths` is empty"),
        ({"widths": (8, 12)}, r"`unet\.widths=8 12` are not all multiples of 8"),
        ({"widths": (8, -8)}, r"`unet\.widths=-8` is below 1"),
        ({"patch": 3}, "image size 16 is not a multiple of 6"),
        ({"widths": (8,) * 5}, "image size 16 is not a multiple of 32"),
    ],
)
def test_network_that_does_not_fit(data, tmp_path, change, message):
    config = replace(CONFIG, unet=replace(CONFIG.unet, **change))
    with pytest.raises(UserError, match=message):
        TeacherRun(data, data, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_that_are_not_square(tmp_path):
    path = tmp_path / "wide.npz"
    x, y = np.zeros((6, 16, 24, 3), np.uint8), np.arange(6) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    wide = load_data(DataConfig(data=str(path)))
    with pytest.raises(UserError, match=r"images of 24x16 pixels .*: give `image_size=16`"):
        TeacherRun(wide, wide, CONFIG, tmp_path / "run")
    squared = load_data(DataConfig(data=str(path), image_size=16))
    assert TeacherRun(squared, squared, CONFIG, tmp_path / "run").config.unet.image_size == 16


def test_held_out_images_of_other_classes_or_size(data, tmp_path):
    other = replace(data, class_names=("a", "b", "c"))
    with pytest.raises(UserError, match="classes are not those of"):
        TeacherRun(data, other, CONFIG, tmp_path)
    smaller = replace(data, read=lambda i: data.read(i)[:8, :8])
    with pytest.raises(UserError, match=r" 3x16x16 .* 3x8x8: give `image_size=16`"):
        TeacherRun(data, smaller, CONFIG, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path):
    config = replace(CONFIG, learning_rate=1e9, warmup_steps=0, checkpoint_every=1)
    run = TeacherRun(data, data, config, tmp_path)
    with pytest.raises(UserError, match=r"lower `learning_rate` and give another `out`"):
        list(run.records())
    assert 1 <= run.step < 50 and not (tmp_path / "history.jsonl").exists()
    saved = checkpoint(tmp_path)
    assert saved["step"] == run.step
    assert all(value.isfinite().all() for value in [*saved["net"].values(), *saved["ema"].values()])


def test_a_gradient_that_is_not_finite_changes_no_weight(data, tmp_path):
    run = TeacherRun(data, data, replace(CONFIG, checkpoint_every=1), tmp_path)
    before = {name: value.clone() for name, value in run.ema.state_dict().items()}
    net = run.net
    net.stem.weight.register_hook(lambda gradient: gradient * NAN)
    with pytest.raises(UserError, match="gradient's norm nan at step 1"):
        list(run.records())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_multiple_is_due_in_the_one_record_that_covers_it():
    for every in (1, 7, 50, 60, 120, 1_000):
        records = [*range(50, 1_201, 50), 1_217]
        due = [step for step in records if is_due(step, every)]
        wanted = {
            min(r for r in records if r >= multiple) for multiple in range(every, 1_218, every)
        }
        assert due == sorted(wanted)


def test_held_out_losses_are_measured_with_the_next_record(data, tmp_path):
    config = replace(CONFIG, steps=160, evaluate_every=60)
    records = TeacherRun(data, data, config, tmp_path).records()
    assert [record["step"] for record in records if "held_out" in record] == [100, 150, 160]


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_held_out_loss_of_a_network_of_zeros_is_the_images_own_energy(data, sigma_data):
    from clarep.teachers.unet import UNet, UNetConfig

    shape = UNetConfig(image_size=16, num_classes=3, widths=(8, 16), sigma_data=sigma_data)
    net = UNet(shape)  # its last layer is zero
    losses = held_out_losses(net, data, 0.01, 80.0)
    x = data.images(range(30)).float() / 127.5 - 1
    # c_skip alone: as sigma grows the estimate goes to 0, and the loss to E[x^2] / sigma_data^2.
    assert losses["10-80"] == pytest.approx(float(x.square().mean()) / sigma_data**2, rel=0.1)


@pytest.mark.parametrize(
    ("low", "high", "bands"),
    [
        (0.01, 80.0, ["0.01-0.1", "0.1-0.5", "0.5-2", "2-10", "10-80"]),
        (0.002, 10.0, ["0.002-0.1", "0.1-0.5", "0.5-2", "2-10"]),
        (0.6, 1.5, ["0.6-1.5"]),
    ],
)
def test_bands_are_those_of_the_trained_range(data, low, high, bands):
    from clarep.teachers.unet import UNet, UNetConfig

    net = UNet(UNetConfig(image_size=16, num_classes=3, widths=(8,), embed_dim=16))
    assert list(held_out_losses(net, data, low, high)) == bands


def command(archive, out):
    return ["train-teacher", "--data", str(archive), "--out", str(out), *OPTIONS.split()]


@pytest.mark.parametrize("ended", [-signal.SIGKILL, 143])
def test_killed_by_the_system_the_same_command_goes_on(
    ended, whole, archive, *, programs, tmp_path, capsys
):
    out = tmp_path / "run"
    threads = str(torch.get_num_threads())
    process = programs.start(COMMAND, *command(archive, out), OMP_NUM_THREADS=threads)
    deadline = time.monotonic() + 60
    while not (out / "history.jsonl").exists() or len(history(out)) < 1:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM if ended == 143 else signal.SIGKILL)
    assert process.wait() == ended
    assert 40 <= checkpoint(out)["step"] < STEPS
    assert not (out / "teacher.safetensors").exists()

    assert main([*command(archive, out), "--json"]) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["steps"] == STEPS and "training: 150/150 steps" in printed.err
    assert "loss " in printed.err and record["skipped"] == []
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
    message = capsys.readouterr().err
    assert "cannot write" in message and str(tmp_path / "file") in message


def test_a_full_disk_leaves_the_last_checkpoint_valid(whole, data, archive, programs, tmp_path):
    options = stored_options(DataConfig(data=str(archive)))
    held_out = load_data(DataConfig(data=str(archive), split="test"))
    next(TeacherRun(data, held_out, CONFIG, tmp_path, data_options=options).records())
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    done = programs.run(f"{limited}; {COMMAND}", *command(archive, tmp_path))
    assert done.returncode == 2
    assert f"cannot write {tmp_path / 'checkpoint.pt'} (" in done.stderr
    assert "run the same command again; what is stored stays valid" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob(".*.tmp"))

    resumed = TeacherRun(data, held_out, CONFIG, tmp_path, data_options=options)
    assert resumed.step == 40
    list(resumed.records())
    assert_same_state(tmp_path, whole[0])


def test_a_damaged_history_is_written_anew_from_the_checkpoint(whole, data):
    out, records = whole
    for damage in (b"", b"\xff\n", b'{"step": 150}\n', b"{}\n{}\n{}\n"):
        (out / "history.jsonl").write_bytes(damage)
        TeacherRun(data, data, CONFIG, out)
        assert history(out) == records


def test_a_changed_bit_of_the_checkpoint_is_refused(whole, data, tmp_path):
    damaged = bytearray((whole[0] / "checkpoint.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 64
    (tmp_path / "checkpoint.pt").write_bytes(damaged)
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        TeacherRun(data, data, CONFIG, tmp_path)
