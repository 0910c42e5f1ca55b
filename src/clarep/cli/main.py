"""The `clarep` command: parse, call, print, and turn a user's mistake into one sentence."""

import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Protocol, Union, runtime_checkable

import tyro

import clarep
from clarep.cli.declared import declared
from clarep.cli.terminal import options_of, say, terminal_of
from clarep.engine.bounds import check_bounds
from clarep.engine.printable import one_line
from clarep.errors import UserError, unknown_name

# A new command is one entry here: the module of clarep.cli and the class in it. One that goes on
# after a kill is in _RESUMABLE too.
_PLACES = {
    "demo": "demo.Demo",
    "data": "data.Data",
    "train-teacher": "train_teacher.TrainTeacher",
    "card": "card.Card",
    "bench": "bench.Bench",
    "identify": "identify.Identify",
    "select": "select.Select",
    "audit": "audit.Audit",
    "distill": "distill.Distill",
    "evaluate": "evaluate.Evaluate",
    "compare": "compare.Compare",
    "run": "run_recipe.RunRecipe",
    "report": "report.Report",
    "doctor": "doctor.Doctor",
    "verify": "verify.Verify",
    "explore": "explore.Explore",
    "export": "export.Export",
    "convert": "convert.Convert",
}
_RESUMABLE = (
    *("demo", "train-teacher", "identify", "select", "audit"),
    *("distill", "evaluate", "run"),
)


def _declared(name: str) -> Any:
    module, kind = _PLACES[name].split(".")
    return declared(f"clarep.cli.{module}", kind)


def _imported(name: str) -> Any:
    module, kind = _PLACES[name].split(".")
    return getattr(import_module(f"clarep.cli.{module}"), kind)


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PLACE = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
_CANNOT_WRITE = _NO_SPACE | _NO_PLACE | {errno.EACCES, errno.EPERM, errno.EROFS}


@runtime_checkable
class Command(Protocol):
    """What every file of this package offers: a frozen dataclass that can be run."""

    def run(self) -> int | None:
        """Do what the command says; return the exit code if it is not 0."""


def _parse(arguments: Sequence[str]) -> Command:
    """Return the command; raises SystemExit after help and where the parser sees a mistake."""
    if arguments == ["--version"]:
        print(f"clarep {clarep.__version__}")
        raise SystemExit
    name = arguments[0]
    if name == "--completion":
        from clarep.cli.completion import completion

        print(completion(arguments[1:], _build_all))
        raise SystemExit
    if name in ("--help", "-h"):
        _build_all(arguments)
    if name not in _PLACES:
        raise unknown_name("command", name, _PLACES)
    # What a command runs on takes seconds to import: not before all is right.
    _build(arguments, {name: _declared(name)})
    command: Command = _build(arguments, {name: _imported(name)})
    return command


def _build_all(arguments: Sequence[str]) -> Any:
    return _build(arguments, {command: _declared(command) for command in _PLACES})


def _build(arguments: Sequence[str], kinds: Mapping[str, type]) -> Any:
    # The suppressed None makes a table of one command a union too.
    members = (
        *(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in kinds.items()),
        Annotated[None, tyro.conf.Suppress],
    )
    union: Any = Union[members]  # noqa: UP007 - X | Y cannot take members known at run time
    return tyro.cli(
        union,
        prog="clarep",
        description="Canonical latent representations of class-conditional diffusion models. "
        "clarep --version tells which clarep this is, and clarep --completion bash prints what "
        "lets a shell complete commands and options (zsh too).",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def _one_sentence(boxed: str, command: str) -> str:
    """Flatten the parser's message from its box: what is wrong, and what would be right."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    lines = [re.sub("^(│ |  )", "", line.rstrip("│ ")) for line in plain.splitlines()[1:]]
    found = [part.strip("\n") for part in re.split(r" *[╰─-]{9,}", "\n".join(lines))]
    parts = [part.split("\n\n")[0] for part in found if part.strip("╯\n")]
    message, *mends = [re.sub(r"\n {8}.*", "", part).rstrip(".") for part in parts]
    said = ": ".join((message, *(mends[:-1] or mends)))  # the pointer to the help if nothing else
    said = re.sub("For full helptext.*", f"see clarep {command} --help", said, flags=re.DOTALL)
    said = re.sub(r"\s+", " ", said)
    # Of the option's help, what it takes and its default: the prose begins with a capital.
    of_help = r"Argument helptext: (--\S+ .*?) [A-Z][a-z ].*?( \(default: [^()]*\))?$"
    return re.sub(of_help, r"give \1\2", said)


def _cannot_write(error: OSError) -> str:
    """Say what cannot be written and how to mend it."""
    named = error.filename is not None  # else it is stdout's, or a library's
    path = error.filename if named else "what is printed, or a temporary file"
    mend = (
        "free some space and run the same command again; what is stored stays valid"
        if error.errno in _NO_SPACE
        else "give another --out, or mend the path or its permissions"
    )
    return f"cannot write {path} ({error.strerror}): {mend}"


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: to be told apart from Ctrl-C at the end, and from nowhere else."""


@contextlib.contextmanager
def _stops_are_heard() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does; a second one ends the process at once.

    Either may come while a finaliser runs, where Python drops what is raised: it is raised again.
    """

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated

    def dropped(what: Any) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            hook(what)
            return

        def again(*_: object) -> None:
            raise what.exc_type

        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    hook, before = sys.unraisablehook, signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = hook


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns 0 when done, 2 after a user's mistake, 130 after Ctrl-C, 143 after SIGTERM, 141 where
    nobody reads the output any more (`clarep --help | head`).
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _stops_are_heard():
            code = _main(given)
            sys.stdout.flush()
    except BrokenPipeError:
        _print_no_more()
        return 141
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        say(_cannot_write(error))
        if error.filename is None:
            _print_no_more()
        return 2
    except KeyboardInterrupt as stop:
        is_resumable = bool(given) and given[0] in _RESUMABLE
        goes_on = "; the same command goes on where it stopped" if is_resumable else ""
        say(f"stopped{goes_on}")
        return 143 if isinstance(stop, _Terminated) else 130
    return code


def _print_no_more() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain at its end."""
    with contextlib.suppress(io.UnsupportedOperation):  # a stream in memory
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(given: list[str]) -> int:
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            command = _parse(given or ["--help"])
    except UserError as mistake:
        say(str(mistake))
        return 2
    except SystemExit as stop:
        if stop.code in (0, None):
            return 0
        harmless = [one_line(word) for word in given]
        if harmless != given:  # the parser's box would swallow what steers a terminal
            return _main(harmless)
        say(_one_sentence(caught.getvalue(), given[0]))
        return 2
    with terminal_of(options_of(command)):
        return _run(command)


def _run(command: Command) -> int:
    try:
        check_bounds(command)
        return command.run() or 0
    except UserError as mistake:
        say(str(mistake))
        return 2


if __name__ == "__main__":  # accelerate launch -m clarep.cli.main distill ...
    sys.exit(main())
