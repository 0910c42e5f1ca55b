"""A student's training is a function of its configuration, however often it is stopped."""

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from clarep.distill.distill_config import DistillConfig
from clarep.distill.train_student import cadistill, train_student
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.train_state import learning_rate
from clarep.engine.arithmetic import CountedArithmetic
from clarep.engine.artefacts import sha256_file, unseal
from clarep.errors import UserError
from clarep.students.student_files import STUDENT_NAME, load_student

NAN, INF = float("nan"), float("inf")


def history(out):
    return [unseal(json.loads(line)) for line in (out / "history.jsonl").read_text().splitlines()]


def checkpoint(out):
    return torch.load(out / "checkpoint.pt", weights_only=True)


def assert_same_state(out, other):
    a, b = checkpoint(out), checkpoint(other)
    assert a["epoch"] == b["epoch"] and a["best_epoch"] == b["best_epoch"]
    for part in ("method", "best"):
        assert a[part].keys() == b[part].keys()
        tensors = [name for name, value in a[part].items() if torch.is_tensor(value)]
        assert tensors and all(torch.equal(a[part][name], b[part][name]) for name in tensors)
    for key, moments in a["optimiser"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, b["optimiser"]["state"][key][name])


@pytest.fixture(scope="module")
def config(quick):
    return replace(quick, epochs=3, ema=0.9, queue_size=16, align_form="both")


