"""The `clarep` command: parse, call, print, and turn a user's mistake into one sentence."""

import contextlib
import errno
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, Union, runtime_checkable

import tyro

from clarep.cli.bench import Bench
from clarep.cli.card import Card
from clarep.cli.compare import Compare
from clarep.cli.data import Data
from clarep.cli.demo import Demo
from clarep.cli.distill import Distill
from clarep.cli.evaluate import Evaluate
from clarep.cli.identify import Identify
from clarep.cli.mistakes import check_arguments
from clarep.cli.report import Report
from clarep.cli.run_recipe import RunRecipe
from clarep.cli.select import Select
from clarep.cli.train_judge import TrainJudge
from clarep.cli.train_teacher import TrainTeacher
from clarep.errors import UserError

# A new command is one entry here, and one in _RESUMABLE if it goes on after a kill.
_COMMANDS: dict[str, type] = {
    "demo": Demo,
    "data": Data,
    "train-teacher": TrainTeacher,
    "train-judge": TrainJudge,
    "card": Card,
    "bench": Bench,
    "identify": Identify,
    "select": Select,
    "distill": Distill,
    "evaluate": Evaluate,
    "compare": Compare,
    "run": RunRecipe,
    "report": Report,
}
_RESUMABLE = (Demo, TrainTeacher, Identify, Select, Distill, Evaluate, RunRecipe)

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_WRITE = (
    *_NO_SPACE,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)


@runtime_checkable
class Command(Protocol):
    """What every file of this package offers: a frozen dataclass that can be run."""

    def run(self) -> None:
        """Do what the command says."""


@dataclass(frozen=True)
class _Mistaken:
    """What was given instead of a command: running it tells the mistake."""

    mistake: UserError

    def run(self) -> None:
        raise self.mistake


def _parse(arguments: Sequence[str]) -> Command:
    try:
        check_arguments(arguments, _COMMANDS)
    except UserError as mistake:
        return _Mistaken(mistake)
    # The suppressed None makes a table of one command a union too.
    members = (
        *(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in _COMMANDS.items()),
        Annotated[None, tyro.conf.Suppress],
    )
    kinds: Any = Union[members]  # noqa: UP007 - X | Y cannot take members known at run time
    command: Command = tyro.cli(
        kinds,
        prog="clarep",
        description="Canonical latent representations of class-conditional diffusion models.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return command


def _one_sentence(boxed: str) -> str:
    """Flatten the parser's boxed message, without frame, title and pointer to the help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    lines = [re.sub(r"[╭╮╰╯│─]+", " ", line).strip() for line in plain.splitlines()[1:]]
    text = " ".join(line for line in lines if line)
    return re.sub(r"\s+", " ", text.split("For full helptext")[0]).strip()


def _cannot_write(error: OSError) -> str:
    """Say what cannot be written and how to mend it."""
    path = f" {error.filename}" if error.filename is not None else ""
    mend = (
        "free some space and run the same command again; what is stored stays valid"
        if error.errno in _NO_SPACE
        else "give another --out, or mend the path or its permissions"
    )
    return f"cannot write{path} ({error.strerror}): {mend}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 when done, 2 after a user's mistake, 130 after Ctrl-C."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            command = _parse(given or ["--help"])
    except SystemExit as stop:
        if stop.code in (0, None):
            return 0
        print(f"clarep: {_one_sentence(caught.getvalue())}", file=sys.stderr)
        return 2
    try:
        command.run()
    except UserError as mistake:
        print(f"clarep: {mistake}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        print(f"clarep: {_cannot_write(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "; the same command goes on where it stopped"
        is_resumable = isinstance(command, _RESUMABLE)
        print(f"clarep: stopped{goes_on if is_resumable else ''}", file=sys.stderr)
        return 130
    return 0
