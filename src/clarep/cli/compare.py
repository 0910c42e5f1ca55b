"""`clarep compare`: trained and evaluated students side by side, with tests against vanilla."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from clarep.report.comparison_table import comparison_json, comparison_table, write_comparison
from clarep.robustness.measures import DEFAULT_MEASURES
from clarep.study.comparison import compare
from clarep.study.runs import read_run


@dataclass(frozen=True)
class Compare:
    """Compare evaluated runs: mean and interval of every measure, differences from vanilla.

    Runs of one method are averaged over their seeds.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Folders of runs, each with student/ and robustness/."""
    measures: tuple[str, ...] = DEFAULT_MEASURES
    """Columns: names of measures, or patterns such as corruption/*/mean."""
    reference: str | None = None
    """Method, or name in a recipe, that the others are compared with; without it, vanilla where
    there is such a run."""
    out: Path | None = None
    """Folder for table.md, table.csv and table.json."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> None:
        """Read, compare, print, and write where a folder was given."""
        given = None if self.measures == DEFAULT_MEASURES else self.measures
        compared = compare([read_run(folder) for folder in self.runs], given, self.reference)
        if self.json:
            print(json.dumps(comparison_json(compared), indent=2))
        else:
            print(comparison_table(compared))
        if self.out is not None:
            written = write_comparison(compared, self.out)
            if not self.json:
                print(f"table in {written['md']}")