@pytest.fixture(scope="module")
def whole(data, canonical_of, config, tmp_path_factory):
    """A CaDistill run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "student"
    run = StudentRun(data, out, method="cadistill", config=config, canonical=canonical_of())
    records = list(run.records())
    run.finish()
    return out, records, data


def test_vanilla_learns_and_stores_its_best_epoch(data, quick, tmp_path):
    config = replace(quick, epochs=6, learning_rate=0.1)
    student = train_student(data, tmp_path, config=config, student="resnet8")
    records = history(tmp_path)
    assert records[-1]["train"]["loss"] < 0.7 * records[0]["train"]["loss"]
    best = max(record["validation_accuracy"] for record in records)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["validation_accuracy"] == best >= 0.75  # colours tell the classes apart
    picked = [r["epoch"] for r in records if r["validation_accuracy"] == best][-1]
    assert stored["picked_epoch"] == picked
    assert stored["seconds"] == pytest.approx(sum(r["seconds"] for r in records), abs=0.01)
    with CountedArithmetic() as forward:
        student(torch.rand(1, 3, 16, 16))
    passes = stored["gigaops"] * 1e9 / forward.operations / 6 / 108  # epochs, images trained on
    assert 2.5 < passes < 3  # the first layer's images get no gradient
    assert stored["method"] == "vanilla" and stored["canon"] is None
    again = load_student(tmp_path)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(student(x), again(x)) and not student.training


def test_a_record_says_what_was_trained(whole):
    out, records, _ = whole
    assert records == history(out) and [record["epoch"] for record in records] == [1, 2, 3]
    for record in records:
        terms = record["train"]
        assert set(terms) == {"ce", "align", "cano", "dist", "loss"}
        assert terms["loss"] == pytest.approx(sum(terms.values()) - terms["loss"], abs=1e-4)
        assert 0 < record["loader_share"] < 1 and record["images_per_s"] > 0
        assert (record["validation_accuracy"] * 12) % 1 == pytest.approx(0, abs=1e-9)
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))


def test_tensorboard_holds_the_history(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, records, _ = whole
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    scalars = events.Scalars("train/dist")
    assert [scalar.step for scalar in scalars] == [1, 2, 3]
    wanted = [record["train"]["dist"] for record in records]
    assert [scalar.value for scalar in scalars] == pytest.approx(wanted, rel=1e-5)
    assert "validation_accuracy" in events.Tags()["scalars"]


def test_configuration_names_the_set(whole, canonical_of):
    stored = json.loads((whole[0] / "config.json").read_text())
    assert stored["canon"] == {
        "sha256": canonical_of().sha256,
        "teacher_sha256": canonical_of().manifest["config"]["teacher_sha256"],
        "kind": "top",
        "guidance": 3.0,
        "images": 30,
    }
    assert stored["student_sha256"] == sha256_file(whole[0] / STUDENT_NAME)
    assert set(stored) >= {"method", "seed", "student", "data", "data_options", "train", "versions"}


def test_a_stopped_run_goes_on_to_the_same_bytes(whole, data, canonical_of, config, tmp_path):
    out = tmp_path / "student"
    parts = {"method": "cadistill", "config": config, "canonical": canonical_of()}
    run = StudentRun(data, out, **parts)
    next(run.records())
    run.records().close()
    with open(out / "history.jsonl", "a") as stream:
        stream.write('{"epoch": 2, "train": {}}\n{"epoch": 3, "tr')  # killed while it wrote
    (out / ".checkpoint.pt.1.tmp").write_bytes(b"half")  # of init's process, which is alive
    (out / ".checkpoint.pt.4194304.tmp").write_bytes(b"half")

    resumed = StudentRun(data, out, **parts)
    assert resumed.epoch == 1 and len(history(out)) == 1
    assert not (out / ".checkpoint.pt.4194304.tmp").exists()
    list(resumed.records())
    resumed.finish()
    assert_same_state(out, whole[0])
    assert sha256_file(out / STUDENT_NAME) == sha256_file(whole[0] / STUDENT_NAME)
    assert [record["epoch"] for record in history(out)] == [1, 2, 3]


def test_a_finished_run_has_nothing_left(whole, data, canonical_of, config):
    before = [sha256_file(whole[0] / name) for name in ("checkpoint.pt", STUDENT_NAME)]
    run = StudentRun(data, whole[0], method="cadistill", config=config, canonical=canonical_of())
    assert run.epoch == 3 and list(run.records()) == []
    run.finish()
    assert [sha256_file(whole[0] / name) for name in ("checkpoint.pt", STUDENT_NAME)] == before


def test_the_average_is_what_is_stored(whole):
    saved = checkpoint(whole[0])
    weights = saved["method"]["student.head.weight"]
    assert not torch.equal(saved["average"]["head.weight"], weights)
    if saved["best_epoch"] == saved["epoch"]:
        assert torch.equal(saved["best"]["head.weight"], saved["average"]["head.weight"])
    buffers = [name for name in saved["average"] if "running_mean" in name]
    assert all(torch.equal(saved["average"][n], saved["method"][f"student.{n}"]) for n in buffers)


def test_decoding_anew_changes_nothing(whole, data, canonical_of, config, tmp_path):
    list(
        StudentRun(
            data,
            tmp_path,
            method="cadistill",
            config=replace(config, memory_mb=0.0, workers=0),
            canonical=canonical_of(),
        ).records()
    )
    assert_same_state(tmp_path, whole[0])


def test_another_seed_gives_other_weights(whole, data, canonical_of, config, tmp_path):
    other = replace(config, seed=1)
    parts = {"method": "cadistill", "config": other, "canonical": canonical_of()}
    list(StudentRun(data, tmp_path, **parts).records())
    with pytest.raises(AssertionError):
        assert_same_state(tmp_path, whole[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": {"seed": 1}}, "seed: 0 there, 1 now"),
        ({"config": {"lambda_dist": 2.0}}, r"lambda_dist: 1\.0 there, 2\.0 now"),
        ({"method": "class-mean"}, 'method: "cadistill" there, "class-mean" now'),
        ({"student": "wrn16-2"}, 'student: "resnet8" there, "wrn16-2" now'),
        ({"layer": "stage1"}, 'layer: null there, "stage1" now'),
    ],
)
def test_another_configuration_is_refused(whole, canonical_of, config, change, words):
    out, _, data = whole
    parts = {"method": "cadistill", "canonical": canonical_of()} | change
    parts["config"] = replace(config, **change.get("config", {}))
    with pytest.raises(UserError, match=f"holds a run of another configuration .{words}"):
        StudentRun(data, out, **parts)


def test_other_images_under_the_same_names_are_refused(whole, canonical_of, config):
    out, _, data = whole
    parts = {"canonical": canonical_of(), "config": config, "method": "cadistill"}
    moved = replace(data, name="/elsewhere", read=lambda i: data.read(i).copy())
    assert StudentRun(moved, out, **parts).epoch == config.epochs
    of_set = set(canonical_of().tensors["index"].tolist())
    last = max(set(range(len(data))) - of_set)
    other = replace(data, read=lambda i: data.read(i) ^ np.uint8(i == last))
    with pytest.raises(UserError, match=r"another configuration .*images or labels themselves"):
        StudentRun(other, out, **parts)


def test_a_folder_of_something_else(data, quick, tmp_path):
    (tmp_path / "config.json").write_text('{"data": "mine"}')
    with pytest.raises(UserError, match=r"holds a config\.json of something else"):
        StudentRun(data, tmp_path, config=quick)
    assert (tmp_path / "config.json").read_text() == '{"data": "mine"}'


def test_a_run_killed_before_its_first_checkpoint_goes_on(data, quick, tmp_path):
    StudentRun(data, tmp_path, config=quick)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert StudentRun(data, tmp_path, config=quick).epoch == 0
    with pytest.raises(UserError, match=r"another configuration \(seed: 0 there, 3 now\)"):
        StudentRun(data, tmp_path, config=replace(quick, seed=3))


@pytest.mark.parametrize("contents", [{"model": 1}, [1, 2], {"config": None}, {"config": "[1]"}])
def test_a_checkpoint_of_something_else(data, quick, tmp_path, contents):
    torch.save(contents, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        StudentRun(data, tmp_path, config=quick)


def test_a_loss_that_is_not_finite_stops_the_run(data, quick, tmp_path):
    run = StudentRun(data, tmp_path, config=replace(quick, epochs=3))
    records = run.records()
    next(records)
    run.student.head.weight.register_hook(lambda gradient: gradient * NAN)
    with pytest.raises(UserError, match=r"gradient's norm nan in epoch 2: lower `learning_rate`"):
        next(records)
    assert len(history(tmp_path)) == 1
    saved = checkpoint(tmp_path)
    assert saved["epoch"] == 1
    assert all(value.isfinite().all() for value in saved["method"].values())
    assert all(value.isfinite().all() for value in run.student.state_dict().values())


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_optimisers_and_bf16(data, quick, tmp_path, optimiser, schedule):
    config = replace(
        quick,
        optimiser=optimiser,
        schedule=schedule,
        learning_rate=0.01,
        mixed_precision="bf16",
        label_smoothing=0.1,
        validation_share=0.0,
        pick="last",
    )
    run = StudentRun(data, tmp_path, config=config)
    before = run.student.head.weight.detach().clone()
    records = list(run.records())
    done = run.finish()
    assert done["picked_epoch"] == 2 and done["validation_accuracy"] is None
    assert records[-1]["validation_accuracy"] is None
    assert not torch.equal(run.student.head.weight, before)
    assert all(p.dtype == torch.float32 for p in run.student.parameters())
    stored = load_student(tmp_path).state_dict()
    assert all(torch.equal(value, stored[k]) for k, value in run.student.state_dict().items())


def test_learning_rate_rises_and_falls():
    config = DistillConfig(epochs=10, learning_rate=0.2, warmup_share=0.2)
    assert learning_rate(config, 1.0) == pytest.approx(0.1)
    assert learning_rate(config, 2.0) == pytest.approx(0.2)
    assert learning_rate(config, 6.0) == pytest.approx(0.1)
    assert learning_rate(config, 10.0) == pytest.approx(0.0, abs=1e-12)
    cycle = replace(config, schedule="one-cycle")
    assert learning_rate(cycle, 0.0) == pytest.approx(0.2 / 25)
    assert learning_rate(cycle, 1.0) == pytest.approx(0.2 * (1 + 1 / 25) / 2)
    assert learning_rate(replace(config, warmup_share=0.0), 0.0) == pytest.approx(0.2)


def test_one_call_does_it(data, canonical_of, quick, tmp_path, whole):
    student = cadistill(data, canonical_of().folder, tmp_path, config=replace(quick, epochs=1))
    assert student.info.class_names == data.class_names
    assert json.loads((tmp_path / "config.json").read_text())["method"] == "cadistill"


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.load import DataConfig, load_data
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.distill_config import DistillConfig
import torch
data = load_data(DataConfig(data=sys.argv[1]))
config = DistillConfig(epochs=int(sys.argv[4]), batch_size=32, canonical_batch_size=8,
                       learning_rate=0.05)
out = Path(sys.argv[3])
run = StudentRun(data, out, method="cadistill", config=config,
                 canonical=CanonicalSet.load(sys.argv[2]))
records = list(run.records())
run.finish()
import os
rank = os.environ.get("RANK", "0")
torch.save({"weights": run.student.state_dict(), "records": records}, out.parent / f"rank{rank}.pt")
"""


