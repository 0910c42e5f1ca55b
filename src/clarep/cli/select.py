"""`clarep select`: the canonicity curves of settings of t, tap and k, and the choice of one."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from clarep.clarid.diffusion_classifier import recognise
from clarep.cli.option_groups import (
    DataGroup,
    EngineGroup,
    Json,
    JudgeRun,
    TeacherGroup,
    TeacherSpec,
)
from clarep.cli.terminal import note, told, warn
from clarep.data.load import DataConfig, load_data
from clarep.engine.artefacts import write_json
from clarep.engine.fan_out import EngineConfig, check_engine
from clarep.engine.flags import flags
from clarep.engine.lock import hold
from clarep.engine.progress import progress
from clarep.engine.tensors import weights_hash
from clarep.report.choice_table import selection_table, write_selection
from clarep.report.quality import load_classifier, student_judge
from clarep.select.canonicity import Choice, choose
from clarep.select.choice import aggregate, curve_points
from clarep.select.clarep_measures import judge_knows
from clarep.select.class_match import matched_by_number, of_the_datas_classes, taken_for_others
from clarep.select.grid import GridConfig, plan_grid
from clarep.select.grid_results import best_of, load_cells, walk_grid
from clarep.select.judging import Scorer
from clarep.students.student_files import load_judge
from clarep.teachers.options import TeacherOptions, recorded
from clarep.teachers.zoo import load_teacher, sources


@dataclass(frozen=True)
class Select:
    """Draw how class and backgrounds go as directions are taken out, and recommend t and k.

    Killed at any moment, the same command goes on; more of --t, --tap or --seeds extend the grid.
    """

    data: DataGroup = field(default_factory=DataConfig)
    grid: Annotated[GridConfig, tyro.conf.arg(name="")] = field(default_factory=GridConfig)
    teacher_options: TeacherGroup = field(default_factory=TeacherOptions)
    engine: EngineGroup = field(default_factory=EngineConfig)
    teacher: TeacherSpec = "backdrops"
    classifier: JudgeRun = None
    skip_bad: bool = False
    """Draw from the images that can be read, and list the others; decodes all of them first."""
    out: Path = Path("runs/select")
    """Folder of the run: cells/, curve.png, table.csv, table.json, best.json."""
    json: Json = False

    def run(self, other_judge: tuple[str, Scorer] | None = None) -> None:
        """Walk the grid, write the tables, and say what is recommended and why.

        other_judge: the hash of a judge that is no student's run, and the judge, from Python.
        """
        check_engine(self.engine, self.teacher_options.device)
        teacher = load_teacher(self.teacher, self.teacher_options)
        data = told(load_data(self.data))
        teacher, chosen_by_name = of_the_datas_classes(teacher, data)
        note(chosen_by_name)
        classifier = load_classifier(self.classifier, teacher)
        grid = plan_grid(teacher, data, self.grid, self.skip_bad)
        described = sources(self.teacher, self.data, recorded(self.teacher_options))
        judge = classifier or (load_judge() if judge_knows(teacher, data) else None)
        sha256, scorer = other_judge or ("", None)
        if judge is not None and other_judge is None:
            sha256, scorer = weights_hash(judge)["sha256"], student_judge(judge)
        described |= {"judge_sha256": sha256} if sha256 else {}
        _lock = hold(self.out)
        steps = walk_grid(grid, described, self.out, scorer, self.engine)
        start = next(steps)
        note(matched_by_number(teacher, data, classifier is not None))
        of_all_seeds = np.unique(np.concatenate(list(grid.chosen.values())))
        known = recognise(teacher, data, of_all_seeds, batch_size=self.grid.batch_size)
        recognition = None if known is None else known.as_dict()
        warn(taken_for_others(teacher, data, recognition))
        with progress("select", "cells", start.total, start.done) as advance:
            for step in steps:
                advance(step.new)
        cells = load_cells(grid, self.out)
        settings, classes = aggregate(cells), teacher.num_classes
        curves = {str(kind): curve_points(cells, classes, kind) for kind in self.grid.kind}
        found = choose(curves[self.grid.kind[0]])
        places = write_selection(settings, curves, found, self.out)
        best = best_of(grid, cells, found) | {"recognition": recognition}
        places["recommendation"] = self.out / "best.json"
        write_json(places["recommendation"], best)
        wrote = {name: str(path) for name, path in places.items()}
        if self.json:
            print(json.dumps(best | {"skipped": grid.skipped, "wrote": wrote}, indent=2))
            return
        for entry in grid.skipped:
            print(f"skipped {entry}")
        at = settings[0].t if found.chosen is None else found.chosen.t
        print(selection_table(settings, at))
        print(_advice(found, self._given()))
        for name, path in wrote.items():
            print(f"{name} in {path}")

    def _given(self) -> str:
        """Return the options that clarep identify needs to do the same, as a command line."""
        shared = ("guidance", "steps", "branch", "inversion_label", "batch_size")
        rest = flags(self, "teacher", "classifier", "skip_bad")
        kind = self.grid.kind[0]
        rest += "" if kind == "top" else f" --kind {kind}"
        return rest + flags(self.teacher_options) + flags(self.data) + flags(self.grid, *shared)


def _advice(found: Choice, given: str) -> str:
    if found.chosen is None:
        return found.reason  # which says that nothing is
    at = found.where()
    word = "recommended" if found.stands else "least harmful"
    command = f"clarep identify --t {at['t']:g} --tap {at['tap']} --k {at['k']}{given}"
    return f"{word}: {found.chosen}\nbecause {found.reason}\nto use it: {command}"
