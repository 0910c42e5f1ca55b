"""Two processes train as one does: the same losses and weights, to rounding, by any method."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from clarep.distill.distill_config import DistillConfig
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.whole_batch import Shares
from clarep.engine.artefacts import unseal

# A sign, a second derivative, a quotient of small norms make more of what is rounded otherwise.
WITHIN = {"adv": 1e-4, "gradient-norm": 1e-4, "cadistill": 4e-5}
METHODS = ("vanilla", "cadistill", "supcon", "augment", "adv", "gradient-norm")
STUDENTS = {"supcon": "vit-tiny"}
# Seven batches and some of an odd size; nothing is dropped, and views are drawn.
CONFIG = DistillConfig(
    epochs=2, batch_size=25, canonical_batch_size=7, learning_rate=0.005, validation_share=0.1
)
SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[3])))
from test_whole_batch import METHODS, trained
from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.load import DataConfig, load_data
data, canonical = load_data(DataConfig(data=sys.argv[1])), CanonicalSet.load(sys.argv[2])
for method in METHODS:
    trained(method, data, canonical, Path(sys.argv[4]) / method)
"""


def trained(method, data, canonical, out):
    """Train by a method; images are decoded when asked for."""
    from dataclasses import replace

    config = replace(CONFIG, memory_mb=0.0, workers=0)
    run = StudentRun(
        data,
        out,
        method=method,
        student=STUDENTS.get(method, "resnet8-half"),
        config=config,
        canonical=canonical if method == "cadistill" else None,
    )
    list(run.records())
    run.finish()


def together(count, arguments, script=SCRIPT):
    """Run a script in that many processes, as torchrun would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    joined = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    joined |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=os.environ | joined | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stderr.close()
    assert [process.returncode for process in started] == [0] * count, errors[0][-3000:]


@pytest.fixture(scope="module")
def in_two(archive, canonical_of, tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    together(2, [archive, canonical_of().folder, os.path.dirname(__file__), out])
    return out


def history(out):
    return [unseal(json.loads(line)) for line in (out / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_the_curve_is_that_of_one_process(in_two, data, canonical_of, tmp_path, method):
    trained(method, data, canonical_of(), tmp_path)
    one, two = history(tmp_path), history(in_two / method)
    within = WITHIN.get(method, 1.01e-5)  # of five digits that are written
    assert len(one) == len(two) == 2
    for mine, theirs in zip(one, two, strict=True):
        assert mine["train"].keys() == theirs["train"].keys()
        for name, value in mine["train"].items():
            assert theirs["train"][name] == pytest.approx(value, abs=within)
    a, b = (
        torch.load(out / "checkpoint.pt", weights_only=True)["method"]
        for out in (tmp_path, in_two / method)
    )
    assert a.keys() == b.keys()
    moved = 0.0
    for name, value in a.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            assert torch.allclose(value, b[name], atol=2 * within, rtol=1e-3), name
            moved = max(moved, float((value - b[name]).abs().max()))
    assert moved > 0  # the sums were taken in another order: it was not one process


def test_shares_are_as_array_split_cuts():
    for rows in range(12):
        for processes in range(1, 5):
            cut = np.array_split(np.arange(rows), processes)
            for rank in range(processes):
                assert np.arange(rows)[Shares(rank, processes).of(rows)].tolist() == list(cut[rank])