THREADS = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""}


def test_killed_by_the_system_it_goes_on_to_the_same_bytes(
    archive, data, canonical_of, programs, tmp_path
):
    out, other = tmp_path / "killed", tmp_path / "whole"
    killed = programs.start(SCRIPT, archive, canonical_of().folder, out, 12, **THREADS)
    deadline = time.monotonic() + 60
    while not (out / "history.jsonl").exists() or len(history(out)) < 2:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.003)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert 1 <= checkpoint(out)["epoch"] < 12 and not (out / STUDENT_NAME).exists()

    config = DistillConfig(epochs=12, batch_size=32, canonical_batch_size=8, learning_rate=0.05)
    for folder in (out, other):
        cadistill(data, canonical_of(), folder, config=config)
    assert sha256_file(out / STUDENT_NAME) == sha256_file(other / STUDENT_NAME)
    assert_same_state(out, other)
    assert [record["epoch"] for record in history(out)] == list(range(1, 13))


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_two_processes_hold_the_same_weights(archive, canonical_of, programs, tmp_path):
    arguments = [archive, canonical_of().folder, tmp_path / "student", 2]
    port = free_port()
    joined = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    joined |= {"ACCELERATE_USE_CPU": "true"} | THREADS
    processes = [
        programs.start(SCRIPT, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **joined)
        for rank in range(2)
    ]
    for process in processes:
        assert process.wait() == 0, process.stderr
    a, b = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert a["weights"].keys() == b["weights"].keys()
    assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])
    losses = [record["train"]["loss"] for record in a["records"]]
    assert np.isfinite(losses).all() and len(losses) == 2
    assert losses == [record["train"]["loss"] for record in b["records"]]
    assert len(history(tmp_path / "student")) == 2  # one of them wrote
    stored = load_student(tmp_path / "student").state_dict()
    assert stored.keys() == a["weights"].keys()


