"""What is told of a mistaken command line, and that what is right passes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from clarep.cli.main import _COMMANDS, main
from clarep.cli.mistakes import _check_options, _options, _subcommands, check_arguments
from clarep.errors import UserError


@dataclass(frozen=True)
class Inner:
    steps: int = 8
    rate: float | None = None
    mirrored: bool = True


PLAIN = Inner(steps=9, mirrored=False)


@dataclass(frozen=True)
class Jump:
    inner: Inner = field(default_factory=lambda: PLAIN)
    flat: Annotated[Inner, tyro.conf.arg(name="")] = PLAIN


@dataclass(frozen=True)
class Walk:
    names: Annotated[tuple[Path, ...], tyro.conf.Positional]
    train: Inner = field(default_factory=Inner)
    plain: bool = False


@dataclass(frozen=True)
class Run:
    flat: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)
    kind: Literal["top", "none"] = "top"
    k: int | float | str = 0.04
    ks: tuple[int, ...] = (1, 2)
    sizes: tuple[int, ...] | None = None
    out_dir: Path = Path("runs")
    json: bool = False
    cached: bool = True


@dataclass(frozen=True)
class Group:
    action: Annotated[Run, tyro.conf.subcommand("run")] | Annotated[None, tyro.conf.Suppress]


COMMANDS = {"run": Run, "walk": Walk, "group": Group, "jump": Jump}


@pytest.mark.parametrize(
    "right",
    [
        "",
        "--help",
        "run --help --nonsense",
        "run --steps 3 --rate 0.5 --kind none --k energy:0.8 --ks 1 2 3 --out-dir x --json",
        "run --rate None --k=-1 --steps -1 --rate -1e-3 --ks -1 -2",
        "run --out_dir x --no-cached --ks",
        "run --sizes 1 2 3",
        "run --sizes None",
        "walk a b --train.steps 3 --train.no-mirrored --plain c",
        "walk --plain a b",
        "group run --steps 3",
        "group --help",
        "jump --inner.mirrored --mirrored --steps 3",  # the defaults are those of the instance
        "walk",  # what lacks is the parser's to tell
    ],
)
def test_what_is_right_passes(right: str):
    check_arguments(right.split(), COMMANDS)


WRONG = {
    "wlak a": "there is no command wlak: did you mean walk? valid are run, walk, group, jump",
    "zzz": "there is no command zzz: valid are run, walk, group, jump",
    "--steps 3": "there is no option --steps before the command: valid are run, walk, group, jump",
    "group": "group needs to be told what to do: give one of run",
    "group rnu": "there is no command group rnu: did you mean run? valid are run",
    "run --stesp 3": "run has no option --stesp: did you mean --steps?",
    "run --zzz": "run has no option --zzz: clarep run --help lists them",
    "run --train.steps 3": "run has no option --train.steps: did you mean --steps?",
    "group run --stesp 3": "group run has no option --stesp: did you mean --steps?",
    "walk a --train.stepss 3": "walk has no option --train.stepss: did you mean --train.steps?",
    "run --cached": "run has no option --cached: did you mean --no-cached?",
    "jump --no-mirrored": "jump has no option --no-mirrored: did you mean --mirrored?",
    "jump --steps": "--steps lacks its value: give a whole number, such as 9",
    "run --steps": "--steps lacks its value: give a whole number, such as 8",
    "run --steps --json": "--steps lacks its value: give a whole number, such as 8",
    "run --rate": "--rate lacks its value: give a number",
    "run --k": "--k lacks its value: give a value, such as 0.04",
    "run --out-dir": "--out-dir lacks its value: give a path, such as runs",
    "run --kind": "--kind lacks its value: give one of top, none",
    "run --steps 1.5": "--steps cannot be '1.5': give a whole number, such as 8",
    "run --steps=": "--steps cannot be '': give a whole number, such as 8",
    "run --rate x": "--rate cannot be 'x': give a number",
    "run --rate nan": "--rate cannot be 'nan': give a number (finite and below 2^32)",
    "run --rate -inf": "--rate cannot be '-inf': give a number (finite and below 2^32)",
    "run --rate 1e400": "--rate cannot be '1e400': give a number (finite and below 2^32)",
    "run --sizes 1 99999999999": (
        "--sizes cannot be '99999999999': give a whole number (finite and below 2^32)"
    ),
    f"run --steps {'9' * 5000}": (
        f"--steps cannot be '{'9' * 60}...': give a whole number, such as 8 (finite and below 2^32)"
    ),
    "run --kind nnoe": "--kind cannot be 'nnoe': did you mean none? valid are top, none",
    "run --kind zzz": "--kind cannot be 'zzz': valid are top, none",
    "run --ks 1 x": "--ks cannot be 'x': give a whole number, such as 1",
    "run --sizes x": "--sizes cannot be 'x': give a whole number",
    "run --json yes": "--json takes no value and was followed by 'yes': leave that out",
    "run --steps 1 2": "--steps takes one value and was followed by '2': leave that out",
    "run stray": "run takes options alone, and 'stray' is none: clarep run --help lists them",
    "walk a --train.steps x": "--train.steps cannot be 'x': give a whole number, such as 8",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_in_one_sentence(wrong: str):
    with pytest.raises(UserError) as caught:
        check_arguments(wrong.split(), COMMANDS)
    assert str(caught.value) == WRONG[wrong]


def test_the_command_line_says_it_and_returns_2(capsys: pytest.CaptureFixture[str]):
    assert main(["nosuch"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: there is no command nosuch: valid are demo, ")
    assert printed.err.count("\n") == 1
    assert main(["identify", "--fracton", "0.1"]) == 2
    told = "clarep: identify has no option --fracton: did you mean --fraction?\n"
    assert capsys.readouterr().err == told


def test_bare_it_prints_the_help(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    printed = capsys.readouterr()
    assert "identify" in printed.out
    assert printed.err == ""


def test_no_numeric_option_of_any_command_takes_nan_or_infinity():
    """What may be a text too (k = energy:0.8) is its owner's to refuse."""
    tried = 0
    for name, kind in _COMMANDS.items():
        for words, command in {name: kind, **_subcommands(kind)}.items():
            options, _ = _options(command)
            for option, declared in options.items():
                if float not in declared.alternatives and int not in declared.alternatives:
                    continue
                for value in ("nan", "inf", "-inf", "10000000000000"):
                    tried += 1
                    if str in declared.alternatives:
                        assert option in ("--k", "--ks")
                        continue
                    with pytest.raises(UserError, match=f"^{option} cannot be '{value}'"):
                        _check_options(words, [option, value], command)
    assert tried > 400


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_is_read_without_an_error(name: str):
    """Of each command all options are known: one that is not is told so, by its name."""
    deeper = {"data": "data show", "bench": "bench subspace", "convert": "convert edm"}
    words = deeper.get(name, name)
    with pytest.raises(UserError, match=f"^{words} has no option --zzzzzz: "):
        check_arguments([*words.split(), "--zzzzzz"], _COMMANDS)


def test_one_command_imports_no_other():
    code = """
import sys
from clarep.cli.main import _imported
_imported("identify")
print(*sorted(name for name in sys.modules if name.startswith("clarep.cli.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = ("declared", "identify", "main", "mistakes", "shared", "terminal")
    assert done.stdout.split() == [f"clarep.cli.{name}" for name in expected]


GOES_ON = {"demo", "train-teacher", "identify", "select", "distill", "evaluate", "run"}


@pytest.mark.parametrize("name", _COMMANDS)
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_tells_what_goes_on(name: str, sign, code: int, capsys, monkeypatch):
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
