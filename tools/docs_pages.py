"""mkdocs hook: pages that are made from the code, every command's help and every public name."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import clarep
from clarep.cli.main import _PLACES, _imported, main

ROOMS = {
    "CLARID": "clarid",
    "Choosing and checking": "select audit",
    "Data": "data",
    "Teachers": "teachers",
    "Students and their training": "students distill",
    "Measures and reports": "robustness study report",
    "The rest": "engine errors",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add commands.md and api.md."""
    files.append(File.generated(config, "commands.md", content=commands()))
    files.append(File.generated(config, "api.md", content=api()))
    return files


def commands() -> str:
    """Return the page of the command line: what each command's --help prints."""
    rows = [f"| [`{name}`](#clarep-{name}) | {_summary(name)} |" for name in _PLACES]
    table = "\n".join(["| clarep … | |", "|---|---|", *rows])
    parts = [f"# Command line\n\n{table}\n\nWhat `--help` prints of each:\n"]
    for name in _PLACES:
        for words in (name, *inner(name)):
            parts.append(f"## clarep {words}\n\n```text\n{help_of(words)}\n```\n")
    return "\n".join(parts)


def _summary(name: str) -> str:
    return str(_imported(name).__doc__).split("\n\n")[0].replace("\n", " ").strip()


def help_of(words: str) -> str:
    """Return the help of a command, as a terminal of 100 columns shows it."""
    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main([*words.split(), "--help"])
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).strip()


def inner(name: str) -> Iterator[str]:
    """Yield the commands of a command that has some, such as bench."""
    named = re.search(r"^usage: .*\{([\w,-]+)\}", help_of(name))
    yield from (f"{name} {one}" for one in (named[1].split(",") if named else ()))


def api() -> str:
    """Return the page of the public names, by room; fails for one without a docstring."""
    room_of = {name: _module(name).split(".")[1] for name in clarep.__all__}
    parts = ["# Python\n\n`import clarep` gives these names.\n"]
    for heading, rooms in ROOMS.items():
        names = [name for name in clarep.__all__ if room_of[name] in rooms.split()]
        parts.append(f"## {heading}\n")
        parts += [f"::: {_module(name)}.{name}\n" for name in names if name != "audit"]
        if "audit" in names:
            parts.append("::: clarep.audit.audit_run.audit\n")
    bare = [name for name in clarep.__all__ if not (getattr(clarep, name).__doc__ or "").strip()]
    left = [name for name in clarep.__all__ if room_of[name] not in " ".join(ROOMS.values())]
    if bare or left:
        raise PluginError(f"public names without a docstring: {bare}; in no section: {left}")
    return "\n".join(parts)


def _module(name: str) -> str:
    found: Any = getattr(clarep, name)
    return str(getattr(found, "__module__", None) or found.__name__)
