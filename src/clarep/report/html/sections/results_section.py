"""The main table: methods by measures, with intervals and differences from vanilla."""

from collections.abc import Sequence
from dataclasses import replace

from clarep.errors import UserError
from clarep.report.html.counts import images_of, no_width
from clarep.report.html.figures import doubts, figure_cell, rows_of
from clarep.report.html.markup import Cell, fact_list, figure, link, notes, paragraph, table
from clarep.report.html.material import Material, Section
from clarep.report.html.run_folders import Group
from clarep.robustness.measures import MEASURE_GROUPS, MEASURES, heading_of, measure_of
from clarep.study.comparison import REFERENCE, compare, unshared_groups
from clarep.study.runs import caveats

_MOST_EPS = 3
_MARKS = {"better": "▲ better", "worse": "▼ worse", "neither": "", "untested": ""}


def results_section(material: Material) -> Section:
    """Show one row a method, one column a measure."""
    keys = _columns(material)
    verdicts, why_not = _verdicts(material, keys)
    rows = [
        [
            Cell(group.label, below=_seeds(group)),
            *(_cell(group, key, verdicts.get((group.label, key), "")) for key in keys),
        ]
        for group in material.measured
    ]
    if not rows:
        return _nothing(material)
    links = material.downloads.add("main_table", rows_of(material.measured, keys))
    caption = (
        "Shares as fractions of 1, each with its 95 % interval: over images for one seed "
        "(bootstrap), over seeds for several (Student's t)."
    )
    if not why_not:
        caption += (
            f" ▲ better and ▼ worse than {REFERENCE} at 5 %: paired bootstrap over images, "
            "Holm-corrected over the table; it cannot see what another seed would change."
        )
    caption += " n: images of each seed." + no_width(material.measured, keys)
    headings: list[str | Cell] = ["method", *(_heading(material, key) for key in keys)]
    body = figure(table("Methods by measures", headings, rows), caption, links)
    body += fact_list({heading_of(key): measure_of(key).meaning for key in keys})
    missing = _lacking(material)
    remarks = (
        *_said(material.measured),
        *caveats((run.name, run.evaluation) for run in material.runs if run.evaluation),
        *doubts(material.measured, keys),
        *((why_not,) if why_not else ()),
        *missing,
    )
    return Section("results", "Results", body + notes(remarks), missing)


def _columns(material: Material) -> list[str]:
    """Choose the columns: every figure that is compared by default and was measured on any run."""
    measured = material.keys(*MEASURE_GROUPS)
    of_entry = [[key for key in measured if measure_of(key) == one] for one in MEASURES
                if one.shown == "compared"]  # fmt: skip
    return [key for keys in of_entry for key in (middle_eps(keys) if len(keys) > 1 else keys)]


def _heading(material: Material, key: str) -> Cell:
    """Return the heading as a link to its section, with the number of images."""
    measure, heading = measure_of(key), heading_of(key)
    section = MEASURE_GROUPS[measure.group].section
    linked = "" if section == "results" else link(section, heading)
    below = f"{measure.unit_and_better}\n{images_of(material.measured, [key])}"
    return Cell(heading, html=linked, below=below.strip())


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


def _cell(group: Group, key: str, verdict: str) -> Cell:
    made = figure_cell(group.get(key))
    return replace(made, below=f"{made.below}\n{_MARKS.get(verdict, '')}".strip())


def _seeds(group: Group) -> str:
    count = len(group.evaluations)
    return "one seed" if count == 1 else f"{count} seeds"


def _verdicts(material: Material, keys: Sequence[str]) -> tuple[dict[tuple[str, str], str], str]:
    """Return (method, key) -> verdict against vanilla, or none and the reason why."""
    runs = [
        studied
        for group in material.measured
        for run in group.runs
        if (studied := run.studied(group.label)) is not None
    ]
    if not any(run.name == REFERENCE for run in runs):
        return {}, f"No differences are marked: no evaluated run of method {REFERENCE} was given"
    if len({run.name for run in runs}) == 1:
        return {}, "No differences are marked: there is one method only"
    apart = unshared_groups(runs)
    try:
        compared = compare(runs, [key for key in keys if measure_of(key).group not in apart])
    except UserError as error:
        return {}, f"No differences are marked: {error}"
    return {
        (row.name, cell.measure): cell.verdict
        for row in compared.rows
        for cell in row.cells
        if cell is not None
    }, ""


def _said(groups: Sequence[Group]) -> list[str]:
    """Return what an evaluation tells of its student's answers and of groups left out."""
    found = [
        f"{group.label}: {text}"
        for group in groups
        for evaluation in group.evaluations
        for text in evaluation.config.get("said", ())
    ]
    return list(dict.fromkeys(found))


def _lacking(material: Material) -> tuple[str, ...]:
    groups = dict.fromkeys(one.group for one in MEASURES if one.shown == "compared")
    return tuple(reason for group in groups for reason in material.lacking(group))


def _nothing(material: Material) -> Section:
    missing = ("No run is evaluated: `clarep evaluate RUN` gives accuracies and all that follows",)
    content = notes(missing) + paragraph("What was run is described above.")
    return Section("results", "Results", content, missing)
