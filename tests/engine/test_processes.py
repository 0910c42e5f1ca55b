"""Launched processes that accelerate does not join would train alone into one folder."""

_MAKE = """
from clarep.engine.processes import make_accelerator
from clarep.errors import UserError
try:
    make_accelerator("no")
except UserError as mistake:
    print(mistake)
"""


def said(programs, code: str = _MAKE, **environment: str) -> str:
    done = programs.run(code, CUDA_VISIBLE_DEVICES="", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_launched_processes_that_are_not_joined_are_refused(programs):
    # Half of what torchrun sets, as a scheduler may leave it.
    launched = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    assert "2 processes cannot be joined" in said(programs, **launched)


def test_one_process_needs_nothing(programs):
    assert said(programs) == ""
    hidden = "import sys; sys.modules['accelerate'] = sys.modules['tensorboard'] = None\n"
    assert said(programs, code=hidden + _MAKE) == ""
