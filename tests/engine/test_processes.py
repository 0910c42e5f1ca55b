"""Launched processes that accelerate does not join would train alone into one folder."""

import os
import subprocess
import sys

_MAKE = """
from clarep.engine.processes import make_accelerator
from clarep.errors import UserError
try:
    make_accelerator("no")
except UserError as mistake:
    print(mistake)
"""


def said(code: str = _MAKE, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_launched_processes_that_are_not_joined_are_refused():
    # Half of what torchrun sets, as a scheduler may leave it.
    launched = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    assert "2 processes cannot be joined" in said(**launched)


def test_one_process_needs_nothing():
    assert said() == ""
    hidden = "import sys; sys.modules['accelerate'] = sys.modules['tensorboard'] = None\n"
    assert said(code=hidden + _MAKE) == ""
