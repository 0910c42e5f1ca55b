"""`clarep demo`: the whole road on bundled data and teacher, in minutes on two cores."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from clarep.cli.identify import Identify
from clarep.cli.option_groups import EngineGroup
from clarep.cli.run_recipe import build_missing, finish, print_plan
from clarep.data.load import load_data
from clarep.engine.fan_out import EngineConfig, check_engine
from clarep.engine.lock import hold
from clarep.study.plan import Study
from clarep.study.recipe import Recipe, find_recipe, load_recipe, with_top

# Not `bottom`: exact Jacobians of these images take three minutes.
_CONTROLS = ("none", "reconstruction", "random", "scrambled")
_CONTROL_IMAGES = 50
_QUICK = 20  # garments, two a class


@dataclass(frozen=True)
class Demo:
    """Garments on photographs: canonical samples, students with and without them, a report.

    What is done stands in the bundled recipe `demo`. Killed at any moment, the same command goes
    on.
    """

    out: Path = Path("runs/demo")
    """Folder of the run: canon/ holds the canonical set, runs/ the students, report/ the pictures,
    the tables and index.html."""
    engine: EngineGroup = field(default_factory=EngineConfig)
    quick: bool = False
    """Twenty garments and no students: a minute or two. Its folder is not gone on with in full."""

    def run(self) -> None:
        """Find the canonical set, then run the recipe with it."""
        recipe = load_recipe(find_recipe("demo"))
        check_engine(self.engine, recipe.teacher_options.device)
        _lock = hold(self.out)
        if self.quick:
            self._command(recipe, _QUICK / len(load_data(recipe.data)), _QUICK).run()
            return
        self._identify(recipe)
        study = Study(with_top(recipe, self.out / "canon"), self.out)
        print_plan(study)
        build_missing(study, self.engine)
        finish(study, self.out / "report")

    def _identify(self, recipe: Recipe) -> None:
        """Make the set, its picture and the table of its controls, unless all are there."""
        canon, last_written = self.out / "canon", self.out / "report" / "spectrum.png"
        top = Study(recipe, self.out).top(recipe.variants[0])
        if last_written.exists() and replace(top, existing=canon).is_done():
            print(f"canonical set in {canon}, its pictures and measures in {last_written.parent}")
            return
        self._command(recipe, recipe.canonical.fraction, _CONTROL_IMAGES).run()

    def _command(self, recipe: Recipe, fraction: float, control_images: int) -> Identify:
        return Identify(
            data=recipe.data,
            clarid=recipe.clarid,
            teacher=recipe.teacher,
            teacher_options=recipe.teacher_options,
            fraction=fraction,
            seed=recipe.canonical.seed,
            controls=_CONTROLS,
            control_images=control_images,
            engine=self.engine,
            out=self.out,
        )
