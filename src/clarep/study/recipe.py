"""`Recipe`: a study as one TOML file names it; every key is checked before anything is built."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from clarep.clarid.clarid_config import ClaridConfig, check_config
from clarep.data.labelled import check_fraction
from clarep.data.load import DataConfig
from clarep.distill.distill_config import DistillConfig, check_distill
from clarep.distill.methods import METHODS
from clarep.engine.seeds import check_seed
from clarep.errors import UserError, unknown_name
from clarep.robustness.suite.suite_config import SuiteConfig, check_suite
from clarep.study.schema import build, read_toml
from clarep.teachers.options import TeacherOptions

_Number = TypeVar("_Number", int, float)
_Config = TypeVar("_Config")
_SET_BY_RUNNER_TRAIN = ("seed",)
_SET_BY_RUNNER_CLARID = ("kind",)
TABLES = ("data", "test", "teacher_options", "canonical", "clarid", "train", "evaluate", "variants")


@dataclass(frozen=True)
class CanonicalSettings:
    """Of which images canonical sets are made."""

    fraction: float = 0.1
    """Share of every class that is chosen at random."""
    seed: int = 0
    """Seed of the choice, of the solver's start and of random directions."""
    top: Path | None = None
    """An existing set of CLARID's own directions. The controls then take its images and its
    settings, and fraction, seed and [clarid] are not given."""


@dataclass(frozen=True)
class Variant:
    """One row of the study's table: a method with its settings."""

    name: str
    """In the table and in folder names."""
    method: str
    """One of METHODS."""
    student: str
    """Architecture."""
    layer: str | None
    """Of the student, which meets the teacher."""
    train: DistillConfig
    """The recipe's settings with this variant's own."""
    clarid: ClaridConfig
    """The recipe's settings with this variant's own."""
    fraction: float
    """Share of every class that has a canonical sample."""
    canonical_seed: int
    """Seed of the choice of these, of the solver's start and of random directions."""


@dataclass(frozen=True)
class Recipe:
    """A study: data, teacher, methods and seeds, how they are trained and measured."""

    name: str
    """Of the file, without .toml."""
    data: DataConfig
    """What students are trained on, and canonical sets are made of."""
    test: DataConfig
    """What they are measured on."""
    teacher: str
    """A bundled teacher's name, a path, or FAMILY:PLACE."""
    teacher_options: TeacherOptions
    """How it is loaded and run."""
    classifier_student: str
    """Architecture of the classifier that kd and rkd learn from."""
    canonical: CanonicalSettings
    """Of which images canonical sets are made."""
    clarid: ClaridConfig
    """How CLAReps are found."""
    train: DistillConfig
    """How students are trained."""
    evaluate: SuiteConfig
    """What is measured on them."""
    variants: tuple[Variant, ...]
    """Rows of the table."""
    seeds: tuple[int, ...]
    """Of each variant."""


@dataclass(frozen=True)
class _Top:
    """What stands in a recipe outside its tables."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    teacher: str = "backdrops"
    student: str = "resnet8"
    layer: str | None = None
    classifier_student: str = "resnet18"


@dataclass(frozen=True)
class _VariantTable:
    """What a table [variants.NAME] may hold."""

    method: str | None = None
    student: str | None = None
    layer: str | None = None
    fraction: float | None = None
    canonical_seed: int | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    clarid: Mapping[str, Any] = field(default_factory=dict)


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
    table = read_toml(path)
    tables = {name: table.pop(name, {}) for name in TABLES}
    for name, value in tables.items():
        if not isinstance(value, dict):
            raise UserError(f"{path}: {name} is no table: write [{name}] and its keys below it")
    _check_names(table, path)
    top = build(_Top, table, f"{path}:")
    canonical = build(CanonicalSettings, tables["canonical"], f"{path}: [canonical]")
    _check_seeds(top.seeds, canonical.seed, path)
    _check_top(canonical, tables, path)
    data = build(DataConfig, tables["data"], f"{path}: [data]")
    test = {**tables["data"], "split": "test", **tables["test"]}
    return Recipe(
        name=path.stem,
        data=data,
        test=build(DataConfig, test, f"{path}: [test]"),
        teacher=top.teacher,
        teacher_options=build(
            TeacherOptions, tables["teacher_options"], f"{path}: [teacher_options]"
        ),
        classifier_student=top.classifier_student,
        canonical=canonical,
        clarid=_clarid(tables["clarid"], f"{path}: [clarid]"),
        train=_train(tables["train"], f"{path}: [train]"),
        evaluate=_checked(SuiteConfig, tables["evaluate"], f"{path}: [evaluate]", check_suite),
        variants=_variants(top, canonical, tables, path),
        seeds=top.seeds,
    )


def with_top(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with an existing set of CLARID's own directions."""
    return replace(recipe, canonical=CanonicalSettings(top=folder))


