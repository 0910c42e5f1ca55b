"""`clarep select`: compare settings of t, tap and k, and recommend one."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from clarep.clarid.diffusion_classifier import recognise
from clarep.cli.shared import (
    describe,
    flags,
    load_classifier,
    note_other_classes,
    of_the_datas_classes,
    told,
    warn_of_other_classes,
)
from clarep.data.load import DataConfig, load_data
from clarep.engine.artefacts import versions, write_json
from clarep.engine.cost import sum_costs
from clarep.engine.lock import hold
from clarep.engine.progress import progress
from clarep.engine.tensors import weights_hash
from clarep.report.choice_table import selection_heatmap, selection_table, write_selection
from clarep.report.quality import student_judge
from clarep.report.set_figures import save_figure
from clarep.select.choice import RULE, Recommendation, Setting, aggregate, recommend
from clarep.select.clarep_measures import judge_knows
from clarep.select.grid import Grid, GridConfig, plan_grid
from clarep.select.grid_results import load_cells, walk_grid
from clarep.students.judge import load_judge
from clarep.teachers.options import TeacherOptions
from clarep.teachers.zoo import load_teacher


@dataclass(frozen=True)
class Select:
    """Compare settings of t, tap and k over several seeds, and recommend one.

    Killed at any moment, the same command goes on; more ts, taps or seeds extend the grid.
    """

    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    """Which images."""
    grid: Annotated[GridConfig, tyro.conf.arg(name="")] = field(default_factory=GridConfig)
    """Which settings."""
    teacher_options: Annotated[TeacherOptions, tyro.conf.arg(name="")] = field(
        default_factory=TeacherOptions
    )
    """How the teacher is loaded and run."""
    teacher: str = "backdrops"
    """A bundled teacher's name, a path to a teacher.safetensors or its folder, or FAMILY:PLACE such
    as dit:PATH."""
    classifier: Path | None = None
    """Run of a student trained on the same classes (clarep distill --method vanilla), which judges
    samples where the bundled judge does not know the classes, or instead of it."""
    skip_bad: bool = False
    """Draw from the images that can be read, and list the others; decodes all of them first."""
    out: Path = Path("runs/select")
    """Folder of the run: cells/, table.csv, table.json, heatmap.png, best.json."""
    json: bool = False
    """Print one JSON object instead of lines; progress goes to stderr."""

    def run(self) -> None:
        """Walk the grid, write the tables, and say what is recommended and why."""
        teacher = load_teacher(self.teacher, self.teacher_options)
        data = told(load_data(self.data))
        teacher = of_the_datas_classes(teacher, data)
        classifier = load_classifier(self.classifier, teacher)
        grid = plan_grid(teacher, data, self.grid, self.skip_bad)
        described = describe(self.teacher, self.data, self.teacher_options)
        judge = classifier or (load_judge() if judge_knows(teacher, data) else None)
        if judge is not None:
            described["judge_sha256"] = weights_hash(judge)["sha256"]
        _lock = hold(self.out)
        steps = walk_grid(grid, described, self.out, judge and student_judge(judge))
        start = next(steps)
        note_other_classes(teacher, data, classifier)
        of_all_seeds = np.unique(np.concatenate(list(grid.chosen.values())))
        known = recognise(teacher, data, of_all_seeds, batch_size=self.grid.batch_size)
        recognition = None if known is None else known.as_dict()
        warn_of_other_classes(teacher, data, recognition)
        with progress("select", "cells", start.total, start.done) as advance:
            for step in steps:
                advance(step.new)
        cells = load_cells(grid, self.out)
        settings = aggregate(cells)
        found = recommend(settings, "nmi_null" if teacher.has_null else "nmi_conditional")
        conditional = recommend(settings, "nmi_conditional")
        places = write_selection(settings, self.out)
        places |= {"heat map": self.out / "heatmap.png", "recommendation": self.out / "best.json"}
        save_figure(selection_heatmap(settings, found.chosen), places["heat map"])
        best = _best(grid, cells, found, conditional) | {"recognition": recognition}
        write_json(places["recommendation"], best)
        wrote = {name: str(path) for name, path in places.items()}
        if self.json:
            print(json.dumps(best | {"skipped": grid.skipped, "wrote": wrote}, indent=2))
            return
        for entry in grid.skipped:
            print(f"skipped {entry}")
        print(selection_table(settings))
        print(_advice(grid, found, conditional, self._given()))
        for name, path in wrote.items():
            print(f"{name} in {path}")

    def _given(self) -> str:
        """Return the options that clarep identify needs to do the same, as a command line."""
        shared = ("guidance", "steps", "branch", "batch_size")
        rest = flags(self, "teacher", "classifier", "skip_bad")
        return rest + flags(self.teacher_options) + flags(self.data) + flags(self.grid, *shared)


def _best(
    grid: Grid,
    cells: list[dict[str, Any]],
    found: Recommendation,
    conditional: Recommendation,
) -> dict[str, Any]:
    """Return what best.json holds."""
    return _where(found.chosen) | {
        "reason": found.reason,
        "runner_up": _where(found.runner_up),
        "by_conditional_nmi": _where(conditional.chosen),
        "rule": RULE,
        "seeds": sorted(grid.config.seeds),
        "grid": asdict(grid.config),
        "config": cells[0]["config"],
        "versions": versions(),
        "cost": sum_costs([cell["cost"] for cell in cells]),
    }


def _where(setting: Setting | None) -> dict[str, Any]:
    return dict.fromkeys(("t", "tap", "k", "sigma")) if setting is None else setting.where()


def _advice(grid: Grid, found: Recommendation, conditional: Recommendation, given: str) -> str:
    if found.chosen is None:
        return f"nothing is recommended: {found.reason}"
    chosen = found.chosen
    lines = [f"recommended: {chosen}", f"because {found.reason}"]
    if found.runner_up is not None:
        lines.append(f"runner-up: {found.runner_up}")
    if grid.teacher.has_null:
        flattered = conditional.chosen
        lines.append(f"by the NMI given the class, which flatters, it would be {flattered}")
    command = f"clarep identify --t {chosen.t:g} --tap {chosen.tap} --k {chosen.k}{given}"
    lines.append(f"to use it: {command}")
    return "\n".join(lines)
