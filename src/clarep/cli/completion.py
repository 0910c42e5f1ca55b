"""`clarep --completion SHELL`: a script by which a shell completes commands and options."""

import contextlib
import io
from collections.abc import Callable, Sequence

from clarep.errors import UserError, unknown_name

SHELLS = ("bash", "zsh")
_SPEC = "COMPLETION_SPEC = "


def completion(shell: Sequence[str], build: Callable[[Sequence[str]], object]) -> str:
    """Return a shell's script. build: parses arguments by the parser of all commands.

    Raises UserError for another shell, or none.
    """
    if len(shell) != 1:
        raise UserError(f"--completion takes a shell: give {', '.join(SHELLS)}")
    if shell[0] not in SHELLS:
        raise unknown_name("shell", shell[0], SHELLS)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        build(["--tyro-print-completion", shell[0]])
    # The script offers every line of an option's help as one more word: leave it one line.
    lines = printed.getvalue().splitlines()
    return "\n".join(one.replace("\\n", " ") if one.startswith(_SPEC) else one for one in lines)
