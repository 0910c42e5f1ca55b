"""What is told of a mistaken command line, and that what is right passes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from clarep.cli.main import _PLACES, main

WRONG = {  # arguments -> the value or option, and what would be right
    "idntify": ("idntify", "did you mean identify"),
    "zzz": ("zzz", "valid are demo, data"),
    "--steps 3": ("--steps", "valid are demo, data"),
    "data": ("show",),
    "data shwo": ("shwo", "show"),
    "bench": ("subspace", "distill"),
    "evaluate": ("RUN", "clarep evaluate --help"),
    "convert edm x": ("--out",),
    "identify --fracton 0.1": ("--fracton", "--fraction"),
    "identify --zzz": ("--zzz", "clarep identify --help"),
    "distill --train.epohcs 3": ("--train.epohcs", "--train.epochs"),
    "distill --train.rivals.kd_weihgt 1": ("kd_weihgt", "--train.rivals.kd-weight"),
    "identify stray": ("stray", "clarep identify --help"),
    "identify --steps": ("--steps", "clarep identify --help"),
    "identify --steps --json": ("--steps",),
    "identify --steps 1.5": ("--steps", "'1.5'", "INT", "8"),
    "identify --steps=": ("--steps", "''", "INT"),
    "identify --t x": ("--t", "'x'", "['x']: give --t {None}|FLOAT|{auto} (default: None)\n"),
    f"identify --steps {'9' * 5000}": ("--steps",),
    "identify --kind tpo": ("--kind", "'tpo'", "'top', 'contrast'"),
    "bench subspace --ks 1 x": ("--ks", "'x'", "INT"),
    "identify --json yes": ("yes", "clarep identify --help"),
    "identify --steps 1 2": ("2", "clarep identify --help"),
    "identify --t nan": ("--t nan", "finite and below 2^32"),
    "identify --t -inf": ("--t -inf", "finite and below 2^32"),
    "identify --k 1e400": ("--k inf", "finite and below 2^32"),
    "identify --steps 99999999999": ("--steps 99999999999", "below 2^32", "give 8"),
    "select --seeds 1 99999999999": ("--seeds 99999999999", "below 2^32"),
    "identify --fraction 0": ("--fraction 0", "(0, 1]", "give 0.1"),
    "identify --seed -1": ("--seed -1", "below 0", "give 0"),
    "identify --image-size 0": ("--image-size 0", "below 1"),
    "distill --train.rivals.kd-weight 2": ("--train.rivals.kd-weight 2", "[0, 1]", "0.9"),
    "evaluate x --attack-images 0": ("--attack-images 0", "below 1", "give 500"),
    "evaluate x --pgd-steps 0": ("--pgd-steps 0", "below 1", "give 20"),
    "train-teacher --train.steps 0": ("--train.steps 0", "below 1", "give 6500"),
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong[:40])
def test_what_is_wrong_is_told_in_one_sentence(wrong: str, capsys: pytest.CaptureFixture[str]):
    assert main(wrong.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: ") and printed.err.count("\n") == 1
    assert "helptext" not in printed.err
    for words in WRONG[wrong]:
        assert words in printed.err


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_parser_draws_no_box_around_it(encoding: str):
    code = "import sys; from clarep.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "identify", "--fracton", "0.1"],
        env=os.environ | {"PYTHONIOENCODING": encoding, "FORCE_COLOR": "1", "COLUMNS": "60"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = "clarep: Unrecognized options: --fracton, 0.1: Perhaps you meant: --fraction FLOAT"
    assert (done.returncode, done.stderr.strip()) == (2, told)


def test_bare_it_prints_the_help(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    printed = capsys.readouterr()
    assert "identify" in printed.out
    assert printed.err == ""


def test_one_command_imports_no_other():
    code = """
import sys
from clarep.cli.main import _imported
_imported("identify")
print(*sorted(name for name in sys.modules if name.startswith("clarep.cli.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = ("declared", "identify", "main", "option_groups", "settled_setting", "terminal")
    assert done.stdout.split() == [f"clarep.cli.{name}" for name in expected]


GOES_ON = {"demo", "train-teacher", "identify", "select", "audit", "distill", "evaluate", "run"}


@pytest.mark.parametrize("name", _PLACES)
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_tells_what_goes_on(name: str, sign, code: int, capsys, monkeypatch):
    @dataclass
    class Endless:
        def run(self) -> None:
            os.kill(os.getpid(), sign)
            time.sleep(60)

    monkeypatch.setattr("clarep.cli.main._parse", lambda _: Endless())
    before = signal.getsignal(signal.SIGTERM)
    assert main([name]) == code
    goes_on = "; the same command goes on where it stopped" if name in GOES_ON else ""
    assert capsys.readouterr().err == f"clarep: stopped{goes_on}\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_in_a_finaliser_is_heard(sign, code: int, capsys, monkeypatch):
    class Deaf:
        def __del__(self) -> None:
            os.kill(os.getpid(), sign)
            time.sleep(1)

    @dataclass
    class Endless:
        def run(self) -> None:
            Deaf()
            time.sleep(60)

    monkeypatch.setattr("clarep.cli.main._parse", lambda _: Endless())
    assert main(["identify"]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_process_ends_with_143_however_early_it_is_stopped():
    """At its imports too; and at once where it is told so again while it tidies up."""
    code = """
import os, signal, sys, time
from clarep.cli import main as cli
def imports(name):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        if len(sys.argv) > 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
cli._imported = imports
sys.exit(cli.main(["identify"]))
"""
    once, twice = (
        subprocess.run(
            [sys.executable, "-c", code, *more], capture_output=True, timeout=50, check=False
        )
        for more in ([], ["again"])
    )
    assert (once.returncode, once.stderr.count(b"\n")) == (143, 1)
    assert (twice.returncode, twice.stderr) == (-signal.SIGTERM, b"")


def test_nobody_reads_to_the_end():
    code = (
        "import sys; from clarep.cli.main import main; sys.exit(main(['data', 'show', '--help']))"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    run.stdout.close()
    _, told = run.communicate()
    assert (run.returncode, told) == (141, "")


def test_what_is_printed_finds_no_room():
    code = "import sys; from clarep.cli.main import main; sys.exit(main(['--version']))"
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert run.stderr.startswith("clarep: cannot write what is printed")
