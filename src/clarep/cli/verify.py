"""`clarep verify`: what is wrong with what clarep wrote, a line each."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from clarep.cli.option_groups import DataOptionsGroup
from clarep.cli.terminal import in_own_options
from clarep.data.load import DataConfig, DataOptions, load_data
from clarep.engine.printable import one_line
from clarep.errors import UserError
from clarep.report.verify.check_path import check_path, close_sets, left_wrong, mend_path
from clarep.report.verify.faults import Fault


@dataclass(frozen=True)
class Verify:
    """Check a canonical set, run, teacher, evaluation, audit or study, all that lies in a folder.

    Hashes, ranges, NaN, duplicates, counts, and what files say of each other: a line for each thing
    that is wrong, and exit code 1; after --repair, exit code 0 where nothing is left wrong and the
    command that wrote it can go on.
    """

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PATH")]
    """Folder or file that clarep wrote, or the address of a canonical set."""
    data: str | None = None
    """Images that it is said to be of: a name or a path. Hold what was recorded against them."""
    options: DataOptionsGroup = field(default_factory=DataOptions)
    repair: bool = False
    """Delete what is broken and write manifests of what is whole, so that the command that wrote it
    makes just the rest again."""
    finish: bool = False
    """Close canonical sets whose parts are all there."""
    json: bool = False
    """Print one JSON object instead of lines."""

    def run(self) -> int:
        """Check, mend if asked, print; return the exit code."""
        data = None
        if self.data is None and self.options != DataOptions():
            raise UserError(
                "options of the data are given and no --data is, so that nothing would be held "
                "against them: give it, or leave them out"
            )
        if self.data is not None:
            data = load_data(DataConfig(data=self.data, **vars(self.options)))
        done = close_sets(self.path) if self.finish else []
        found = check_path(self.path, data)
        faults = left = found.faults
        if self.repair and faults:
            done += mend_path(self.path, found)
            left = left_wrong(self.path, found, data)
        counts = {kind: count for kind, count in found.counts.items() if count}
        if self.json:
            told = {"checked": counts, "faults": _told(faults), "done": done, "left": _told(left)}
            print(json.dumps(told, indent=2))
        else:
            for fault in faults:
                print(one_line(f"{fault.path}: {in_own_options(fault.what)}"))
            for line in done:
                print(one_line(line))
            checked = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            print(
                f"checked {checked}: {len(faults) or 'nothing'} wrong{self._what_next(left, done)}"
            )
        return 1 if left else 0

    def _what_next(self, left: list[Fault], done: list[str]) -> str:
        """Say what became of what was wrong, behind how much that was."""
        if not self.repair:
            return "; --repair takes away what can be made again" if left and not done else ""
        if left:
            places = ", ".join(dict.fromkeys(one_line(fault.path) for fault in left))
            return f", {len(left)} left: {places}"
        return ", nothing left: the command that wrote it makes the rest" if done else ""


def _told(faults: list[Fault]) -> list[dict[str, str]]:
    return [{"path": fault.path, "what": in_own_options(fault.what)} for fault in faults]