@pytest.mark.parametrize(
    "damage", [b"", b'{"epoch": 1}\n', b"\xff\xfe\n", b"{}\n" * 3, b'{"epoch": 3}\n{"epoch": 1}\n']
)
def test_a_damaged_history_is_written_anew_from_the_checkpoint(
    whole, data, canonical_of, config, damage
):
    out, records, _ = whole
    (out / "history.jsonl").write_bytes(damage)
    run = StudentRun(data, out, method="cadistill", config=config, canonical=canonical_of())
    picked = run.finish()["picked_epoch"]
    assert history(out) == records
    stored = json.loads((out / "config.json").read_text())
    assert stored["validation_accuracy"] == records[picked - 1]["validation_accuracy"]


def test_a_changed_bit_of_the_checkpoint_is_refused(data, quick, tmp_path):
    next(StudentRun(data, tmp_path, config=quick).records())
    damaged = bytearray((tmp_path / "checkpoint.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 64
    (tmp_path / "checkpoint.pt").write_bytes(damaged)
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        StudentRun(data, tmp_path, config=quick)


def test_of_two_processes_in_one_folder_the_second_is_refused(
    archive, data, canonical_of, programs, tmp_path
):
    out = tmp_path / "student"
    arguments = [archive, canonical_of().folder, out, 200]
    first = programs.start(SCRIPT, *arguments, **THREADS)
    deadline = time.monotonic() + 120
    while not (out / "history.jsonl").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    before = (out / "config.json").read_bytes()
    second = programs.run(SCRIPT, *arguments, **THREADS)
    said = f"process {first.pid} on {os.uname().nodename}"
    assert second.returncode == 1 and said in second.stderr
    config = DistillConfig(epochs=200, batch_size=32, canonical_batch_size=8, learning_rate=0.05)
    with pytest.raises(UserError, match=f"process {first.pid} "):
        cadistill(data, canonical_of(), out, config=config)
    assert (out / "config.json").read_bytes() == before and first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    epochs = [record["epoch"] for record in history(out)]
    assert epochs == list(range(1, len(epochs) + 1))
    StudentRun(data, out, method="cadistill", config=config, canonical=canonical_of())
