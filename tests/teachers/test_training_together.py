"""Two processes train a teacher as one does, by any launcher and the same command."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clarep.cli.main import main
from clarep.engine.artefacts import unseal

OPTIONS = [
    *("--train.steps", "100", "--train.batch-size", "5", "--train.checkpoint-every", "20"),
    *("--train.learning-rate", "1e-3", "--train.warmup-steps", "10", "--sample-every", "1000"),
    *("--train.unet.widths", "8", "--train.unet.embed-dim", "8"),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    rng, y = np.random.default_rng(0), np.arange(30) % 3
    x = rng.integers(0, 128, (30, 8, 8, 3)) + 40 * y[:, None, None, None]
    np.savez(
        path, x_train=x.astype(np.uint8), y_train=y, x_test=x[:6].astype(np.uint8), y_test=y[:6]
    )
    return path


@pytest.fixture(scope="module")
def alone(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    assert main(["train-teacher", "--data", str(archive), "--out", str(out), *OPTIONS]) == 0
    return out


def port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


LAUNCHERS = {
    "torchrun": lambda: ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", port()],
    "accelerate": lambda: [
        *("accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port()),
    ],
}


def history(out: Path) -> list[dict]:
    return [unseal(json.loads(line)) for line in (out / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_curve_is_that_of_one_process(archive, alone, tmp_path, launcher):
    out = tmp_path / "run"
    command = ["-m", "clarep.cli.main", "train-teacher", "--data", str(archive), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", *LAUNCHERS[launcher](), *command, *OPTIONS, "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(printed) == 1 and json.loads(printed[0])["steps"] == 100  # one process speaks
    mine, theirs = history(alone), history(out)
    assert [one["step"] for one in theirs] == [50, 100]
    for a, b in zip(mine, theirs, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1.01e-5)  # of five digits
        assert b.get("held_out") == pytest.approx(a.get("held_out"), abs=2e-5)
    assert {path.name for path in alone.iterdir()} == {path.name for path in out.iterdir()}
