"""Help, mistakes and the version come without torch, and say what the real commands say."""

import subprocess
import sys

import pytest

import clarep
from clarep.cli.main import _PLACES, _build, _imported, main

DEEPER = {"data": ["show"], "bench": ["subspace", "distill"], "convert": ["edm"]}
WORDS = [
    (name, *deeper) for name in _PLACES for deeper in [(), *([d] for d in DEEPER.get(name, ()))]
]


def test_help_mistakes_and_version_import_nothing_heavy():
    asked = [["--help"], [], ["--version"], *([*words, "--help"] for words in WORDS)]
    wrong = [
        ["idntify"],
        *([*words, "--zzz"] for words in WORDS),
        ["identify", "--k"],
        ["evaluate"],
    ]
    code = f"""
import sys
from clarep.cli.main import main
for arguments in {asked!r}:
    assert main(arguments) == 0, arguments
for arguments in {wrong!r}:
    assert main(arguments) == 2, arguments
heavy = "torch numpy scipy PIL safetensors matplotlib jaxtyping".split()
print(*[name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_the_help_is_that_of_the_command_itself(words, capsys: pytest.CaptureFixture[str]):
    assert main([*words, "--help"]) == 0
    told = capsys.readouterr().out
    with pytest.raises(SystemExit):
        _build([*words, "--help"], {words[0]: _imported(words[0])})
    assert told == capsys.readouterr().out
    assert told.startswith(f"usage: clarep {' '.join(words)} ")


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"clarep {clarep.__version__}\n"
