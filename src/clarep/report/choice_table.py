"""The table and the heat map of `clarep select`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from clarep.engine.artefacts import write_json
from clarep.report.set_figures import save_figure
from clarep.report.tables import WIDTH, filled, plain_table, write_csv
from clarep.select.choice import Estimate, Setting
from clarep.select.clarep_columns import COLUMNS, blocks

_PANELS = ("evidence", "null_share", "judge_accuracy", "background_r2", "nmi_null")


def selection_table(settings: Sequence[Setting]) -> str:
    """Return a table a question: mean over seeds and half the 95 % interval, at most 100 wide.

    Measures that are not known for these data have no column.
    """
    known = blocks(lambda name: any(setting.measures[name] for setting in settings))
    tables = []
    for question, names in known.items():
        headings = ("t", "tap", "k", *(COLUMNS[name].heading for name in names))
        rows = [
            [f"{s.t:g}", s.tap, str(s.k), *(_cell(s.measures[name]) for name in names)]
            for s in settings
        ]
        tables.append(f"{question}\n{plain_table(headings, rows, '', WIDTH)}")
    seeds = settings[0].seeds
    spread = f"± half the 95 % interval, Student's t over {seeds} seeds"
    foot = f"k = 0 is guidance alone; {'one seed: no intervals' if seeds == 1 else spread}. "
    foot += "What the columns say stands in docs/method.md#measures"
    return "\n\n".join([*tables, filled(foot, WIDTH)])


def write_selection(
    settings: Sequence[Setting], chosen: Setting | None, folder: Path
) -> dict[str, Path]:
    """Write table.csv, table.json and heatmap.png into `folder`; return name -> path."""
    paths = {"table": folder / "table.csv", "table as JSON": folder / "table.json"}
    paths["heat map"] = folder / "heatmap.png"
    save_figure(selection_heatmap(settings, chosen), paths["heat map"])
    write_json(paths["table as JSON"], [asdict(setting) for setting in settings])
    write_csv([_flat(setting) for setting in settings], paths["table"])
    return paths


def selection_heatmap(settings: Sequence[Setting], chosen: Setting | None) -> Figure:
    """Draw a row of panels for each tap: mean measures over t (down) and k (across).

    k = 0 is guidance alone. The chosen setting is framed. Measures that are not known for these
    data have no panel.
    """
    names = [name for name in _PANELS if any(s.measures[name] for s in settings)]
    taps = list(dict.fromkeys(setting.tap for setting in settings))
    rows, columns = (len({getattr(s, axis) for s in settings}) for axis in ("t", "k"))
    size = ((0.62 * columns + 1.5) * len(names), (0.42 * rows + 1.3) * len(taps))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(taps), len(names), squeeze=False)
    for tap, axes in zip(taps, grid, strict=True):
        here = [setting for setting in settings if setting.tap == tap]
        for name, axis in zip(names, axes, strict=True):
            _panel(axis, here, name, chosen)
            axis.set_title(f"{COLUMNS[name].heading}, {tap}", fontsize=9, parse_math=False)
    return figure


def _panel(axis: Axes, settings: Sequence[Setting], name: str, chosen: Setting | None) -> None:
    ts = sorted({setting.t for setting in settings})
    ks = sorted({setting.k for setting in settings})
    values = np.full((len(ts), len(ks)), np.nan)
    for setting in settings:
        known = setting.measures[name]
        if known is not None:
            values[ts.index(setting.t), ks.index(setting.k)] = known.mean
    low, high = np.nanmin(values), np.nanmax(values)
    axis.imshow(values, cmap="viridis", aspect="auto", vmin=low, vmax=high)
    for (row, column), value in np.ndenumerate(values):
        dark = value < (low + high) / 2
        colour = "white" if dark else "black"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    if chosen in settings and chosen is not None:
        corner = ks.index(chosen.k) - 0.48, ts.index(chosen.t) - 0.48
        axis.add_patch(Rectangle(corner, 0.96, 0.96, fill=False, edgecolor="tab:red", linewidth=2))
    axis.set_xticks(range(len(ks)), [str(k) for k in ks], fontsize=8)
    axis.set_yticks(range(len(ts)), [f"{t:g}" for t in ts], fontsize=8)
    axis.set_xlabel("k (0: guidance alone)", fontsize=8)
    axis.set_ylabel("t", fontsize=8)


def _cell(known: Estimate | None) -> str:
    if known is None:
        return "-"
    half = "" if known.high is None else f" ±{known.high - known.mean:.2f}"
    return f"{known.mean:.2f}{half}"


def _flat(setting: Setting) -> dict[str, Any]:
    """Return a row of the CSV: NAME, NAME_low and NAME_high of every measure."""
    row: dict[str, Any] = setting.where() | {"share": setting.share, "seeds": setting.seeds}
    for name in COLUMNS:
        known = setting.measures[name]
        row[name] = None if known is None else known.mean
        row[f"{name}_low"] = None if known is None else known.low
        row[f"{name}_high"] = None if known is None else known.high
    return row
