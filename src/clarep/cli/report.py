"""`clarep report`: one HTML page of what a set of runs measured."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from clarep.cli.terminal import note
from clarep.report.html import build_report


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about trained and evaluated students.

    What a run lacks is left out; the page, and a note on stderr, say which command gives it.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, as clarep distill and clarep evaluate wrote them."""
    canon: Path | None = None
    """Canonical set to show beside them: a folder that clarep identify wrote, or its canon/;
    without it, the canon/ in a run's folder, if there is one."""
    audit: Path | None = None
    """Audit to show beside them: a folder that clarep audit wrote; without it, that of the study
    whose runs these are, if it has one."""
    out: Path = Path("runs/report")
    """Folder of the report: index.html, and its numbers in data/."""
    title: str | None = None
    """Heading of the page, in front of the day of the last run; by default methods and data."""
    json: bool = False
    """Print one JSON object instead of a line."""

    def run(self) -> None:
        """Build the page and say where it is."""
        page = build_report(
            self.runs, self.canon, self.out, self.title, tell=note, audit=self.audit
        )
        if self.json:
            print(json.dumps({"wrote": {"report": str(page), "data": str(self.out / "data")}}))
            return
        print(f"report in {page}")
        print(f"its numbers in {self.out / 'data'}")
