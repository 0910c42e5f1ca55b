"""The table of `clarep select`, on a terminal and in files, and its picture beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clarep.engine.artefacts import write_json
from clarep.engine.figure_style import save_figure
from clarep.report.curve_figure import curve_figure
from clarep.report.tables import WIDTH, filled, plain_table, write_csv
from clarep.select.canonicity import Choice, Point
from clarep.select.choice import ALL_COLUMNS, Estimate, Setting
from clarep.select.clarep_columns import SCRAMBLED, SPREAD, blocks

_ACROSS: dict[str, tuple[str, str, Callable[[float], float]]] = {
    "r2": (
        "background_r2",
        "R2 of a probe that reads the backdrop's colour from the features",
        lambda r2: r2,
    ),
    "energy": (
        "captured_energy",
        "share of the Jacobian's energy |J|^2 along what is left of the latent",
        lambda captured: 1 - captured,
    ),
}
"""File of a curve -> the measure across, what it is in words, and what is left by its value."""


def selection_table(settings: Sequence[Setting], t: float | None = None) -> str:
    """Return a table a question: mean over seeds and half the 95 % interval.

    Measures that are not known for these data have no column.

    t: the rows of which are shown; all without it.
    """
    settings = [setting for setting in settings if t in (None, setting.t)]
    known = blocks(lambda name: any(setting.measures[name] for setting in settings))
    known[SPREAD] = [*known.get(SPREAD, []), "sample_spread"]
    tables = []
    for question, names in known.items():
        headings = ("t", "tap", "taken out", "k", *(ALL_COLUMNS[name].heading for name in names))
        rows = [
            [f"{s.t:g}", s.tap, s.kind, str(s.k), *(_cell(s.measures[name]) for name in names)]
            for s in settings
        ]
        tables.append(f"{question}\n{plain_table(headings, rows, '', keys=4)}")
    seeds = settings[0].seeds
    spread = f"± half the 95 % interval, Student's t over {seeds} seeds"
    foot = f"k = 0 is guidance alone; {'one seed: no intervals' if seeds == 1 else spread}. "
    foot += f"{SCRAMBLED}. " * any(setting.kind == "scrambled" for setting in settings)
    foot += "What the columns say stands in docs/method.md#measures"
    return "\n\n".join([*tables, filled(foot, WIDTH)])


def write_selection(
    settings: Sequence[Setting], curves: Mapping[str, Sequence[Point]], found: Choice, folder: Path
) -> dict[str, Path]:
    """Write table.csv, table.json, curve.png and its like into `folder`; return name -> path.

    The others have another measure of what is extraneous across: curve-r2.png where backdrops are
    known, and curve-energy.png. The choice is that of curve.png in all.
    """
    paths = {"table": folder / "table.csv", "table as JSON": folder / "table.json"}
    paths["curve"] = folder / "curve.png"
    backgrounds = settings[0].measures["background_spread"] is not None
    across = (
        "spread of the samples' background colours"
        if backgrounds
        else ("spread of the samples of a class about their mean")
    )
    save_figure(curve_figure(curves, found, across), paths["curve"])
    for name, (measure, words, value) in _ACROSS.items():
        other = _by_another(curves, settings, measure, value)
        if any(point.extraneous > 0 for points in other.values() for point in points):
            paths[f"curve, {name}"] = folder / f"curve-{name}.png"
            save_figure(curve_figure(other, found, words), paths[f"curve, {name}"])
    write_json(paths["table as JSON"], [asdict(setting) for setting in settings])
    write_csv([_flat(setting) for setting in settings], paths["table"])
    return paths


def _by_another(
    curves: Mapping[str, Sequence[Point]],
    settings: Sequence[Setting],
    measure: str,
    value: Callable[[float], float],
) -> dict[str, list[Point]]:
    """Return the same points with another measure of what is extraneous; 0 where it is unknown."""
    known = {(s.t, s.tap, s.kind, s.k): s.measures[measure] for s in settings}

    def of(kind: str, point: Point) -> float:
        found = known[point.t, point.tap, kind if point.k else "none", point.k]
        return 0.0 if found is None else max(0.0, value(found.mean))

    return {
        kind: [replace(point, extraneous=of(kind, point)) for point in points]
        for kind, points in curves.items()
    }


def _cell(known: Estimate | None) -> str:
    if known is None:
        return "-"
    half = "" if known.high is None else f" ±{known.high - known.mean:.2f}"
    return f"{known.mean:.2f}{half}"


def _flat(setting: Setting) -> dict[str, Any]:
    """Return a row of the CSV: NAME, NAME_low and NAME_high of every measure."""
    beside = {name: getattr(setting, name) for name in ("share", "seeds", "extraneous")}
    row: dict[str, Any] = setting.where() | beside
    for name in ALL_COLUMNS:
        known = setting.measures[name]
        row[name] = None if known is None else known.mean
        row[f"{name}_low"] = None if known is None else known.low
        row[f"{name}_high"] = None if known is None else known.high
    return row
