"""Two processes train as one does: the same losses and weights, to rounding, by any method."""

import json
import os
import socket

import numpy as np
import pytest
import torch

from clarep.distill.distill_config import DistillConfig
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.train_state import TrainState
from clarep.distill.trainer.whole_batch import Shares
from clarep.engine.artefacts import unseal

METHODS = ("vanilla", "cadistill", "supcon", "augment", "adv", "gradient-norm")
IN_DOUBLE = ("cadistill", "adv", "gradient-norm")
"""A sign, a second derivative, a small norm make more of what is rounded otherwise."""
STUDENTS = {"supcon": "vit-tiny"}
# Seven batches and some of an odd size; nothing is dropped, and views are drawn.
CONFIG = DistillConfig(
    epochs=2, batch_size=25, canonical_batch_size=7, learning_rate=0.005, validation_share=0.1
)
SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[3])))
from test_whole_batch import IN_DOUBLE, METHODS, trained
from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.load import DataConfig, load_data
data, canonical = load_data(DataConfig(data=sys.argv[1])), CanonicalSet.load(sys.argv[2])
for method, double in [(m, False) for m in METHODS] + [(m, True) for m in IN_DOUBLE]:
    out = Path(sys.argv[4]) / f"{method}-{double}"
    losses = trained(method, data, canonical, out, double)
    if os.environ["RANK"] == "0":
        (out / "losses.json").write_text(json.dumps(losses))
"""


def trained(method, data, canonical, out, double=False):
    """Train by a method on one thread, in float64 if so asked; return each step's losses.

    Images are decoded when asked for.
    """
    losses, step, single = [], TrainState.step, torch.Tensor.float

    def noted(self, *given, **named):
        losses.append(step(self, *given, **named))
        return losses[-1]

    threads, before = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)  # with more, one process differs from itself by more than two do
    TrainState.step = noted
    if double:
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double
    try:
        _train(method, data, canonical, out)
    finally:
        TrainState.step, torch.Tensor.float = step, single
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)
    return losses


def _train(method, data, canonical, out):
    from dataclasses import replace

    config = replace(CONFIG, memory_mb=0.0, workers=0)
    run = StudentRun(
        data,
        out,
        method=method,
        student=STUDENTS.get(method, "resnet8-half"),
        activation="silu",  # a ReLU flips its derivative where the input is 0 but for rounding
        config=config,
        canonical=canonical if method == "cadistill" else None,
    )
    list(run.records())
    run.finish()


def together(programs, count, arguments):
    """Run the script in that many processes, as torchrun would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    joined = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    joined |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        programs.start(SCRIPT, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **joined)
        for rank in range(count)
    ]
    assert [one.wait() for one in started] == [0] * count, started[0].stderr[-3000:]


@pytest.fixture(scope="module")
def in_two(programs, archive, canonical_of, tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    together(programs, 2, [archive, canonical_of().folder, os.path.dirname(__file__), out])
    return out


def history(out):
    return [unseal(json.loads(line)) for line in (out / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "which", [*((m, False) for m in METHODS), *((m, True) for m in IN_DOUBLE)], ids=str
)
def test_the_curve_is_that_of_one_process(in_two, data, canonical_of, tmp_path, which):
    """In float64 too: what is left in float32 is rounding, and no other loss."""
    method, double = which
    mine = trained(method, data, canonical_of(), tmp_path, double)
    there, within = in_two / f"{method}-{double}", 1e-9 if double else 1e-5
    theirs = json.loads((there / "losses.json").read_text())
    assert len(mine) == len(theirs) == 8
    for one, two in zip(mine, theirs, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, abs=within, rel=0)
    for one, two in zip(history(tmp_path), history(there), strict=True):
        assert one["train"] == pytest.approx(two["train"], abs=max(within, 1.01e-5))  # as written
    a, b = (
        torch.load(out / "checkpoint.pt", weights_only=True)["method"] for out in (tmp_path, there)
    )
    assert a.keys() == b.keys()
    moved = 0.0
    for name, value in a.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            assert torch.allclose(value, b[name], atol=2 * within, rtol=0), name
            moved = max(moved, float((value - b[name]).abs().max()))
    assert moved > 0  # the sums were taken in another order: it was not one process


def test_shares_are_as_array_split_cuts():
    for rows in range(12):
        for processes in range(1, 5):
            cut = np.array_split(np.arange(rows), processes)
            for rank in range(processes):
                assert np.arange(rows)[Shares(rank, processes).of(rows)].tolist() == list(cut[rank])
