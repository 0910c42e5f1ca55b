"""`clarep convert`: a foreign checkpoint that clarep does not open becomes one that it does."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from clarep.cli.terminal import note, warn
from clarep.errors import UserError
from clarep.teachers.families.edm_convert import convert


@dataclass(frozen=True)
class Edm:
    """Make a .safetensors file of the pickle of an EDM network, for --teacher edm:FILE.

    A pickle can run any code when it is opened. This one is read by a reader that runs nothing of
    it, in a process without network; that is no sandbox.
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE.pkl")]
    """The pickle, as NVlabs' edm repository publishes or trains it."""
    out: Path
    """The file to write, a .safetensors."""
    i_trust_this_file: bool = False
    """Say that you know where the pickle comes from; nothing is read without it."""
    json: bool = False
    """Print one JSON object instead of lines."""

    def run(self) -> None:
        """Convert in a process of its own, and say what was written."""
        self._check()
        warn(
            f"{self.file} is a PICKLE: opened in the usual way it could run ANY code as you; it is "
            "read here by a reader that refuses all but tensors and numbers, in a process of its "
            "own without network, which is NO sandbox: convert files of a known origin alone"
        )
        answer = convert(self.file, self.out)
        if not answer["offline"]:
            note(
                "this system does not let a process be cut off from the network (unshare --net); "
                "Python's sockets alone were closed in it"
            )
        if self.json:
            print(json.dumps({"wrote": str(self.out)} | answer, indent=2))
            return
        print(f"{answer['weights']} weights; wrote {self.out}")
        print(f"use it with --teacher edm:{self.out}")

    def _check(self) -> None:
        """Raise UserError for what is not even to be tried."""
        if not self.file.is_file():
            raise UserError(f"there is no file {self.file}: give a pickle of an EDM network")
        if self.out.suffix != ".safetensors":
            raise UserError(
                f"--out {self.out} is no .safetensors: give a name that ends in .safetensors"
            )
        if self.out.exists() and self.out.samefile(self.file):
            raise UserError(f"--out {self.out} is the pickle itself: give another name")
        if not self.i_trust_this_file:
            raise UserError(
                f"{self.file} is a pickle, which can run any code when it is opened: if you know "
                "where it comes from, add --i-trust-this-file"
            )


@dataclass(frozen=True)
class Convert:
    """Make a file that clarep opens of a checkpoint that it does not."""

    # The suppressed None makes this a union, from which tyro builds subcommands.
    family: Annotated[Edm, tyro.conf.subcommand("edm")] | Annotated[None, tyro.conf.Suppress]
    """Of which family the checkpoint is."""

    def run(self) -> None:
        """Do what the subcommand says."""
        if self.family is not None:
            self.family.run()
