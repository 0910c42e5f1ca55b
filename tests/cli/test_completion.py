"""What `clarep --completion` prints, asked by a shell itself."""

import shutil
import subprocess

import pytest

from clarep.cli.completion import SHELLS
from clarep.cli.main import main

ASKED = """
source "$1"; shift
COMP_WORDS=(clarep "$@"); COMP_CWORD=$#
_tyro_clarep
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("completion") / "clarep"
    with pytest.MonkeyPatch.context() as patch, open(path, "w") as stream:
        patch.setattr("sys.stdout", stream)
        assert main(["--completion", "bash"]) == 0
    return str(path)


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_that_the_shell_can_read(shell, capsys, tmp_path):
    assert main(["--completion", shell]) == 0
    script = capsys.readouterr().out
    assert "identify" in script and "--canon" in script
    if shutil.which(shell) is None:
        return
    (tmp_path / "script").write_text(script)
    subprocess.run([shell, "-n", tmp_path / "script"], check=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["iden"], ["identify"]),
        (["distill", "--meth"], ["--method"]),  # whose help has several lines
        (["identify", "--kind", "ma"], ["mask"]),
        (["bench", "sc"], ["scale"]),
    ],
)
def test_bash_completes(words, offered, bash_script):
    asked = ["bash", "-c", ASKED, "bash", bash_script, *words]
    found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.split("\n")[:-1] == offered


@pytest.mark.parametrize("wrong", [[], ["fish"], ["bash", "zsh"]])
def test_another_shell_is_refused(wrong, capsys):
    assert main(["--completion", *wrong]) == 2
    assert "bash" in capsys.readouterr().err
