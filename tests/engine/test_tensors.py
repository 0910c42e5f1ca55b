import subprocess
import sys

import torch
from safetensors import safe_open

from clarep.engine.tensors import save_tensors

_SAVE = """
import sys, torch
from pathlib import Path
from clarep.engine.tensors import save_tensors
save_tensors(Path(sys.argv[1]), {"w": torch.arange(7.0)}, {c: c for c in "edcba"})
"""


def test_every_process_writes_the_same_bytes(tmp_path):
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for path in paths:
        subprocess.run([sys.executable, "-c", _SAVE, str(path)], check=True)
    assert len({path.read_bytes() for path in paths}) == 1
    with safe_open(paths[0], framework="pt") as archive:
        assert archive.metadata() == {c: c for c in "abcde"}
        assert torch.equal(archive.get_tensor("w"), torch.arange(7.0))


def test_tensors_that_are_not_contiguous_are_stored(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3).T
    save_tensors(tmp_path / "t.safetensors", {"t": tensor})
    with safe_open(tmp_path / "t.safetensors", framework="pt") as archive:
        assert torch.equal(archive.get_tensor("t"), tensor)
