import os
import random
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from clarep.engine.tensors import check_weights, read_tensors, save_tensors
from clarep.errors import UserError

_SAVE = """
import sys, torch
from pathlib import Path
from clarep.engine.tensors import save_tensors
save_tensors(Path(sys.argv[1]), {"w": torch.arange(7.0)}, {c: c for c in "edcba"})
"""


def test_every_process_writes_the_same_bytes(tmp_path):
    """Each hashes texts in its own way, and so orders sets of them."""
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for i, path in enumerate(paths):
        environment = os.environ | {"PYTHONHASHSEED": str(i + 1)}
        subprocess.run([sys.executable, "-c", _SAVE, str(path)], check=True, env=environment)
    assert len({path.read_bytes() for path in paths}) == 1
    with safe_open(paths[0], framework="pt") as archive:
        assert archive.metadata().items() >= {c: c for c in "abcde"}.items()
        assert torch.equal(archive.get_tensor("w"), torch.arange(7.0))


def test_tensors_that_are_not_contiguous_are_stored(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3).T
    save_tensors(tmp_path / "t.safetensors", {"t": tensor})
    with safe_open(tmp_path / "t.safetensors", framework="pt") as archive:
        assert torch.equal(archive.get_tensor("t"), tensor)


def test_every_flipped_bit_of_a_tensor_is_told(tmp_path):
    path, tensors = tmp_path / "t.safetensors", {"a": torch.arange(99.0), "b": torch.ones(3)}
    save_tensors(path, tensors, {"kind": "x"})
    found, metadata = read_tensors(path, "a thing")
    assert metadata["kind"] == "x" and torch.equal(found["a"], tensors["a"])
    whole, drawn = path.read_bytes(), random.Random(0)
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[drawn.randrange(len(whole) - 4 * 102, len(whole))] ^= 1 << drawn.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot read a thing .*SHA-256"):
            read_tensors(path, "a thing")


def test_a_file_of_somebody_elses_has_no_hash_to_check(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "t.safetensors")
    assert torch.equal(read_tensors(tmp_path / "t.safetensors", "x")[0]["a"], torch.ones(2))


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 100, b"{}"])
def test_what_is_no_such_file_is_one_sentence(tmp_path, content):
    (tmp_path / "t.safetensors").write_bytes(content)
    for name in ("t.safetensors", "none.safetensors"):
        with pytest.raises(UserError, match="cannot read a thing from"):
            read_tensors(tmp_path / name, "a thing")


NETWORK = nn.BatchNorm1d(3)  # weights, and a count


@pytest.mark.parametrize(
    ("name", "bad", "word"),
    [
        ("weight", torch.tensor([1.0, float("nan"), 1.0]), "weight of it hold NaN"),
        ("running_var", torch.tensor([1.0, 1.0, float("inf")]).half(), "running_var of it hold"),
        ("bias", torch.ones(3, dtype=torch.int8), r"bias of it are torch\.int8"),
        ("weight", torch.ones(3, dtype=torch.complex64), r"weight of it are torch\.complex64"),
        ("num_batches_tracked", torch.tensor(1.5), "num_batches_tracked of it are"),
    ],
)
def test_weights_that_cannot_be_computed_with_are_named(name, bad, word):
    whole = NETWORK.state_dict()
    check_weights({"weight": whole["weight"].half()}, NETWORK, "it")
    check_weights(whole | {"another": torch.tensor([float("nan")])}, NETWORK, "it")
    with pytest.raises(UserError, match=word):
        check_weights(whole | {name: bad}, NETWORK, "it")
