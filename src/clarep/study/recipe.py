"""`Recipe`: a study as one TOML file names it; every key is checked before anything is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from clarep.audit.audit_config import AuditConfig
from clarep.clarid.clarid_config import ClaridConfig, check_config
from clarep.data.load import DataConfig
from clarep.distill.distill_config import DistillConfig, check_distill
from clarep.distill.methods import METHODS
from clarep.engine.bounds import Seed, Within, check_bounds
from clarep.engine.printable import one_line
from clarep.errors import UserError, unknown_name
from clarep.robustness.suite.suite_config import SuiteConfig, check_suite
from clarep.study.schema import below, build, read_toml, table_of
from clarep.teachers.options import TeacherOptions

_LONGEST_NAME = 100
_Value = TypeVar("_Value")
_SET_BY_RUNNER = ("train.seed", "clarid.kind")
_MERGED = ("data", "test", "canonical", "clarid", "train", "variants")


@dataclass(frozen=True)
class CanonicalSettings:
    """Of which images canonical sets are made."""

    fraction: Annotated[float, Within(0, 1, "(]")] = 0.1
    """Share of every class that is chosen at random."""
    seed: Seed = 0
    """Seed of the choice, of the solver's start and of random directions."""
    top: Path | None = None
    """An existing set of CLARID's own directions. The controls then take its images and its
    settings, and fraction, seed and [clarid] are not given."""


@dataclass(frozen=True)
class Variant:
    """One row of the study's table: a method with its settings, the recipe's unless it has own."""

    method: str
    """One of METHODS."""
    student: str
    """Architecture."""
    layer: str | None
    """Of the student, which meets the teacher."""
    train: DistillConfig
    """How it is trained."""
    clarid: ClaridConfig
    """How its CLAReps are found."""
    fraction: Annotated[float, Within(0, 1, "(]")]
    """Share of every class that has a canonical sample."""
    canonical_seed: Seed
    """Seed of the choice of these, of the solver's start and of random directions."""
    activation: str | None = None
    """Of the student, in place of its architecture's own."""
    name: str = ""
    """In the table and in folder names."""


@dataclass(frozen=True)
class Recipe:
    """A study: data, teacher, methods and seeds, how they are trained and measured."""

    methods: tuple[str, ...]
    """Rows of the table: methods, or names that [variants.NAME] explains."""
    seeds: tuple[Seed, ...]
    """Of each."""
    name: str = ""
    """Of the file, without .toml."""
    data: DataConfig = field(default_factory=DataConfig)
    """What students are trained on, and canonical sets are made of."""
    test: DataConfig = field(default_factory=DataConfig)
    """What they are measured on: the test split of the same unless told otherwise."""
    teacher: str = "backdrops"
    """A bundled teacher's name, a path, or FAMILY:PLACE."""
    teacher_options: TeacherOptions = field(default_factory=TeacherOptions)
    """How it is loaded and run."""
    student: str = "resnet8"
    """Architecture."""
    layer: str | None = None
    """Of the student, which meets the teacher."""
    activation: str | None = None
    """Of the students, in place of their architecture's own."""
    classifier_student: str = "resnet18"
    """Architecture of the classifier that kd and rkd learn from."""
    canonical: CanonicalSettings = field(default_factory=CanonicalSettings)
    """Of which images canonical sets are made."""
    clarid: ClaridConfig = field(default_factory=ClaridConfig)
    """How CLAReps are found."""
    audit: AuditConfig = field(default_factory=AuditConfig)
    """What the teacher is asked of the data, for methods that read it."""
    train: DistillConfig = field(default_factory=DistillConfig)
    """How students are trained."""
    evaluate: SuiteConfig = field(default_factory=SuiteConfig)
    """What is measured on them."""
    variants: tuple[Variant, ...] = ()
    """Made of methods and the tables [variants.NAME]."""


