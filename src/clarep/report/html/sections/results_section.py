"""The main table: methods by measures, with intervals and differences from vanilla."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clarep.errors import UserError
from clarep.report.html.counts import images_of, no_width
from clarep.report.html.figures import doubts, figure_cell, rows_of, share_cell
from clarep.report.html.markup import Cell, fact_list, figure, link, notes, paragraph, table
from clarep.report.html.material import Material, Section
from clarep.report.html.run_folders import Group
from clarep.study.comparison import REFERENCE, compare, unshared_groups
from clarep.study.runs import caveats, group_of

_MOST_EPS = 3
_MARKS = {"better": "▲ better", "worse": "▼ worse", "neither": "", "untested": ""}


@dataclass(frozen=True)
class _Column:
    key: str
    heading: Cell
    anchor: str
    """The section that shows more of it."""
    meaning: str
    """What its heading means, for who sees it for the first time."""
    percent: bool = True


def results_section(material: Material) -> Section:
    """Show one row a method, one column a measure."""
    columns = _columns(material)
    keys = [column.key for column in columns]
    verdicts, why_not = _verdicts(material, keys)
    rows = [
        [
            Cell(group.label, below=_seeds(group)),
            *(
                _cell(group, column, verdicts.get((group.label, column.key), ""))
                for column in columns
            ),
        ]
        for group in material.measured
    ]
    if not rows:
        return _nothing(material)
    links = material.downloads.add("main_table", rows_of(material.measured, keys))
    caption = (
        "Accuracies in %, the gap in points, each with its 95 % interval: over images for one "
        "seed (bootstrap), over seeds for several (Student's t)."
    )
    if not why_not:
        caption += (
            f" ▲ better and ▼ worse than {REFERENCE} at 5 %: paired bootstrap over images, "
            "Holm-corrected over the table; it cannot see what another seed would change."
        )
    caption += " n: images of each seed." + no_width(material.measured, keys)
    headings: list[str | Cell] = ["method", *(_heading(material, column) for column in columns)]
    body = figure(table("Methods by measures", headings, rows), caption, links)
    body += fact_list({column.heading.text: column.meaning for column in columns})
    missing = _lacking(material, keys)
    remarks = (
        *_said(material.measured),
        *caveats((run.name, run.evaluation) for run in material.runs if run.evaluation),
        *doubts(material.measured, keys),
        *((why_not,) if why_not else ()),
        *missing,
    )
    return Section("results", "Results", body + notes(remarks), missing)


def _columns(material: Material) -> list[_Column]:
    """Choose the columns: every figure that was measured on any run, in a fixed order."""
    backgrounds = "backgrounds"
    chosen = [
        _Column("clean/accuracy", Cell("clean", below="%"), "results",
                "test images as they are"),
        _Column("background/mixed_rand", Cell("mixed_rand", below="%"), backgrounds,
                "the same objects on a background of a random class, which no longer helps"),
        _Column("background/gap", Cell("BG-gap", below="points,\nless is better"), backgrounds,
                "what is lost where the background is of a random instead of the object's class "
                "(mixed_same minus mixed_rand): how much the student leans on backgrounds"),
        *(
            _Column(key, Cell("PGD L∞", below=f"%, ε = {eps_of(key):g}/255"), "attacks",
                    "images changed on purpose by projected gradient descent, each pixel value by "
                    "ε at most, so that the student errs")
            for key in middle_eps(material.keys("attack/pgd-linf/"))
        ),
        _Column("corruption/mean", Cell("corruptions", below="%, mean"), "corruptions",
                "images with noise, blur, weather or compression, mean over all kinds"),
        _Column("calibration/ece", Cell("ECE", below="less is better"), "calibration",
                "expected calibration error: how far confidence and accuracy lie apart, 0 to 1",
                percent=False),
    ]  # fmt: skip
    return [column for column in chosen if material.keys(column.key)]


def _heading(material: Material, column: _Column) -> Cell:
    """Return the heading as a link to its section, with the number of images."""
    heading, images = column.heading, images_of(material.measured, [column.key])
    linked = "" if column.anchor == "results" else link(column.anchor, heading.text)
    return replace(heading, html=linked, below=f"{heading.below}\n{images}".strip())


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


def _cell(group: Group, column: _Column, verdict: str) -> Cell:
    measured = group.get(column.key)
    made = share_cell(measured) if column.percent else figure_cell(measured)
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
        compared = compare(runs, [key for key in keys if group_of(key) not in apart])
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


def _lacking(material: Material, keys: Sequence[str]) -> tuple[str, ...]:
    parts = {
        "clean/": "Clean accuracy",
        "attack/": "Attacks",
        "corruption/": "Corruptions",
        "background/": "Backgrounds",
        "calibration/": "Calibration",
    }
    return tuple(
        reason for prefix, what in parts.items() for reason in material.lacking(prefix, what)
    )


def _nothing(material: Material) -> Section:
    missing = ("No run is evaluated: `clarep evaluate RUN` gives accuracies and all that follows",)
    content = notes(missing) + paragraph("What was run is described above.")
    return Section("results", "Results", content, missing)
