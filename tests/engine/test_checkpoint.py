import os
import random
from pathlib import Path

import pytest
import torch

from clarep.engine.training_folder import load_checkpoint, save_checkpoint
from clarep.errors import UserError

CONFIG = {"seed": 0, "train": {"steps": 3}}


@pytest.fixture
def path(tmp_path) -> Path:
    save_checkpoint(tmp_path / "checkpoint.pt", {"w": torch.arange(1000.0), "step": 3}, CONFIG)
    return tmp_path / "checkpoint.pt"


def test_what_is_saved_is_loaded_here_and_by_torch(path):
    for found in (load_checkpoint(path, CONFIG), torch.load(path, weights_only=True)):
        assert found["step"] == 3 and torch.equal(found["w"], torch.arange(1000.0))


def test_a_pipe_is_not_waited_for(path):
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*no regular file.*delete it"):
        load_checkpoint(path, CONFIG)


def test_every_flipped_bit_and_every_cut_is_told(path):
    whole, drawn = path.read_bytes(), random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[drawn.randrange(len(whole))] ^= 1 << drawn.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot read the checkpoint .*delete it"):
            load_checkpoint(path, CONFIG)
    for length in (0, 10, 64, len(whole) - 64, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cannot read the checkpoint"):
            load_checkpoint(path, CONFIG)


def test_another_configuration_is_named(path):
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        load_checkpoint(path, CONFIG | {"seed": 1})
