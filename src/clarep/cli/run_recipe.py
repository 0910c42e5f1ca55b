"""`clarep run`: a study from a recipe, building only what is missing, to a table and a report."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from clarep.cli.option_groups import EngineGroup
from clarep.cli.terminal import note, told, warn
from clarep.engine.fan_out import LOCAL, EngineConfig, check_engine
from clarep.engine.lock import hold
from clarep.engine.printable import counted
from clarep.engine.progress import duration, progress
from clarep.errors import UserError
from clarep.report.comparison_table import comparison_table, write_comparison
from clarep.report.html import build_report
from clarep.study.comparison import Comparison, compare
from clarep.study.plan import Study
from clarep.study.recipe import find_recipe, load_recipe
from clarep.study.runs import read_run
from clarep.study.turns import Turn, build_jobs, missing_jobs, walk_silently


@dataclass(frozen=True)
class RunRecipe:
    """Run a study: canonical sets, students, evaluations, one table, one report.

    Only what is missing is built. Killed at any moment, the same command goes on.
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """A .toml file, or the name of a recipe that comes with clarep: demo."""
    out: Path = Path("runs/study")
    """Folder of the study: store/ and runs/ hold what was built, report/ the table and report."""
    engine: EngineGroup = field(default_factory=EngineConfig)
    dry_run: bool = False
    """Print what exists and what would be built, and stop."""

    def run(self) -> None:
        """Plan, build what is missing, compare, report."""
        path = find_recipe(self.recipe)
        recipe = load_recipe(path)
        check_engine(self.engine, recipe.teacher_options.device)
        try:
            study = Study(recipe, self.out)
            print_plan(study)
        except UserError as mistake:  # of a value that only shows beside data and teacher
            raise UserError(f"{path}: {mistake}") from mistake
        if not self.dry_run:
            _lock = hold(self.out)
            build_missing(study, self.engine)
            finish(study, self.out / "report")


def print_plan(study: Study) -> None:
    """Print every job, and whether it exists already."""
    recipe, missing = study.recipe, missing_jobs(study)
    print(
        f"recipe {recipe.name}: {counted(len(recipe.variants), 'method')}, "
        f"{counted(len(recipe.seeds), 'seed')}; {len(study.jobs) - len(missing)} of "
        f"{counted(len(study.jobs), 'part')} exist, {len(missing)} to build"
    )
    for job in study.jobs:
        state = "build" if job in missing else "exists"
        print(f"  {state:7}{job.kind:14}{job.name:32}{job.folder}")
    told(study.data)
    if study.left_out:
        note(study.left_out)
    if study.seen:
        warn(f"{study.seen}: give other images in [test], or remove them")


def build_missing(study: Study, engine: EngineConfig = LOCAL) -> None:
    """Build what is missing, with progress on stderr."""
    if engine.engine == "local":
        for _ in build_jobs(study, _walk):  # each job tells its own
            pass
        return
    # Beside each other, jobs would tell it on top of each other, and on other machines to nobody.
    missing = len(missing_jobs(study))
    with progress("run", "parts", missing, even=False) as advance:
        for job in build_jobs(study, walk_silently, engine):
            advance(1, f"{job.kind} {job.name}")


def finish(study: Study, folder: Path) -> Comparison:
    """Compare the study's runs, write and print the table, and make the report."""
    compared = compare([read_run(run) for run in study.runs])
    tables = write_comparison(compared, folder)
    report = build_report(
        list(study.runs),
        study.canonical,
        folder,
        f"Study {study.recipe.name}",
        audit=None if study.audit is None else study.audit.folder,
    )
    print(comparison_table(compared))
    print(f"table in {tables['md']}, {tables['csv'].name} and {tables['json'].name}")
    print(f"report in {report}")
    return compared


def _walk(turn: Turn) -> None:
    """Build one job, its progress saying which of how many it is."""
    parts: Iterator = iter(turn.parts)  # type: ignore[type-arg]
    start = next(parts)
    with progress(_title(turn), turn.job.unit, start.total, start.done) as advance:
        for part in parts:
            advance(part.new)


def _title(turn: Turn) -> str:
    title = f"[{turn.number}/{turn.total}] {turn.job.kind} {turn.job.name}"
    if turn.seconds_left is None:
        return title
    return f"{title} (about {duration(turn.seconds_left)} left in all)"
