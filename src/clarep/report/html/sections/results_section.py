"""The main table, methods by measures with differences from vanilla, and the verdict made of it."""

from collections.abc import Sequence

from clarep.engine.printable import counted
from clarep.errors import UserError
from clarep.report.html.blocks import Cell, Download, Facts, Figure, Notes, Section, Table, Text
from clarep.report.html.figure_cells import doubts, figure_cell, images_of, minus, rows_of
from clarep.report.html.report_data import ReportData
from clarep.report.html.run_folders import Group
from clarep.robustness.measures import MEASURE_GROUPS, MEASURES, heading_of, measure_of
from clarep.study.comparison import REFERENCE, Comparison, Row, compare
from clarep.study.comparison import Cell as Compared
from clarep.study.runs import caveats, unshared_groups

_MOST_EPS = 3
_MOST_OTHERS = 3  # methods that the verdict names beside the first
_MARKS = {"better": "▲ better", "worse": "▼ worse", "neither": "", "untested": ""}
_UNMARKED = "No differences are marked: "


def results_section(data: ReportData, compared: Comparison | str) -> Section:
    """Show one row a method, one column a measure.

    compared: as `compare_methods` returns it.
    """
    if not data.measured:
        nothing = "No run is evaluated: `clarep evaluate RUN` gives accuracies and all that follows"
        return Section("results", "Results", [Text("What was run is described below.")], [nothing])
    keys = compared_keys(data)
    verdicts: dict[tuple[str, str], str] = {}
    caption = (
        "Shares as fractions of 1, each with its 95 % interval: over images for one seed "
        "(bootstrap), over seeds for several (Student's t)."
    )
    if isinstance(compared, Comparison):
        cells = [(row.name, cell) for row in compared.rows for cell in row.cells if cell]
        verdicts = {(name, cell.measure): _MARKS[cell.verdict] for name, cell in cells}
        caption += (
            f" ▲ better and ▼ worse than {REFERENCE} at 5 %: paired bootstrap over images, "
            "Holm-corrected over the table; it cannot see what another seed would change."
        )
    rows = [
        [
            Cell(group.label, below=counted(len(group.evaluations), "seed")),
            *(figure_cell(group.get(key), verdicts.get((group.label, key), "")) for key in keys),
        ]
        for group in data.measured
    ]
    groups = dict.fromkeys(one.group for one in MEASURES if one.shown == "compared")
    missing = tuple(reason for group in groups for reason in data.lacking(group))
    remarks = [
        *_said(data.measured),
        *caveats((run.name, run.evaluation) for run in data.runs if run.evaluation),
        *doubts(data.measured, keys),
        *([_UNMARKED + compared] if isinstance(compared, str) else []),
    ]
    caption += " n: images of each seed."
    meanings: dict[str, list[str]] = {}
    for key in keys:
        meanings.setdefault(measure_of(key).meaning, []).append(heading_of(key))
    table = Table("Methods by measures", ["method", *(_heading(data, key) for key in keys)], rows)
    return Section("results", "Results", [
        Figure(table, caption, Download("main_table", rows_of(data.measured, keys))),
        Facts({", ".join(headings): meaning for meaning, headings in meanings.items()}),
        Notes(remarks),
    ], missing)  # fmt: skip


def compared_keys(data: ReportData) -> list[str]:
    """Choose the columns: every figure that is compared by default and was measured on any run."""
    measured = data.keys(*MEASURE_GROUPS)
    of_entry = [[key for key in measured if measure_of(key) == one] for one in MEASURES
                if one.shown == "compared"]  # fmt: skip
    return [key for keys in of_entry for key in (middle_eps(keys) if len(keys) > 1 else keys)]


def middle_eps(keys: Sequence[str]) -> list[str]:
    """Return at most three of the strengths above 0, from weak to strong, evenly chosen."""
    ordered = sorted((key for key in keys if eps_of(key) > 0), key=eps_of)
    if len(ordered) <= _MOST_EPS:
        return ordered
    steps = [round(i * (len(ordered) - 1) / (_MOST_EPS - 1)) for i in range(_MOST_EPS)]
    return [ordered[i] for i in steps]


