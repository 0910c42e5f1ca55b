"""Canonical samples beside their originals."""

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clareps import as_rgb
from clarep.clarid.set_pictures import ROWS, picture_columns
from clarep.report.html.blocks import (
    NO_FIGURE,
    Block,
    Cell,
    Download,
    Figure,
    Picture,
    Section,
    Table,
    Text,
)
from clarep.report.html.figure_cells import minus
from clarep.report.html.report_data import ReportData
from clarep.report.measures_table import (
    flat_rows,
    foot_of,
    judge_beside,
    legend_of,
    rows_beside,
    told,
)
from clarep.select.clarep_columns import COLUMNS, blocks
from clarep.select.clarep_measures import Measures

_SIDE = 80


def canonical_section(data: ReportData) -> Section:
    """Show the first stored image of each class: none is picked by its looks."""
    title = "Canonical samples"
    if data.canon is None:
        return Section("canonical", title, [], data.canon_missing)
    missing = data.pictures_missing
    shown = [_gallery(data, data.canon), *_recognised(data.canon), *_measured(data.canon)]
    return Section("canonical", title, shown, missing)


def _recognised(canon: CanonicalSet) -> list[Block]:
    """Return how the set's images stood the check that its teacher knows their classes."""
    found = canon.manifest.get("findings", {}).get("recognition") or {}
    if not found:
        return []
    near = found.get("verdict") == "near chance"
    doubt = "; near chance, so that these samples say nothing of the classes" if near else ""
    return [Text(f"Does the teacher know these classes? {found.get('said')}{doubt}.")]


def _measured(canon: CanonicalSet) -> list[Block]:
    """Tabulate what was measured of the set and its controls: a table a question."""
    rows = rows_beside(canon)
    if not rows:
        return []
    found: list[Block] = []
    for question, names in blocks(lambda name: bool(told(rows, [name]))).items():
        headings = [COLUMNS[name].heading for name in names]
        cells = [[row.kind, *(_figure(row, name) for name in names)] for row in told(rows, names)]
        legend = legend_of(names, judge_beside(canon)).values()
        caption = ". ".join(text[0].upper() + text[1:] for text in legend)
        table = Table(question, ["directions", *headings], cells)
        numbers = Download("canonical-measures", flat_rows(rows)) if not found else None
        found += [Text(question, "h3"), Figure(table, f"{caption}.", numbers)]
    return [*found, Text(foot_of(rows))]


def _figure(row: Measures, name: str) -> Cell:
    value, named = getattr(row, name), COLUMNS[name].interval
    if value is None:
        return NO_FIGURE
    interval = getattr(row, named) if named else None
    below = f"[{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
    return Cell(minus(f"{value:.2f}"), True, below=minus(below))


def _gallery(data: ReportData, canon: CanonicalSet) -> Figure:
    shown = canon.balanced(ROWS)
    labels, indices = (shown.tensors[name].tolist() for name in ("label", "index"))
    known = None if data.pictures is None else data.pictures.classes
    names = known or [data.set_classes[label] for label in labels]
    rows = [
        [what, *(Picture(as_rgb(image), f"{what}, {name}", _SIDE) for name, image in of_what)]
        for what, images in picture_columns(shown, data.pictures).items()
        for of_what in [zip(names, images, strict=True)]
    ]
    clarid = canon.setting
    caption = (
        "The first stored image of each class (of the first ten); none was picked. All but "
        "the original start from the same inverted latent. What was removed is the latent "
        "before minus after the projection: grey is where nothing changed, and the stronger a "
        "colour, the more was taken away there; each image is scaled to its own largest value, so "
        "that they cannot be compared in strength. "
        f"Directions: {clarid['kind']}; guidance {clarid['guidance']:g}."
    )
    headings = [Cell(name, below=f"image {i}") for name, i in zip(names, indices, strict=True)]
    table = Table("Canonical samples", ["", *headings], rows, css="gallery")
    return Figure(table, caption)