def bundled_recipes() -> dict[str, Path]:
    """Return the recipes that come with clarep, by name."""
    folder = Path(str(files("clarep.study") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_recipe(spec: str) -> Path:
    """Return the file that a path or a bundled recipe's name stands for."""
    path = Path(spec)
    if path.exists() or path.suffix == ".toml" or len(path.parts) > 1:
        return path
    bundled = bundled_recipes()
    if spec not in bundled:
        raise unknown_name("recipe", spec, [*bundled, "a path to a .toml file"])
    return bundled[spec]


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises UserError, in one sentence with file and key, for whatever is not as it must be.
    """
    place, table = f"{path}:", read_toml(path)
    tables = {name: table_of(table.get(name, {}), place, name) for name in _MERGED}
    table.pop("variants", None)
    table["test"] = {**tables["data"], "split": "test", **tables["test"]}
    recipe = build(Recipe, table, place, ("name", *_SET_BY_RUNNER))
    for key, such in (("methods", '["vanilla", "cadistill"]'), ("seeds", "[0, 1]")):
        given = getattr(recipe, key)
        if not given or len(set(given)) < len(given):
            raise UserError(f"{place} {key} must name at least one, each once: give {such}, say")
    _check(check_config, recipe.clarid, below(place, "clarid"))
    _check(check_distill, recipe.train, below(place, "train"))
    _check(check_suite, recipe.evaluate, below(place, "evaluate"))
    _check(check_bounds, recipe, place)
    if recipe.canonical.top is not None:
        own_set = [f"[canonical] {name}" for name in tables["canonical"] if name != "top"]
        own_set += ["[clarid]"] if tables["clarid"] else []
        if own_set:
            raise UserError(f"{place} {own_set[0]} is that of the set that top names: leave it out")
    return replace(recipe, name=path.stem, variants=_variants(recipe, tables, place))


def with_top(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with an existing set of CLARID's own directions."""
    return replace(recipe, canonical=CanonicalSettings(top=folder))


def _check(rule: Callable[[_Value], object], value: _Value, place: str) -> None:
    """Apply a rule of the value's owner, and name file and table in front of what it raises."""
    try:
        rule(value)
    except UserError as error:
        raise UserError(f"{place} {error}") from error


def _check_name(name: str, place: str) -> None:
    """Raise UserError unless a variant's name can stand in a folder's name and in a table."""
    is_plain = one_line(name) == name and not set(name) & set("/\\") and name[:1] != "."
    if not is_plain or not 0 < len(name.encode()) <= _LONGEST_NAME:
        raise UserError(
            f"{place} methods: '{one_line(name)[:80]}' names a folder: give at most "
            f"{_LONGEST_NAME} bytes without a slash or control characters, not beginning with a dot"
        )


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another laid over it, at every depth."""
    inner = {
        key: _merged(base[key], value)
        for key, value in own.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **own, **inner}


def _variants(recipe: Recipe, tables: Mapping[str, Any], place: str) -> tuple[Variant, ...]:
    """Return a variant for each name in methods, merged from the recipe and its own table."""
    methods, own = recipe.methods, tables["variants"]
    for name in own:
        if name not in methods:
            raise UserError(
                f"{below(place, f'variants.{name}')} is not among methods ({', '.join(methods)}): "
                f'add "{name}" to them, or mend its name'
            )
    general = {
        "student": recipe.student,
        "layer": recipe.layer,
        "activation": recipe.activation,
        "train": tables["train"],
        "clarid": tables["clarid"],
        "fraction": recipe.canonical.fraction,
        "canonical_seed": recipe.canonical.seed,
    }
    variants = []
    for name in methods:
        here = below(place, f"variants.{name}")
        _check_name(name, place)
        table = table_of(own.get(name, {}), place, f"variants.{name}")
        method = str(table.get("method", name))
        if method not in METHODS:
            where = f"{here} method:" if "method" in table else f"{place} methods:"
            raise UserError(f"{where} {unknown_name('method', method, [*METHODS, *own])}")
        if name in METHODS and method != name:
            raise UserError(
                f"{here} method = {method!r} would stand in the table as {name}, which is another "
                "method: give the row a name of its own, in methods too"
            )
        if recipe.canonical.top and table.keys() & {"clarid", "fraction", "canonical_seed"}:
            raise UserError(
                f"{here} gives settings of a canonical set, and [canonical] top names one that "
                "exists: leave out one of them"
            )
        usual = general | ({"layer": None} if "student" in table else {}) | {"method": name}
        variant = build(Variant, _merged(usual, table), here, ("name", *_SET_BY_RUNNER))
        _check(check_distill, variant.train, below(here, "train"))
        _check(check_config, variant.clarid, below(here, "clarid"))
        _check(check_bounds, variant, here)
        variants.append(replace(variant, name=name))
    return tuple(variants)