def eps_of(key: str) -> float:
    """Return the strength that a key of an attack ends in, NaN if it has none."""
    try:
        return float(key.rsplit("=", 1)[1])
    except (IndexError, ValueError):
        return float("nan")


def compare_methods(data: ReportData) -> Comparison | str:
    """Return the comparison of the columns with vanilla, or why there is none."""
    runs = [
        studied
        for group in data.measured
        for run in group.runs
        if (studied := run.studied(group.label)) is not None
    ]
    names = {run.name for run in runs}
    if REFERENCE not in names:
        return f"no evaluated run of method {REFERENCE} was given"
    if len(names) == 1:
        return "there is one method only"
    apart = unshared_groups(runs)
    keys = [key for key in compared_keys(data) if measure_of(key).group not in apart]
    try:
        return compare(runs, keys) if keys else "the runs have no measure in common"
    except UserError as error:
        return str(error)


def verdict(compared: Comparison | str) -> str:
    """Say in a sentence or two what is better than vanilla, by how much and how surely."""
    if isinstance(compared, str):
        return f"Nothing can be said to be better or worse: {compared}."
    rows = [row for row in compared.rows if row.name != compared.reference]
    ranked = sorted(rows, key=lambda row: len(_of(row, "worse")) - len(_of(row, "better")))
    tested, reference = len(compared.measures), compared.reference
    if not any(_of(row, "better") or _of(row, "worse") for row in rows):
        return (
            f"No method differs from {reference} on any of the {tested} measures of the table "
            "(paired bootstrap over images, Holm-corrected, 5 %)."
        )
    first, others = ranked[0], ranked[1:]
    said = f"{first.name} is better than {reference} on {_count(first, f' of {tested} measures')}"
    strongest = max(_of(first, "better") or _of(first, "worse"), key=_size, default=None)
    if strongest is not None and strongest.difference is not None:
        difference = strongest.difference
        low, high = difference.interval
        chance = "p < 0.001" if difference.p_holm < 0.001 else f"p = {difference.p_holm:.3f}"
        base = strongest.value - difference.value
        said += minus(
            f", most clearly on {heading_of(strongest.measure)}: {strongest.value:.3f} instead of "
            f"{base:.3f}, a difference of {difference.value:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"{chance} after Holm's correction"
        )
    said += "."
    named = [f"{row.name} is better on {_count(row)}" for row in others[:_MOST_OTHERS]]
    if others[_MOST_OTHERS:]:
        named.append(f"{len(others) - _MOST_OTHERS} more stand in the table")
    said += f" Of the others, {', '.join(named)}." if named else ""
    return said


def _of(row: Row, verdict: str) -> list[Compared]:
    return [cell for cell in row.cells if cell is not None and cell.verdict == verdict]


def _count(row: Row, of: str = "") -> str:
    better, worse = (len(_of(row, verdict)) for verdict in ("better", "worse"))
    return f"{better or 'none'}{of} and worse on {worse or 'none'}"


def _size(cell: Compared) -> float:
    return 0.0 if cell.difference is None else abs(cell.difference.value)


def _heading(data: ReportData, key: str) -> Cell:
    """Return the heading as a link to its section, with the number of images."""
    measure = measure_of(key)
    section = MEASURE_GROUPS[measure.group].section
    unit = measure.unit_and_better.replace(", ", ",\n")
    below = f"{unit}\n{images_of(data.measured, [key])}"
    return Cell(heading_of(key), link=section.replace("results", ""), below=below.strip())


def _said(groups: Sequence[Group]) -> list[str]:
    """Return what an evaluation tells of its student's answers and of groups left out."""
    found = [
        f"{group.label}: {text}"
        for group in groups
        for evaluation in group.evaluations
        for text in evaluation.config.get("said", ())
    ]
    return list(dict.fromkeys(found))