def _clarid(table: Mapping[str, Any], place: str) -> ClaridConfig:
    return _checked(ClaridConfig, table, place, check_config, _SET_BY_RUNNER_CLARID)


def _train(table: Mapping[str, Any], place: str) -> DistillConfig:
    return _checked(DistillConfig, table, place, check_distill, _SET_BY_RUNNER_TRAIN)


def _checked(
    kind: type[_Config],
    table: Mapping[str, Any],
    place: str,
    check: Callable[[_Config], None],
    without: Sequence[str] = (),
) -> _Config:
    """Return a table as the dataclass that it stands for, with its owner's rules kept."""
    config = build(kind, table, place, without)
    with _in(place):
        check(config)
    return config


@contextmanager
def _in(place: str) -> Iterator[None]:
    """Name file and table in front of what a check raises."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place} {error}") from error


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another laid over it, at every depth."""
    merged = dict(base)
    for key, value in own.items():
        below = base.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def _variants(
    top: _Top, canonical: CanonicalSettings, tables: Mapping[str, Any], path: Path
) -> tuple[Variant, ...]:
    """Return a variant for each name in methods, merged from the recipe and its own table."""
    own = tables["variants"]
    if not top.methods:
        raise UserError(f'{path}: methods is empty: give ["vanilla", "cadistill"], say')
    if len(set(top.methods)) < len(top.methods):
        raise UserError(f"{path}: methods names one twice: name each once")
    for name in own:
        if name not in top.methods:
            raise UserError(
                f"{path}: [variants.{name}] is not among methods ({', '.join(top.methods)}): "
                f'add "{name}" to them, or mend its name'
            )
    variants = []
    for name in top.methods:
        place = f"{path}: [variants.{name}]"
        table = build(_VariantTable, own.get(name, {}), place)
        method = table.method or name
        if method not in METHODS:
            where = f"{place} method:" if table.method else f"{path}: methods:"
            raise UserError(f"{where} {unknown_name('method', method, [*METHODS, *own])}")
        own_set = (table.clarid or None, table.fraction, table.canonical_seed)
        if canonical.top and own_set != (None, None, None):
            raise UserError(
                f"{place} gives settings of a canonical set, and [canonical] top names one that "
                "exists: leave out one of them"
            )
        fraction = _first(table.fraction, canonical.fraction)
        seed = _first(table.canonical_seed, canonical.seed)
        with _in(place):
            check_fraction(fraction)
            check_seed(seed)
        variants.append(
            Variant(
                name=name,
                method=method,
                student=table.student or top.student,
                layer=table.layer or (None if table.student else top.layer),
                train=_train(_merged(tables["train"], table.train), f"{place} train:"),
                clarid=_clarid(_merged(tables["clarid"], table.clarid), f"{place} clarid:"),
                fraction=fraction,
                canonical_seed=seed,
            )
        )
    return tuple(variants)


def _first(own: _Number | None, general: _Number) -> _Number:
    """Return a variant's own value, if it has one."""
    return general if own is None else own


def _check_names(table: Mapping[str, Any], path: Path) -> None:
    """Raise UserError for a name that is neither a key nor a table of a recipe."""
    known = [f.name for f in fields(_Top)]
    for name in table:
        if name not in known:
            raise UserError(f"{path}: {unknown_name('key', name, [*known, *TABLES])}")


def _check_seeds(seeds: Sequence[int], canonical: int, path: Path) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: seeds must name at least one, each once: give [0, 1, 2], say")
    for seed in (*seeds, canonical):
        with _in(f"{path}:"):
            check_seed(seed)


def _check_top(canonical: CanonicalSettings, tables: Mapping[str, Any], path: Path) -> None:
    """Raise UserError if an existing set comes with settings that it already has."""
    if canonical.top is None:
        return
    for name in ("fraction", "seed"):
        if name in tables["canonical"]:
            raise UserError(
                f"{path}: [canonical] {name} is that of the set that top names: leave it out"
            )
    if tables["clarid"]:
        raise UserError(
            f"{path}: [clarid] is that of the set that [canonical] top names: leave it out"
        )
