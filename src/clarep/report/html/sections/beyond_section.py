"""Natural test sets beyond the student's own."""

from clarep.report.html.counts import counted, per_row
from clarep.report.html.figures import doubts, figure_cell, rows_of
from clarep.report.html.markup import Cell, figure, notes, table
from clarep.report.html.material import Material, Section
from clarep.robustness.measures import heading_of


def beyond_section(material: Material) -> Section | None:
    """Tabulate accuracy on each set; None if none was measured, since nobody need have one."""
    keys = material.keys("beyond")
    if not keys:
        return None
    headings = ["test set", *(group.label for group in material.measured)]
    counts = per_row(material.measured, keys)
    rows = [
        [
            Cell(heading_of(key), below=counts[key]),
            *(figure_cell(group.get(key)) for group in material.measured),
        ]
        for key in keys
    ]
    links = material.downloads.add("beyond", rows_of(material.measured, keys))
    caption = (
        "Accuracy with 95 % intervals; where a set has fewer classes than the student, among "
        "those alone."
    ) + counted(material.measured, keys)
    body = figure(table("Test sets by methods", headings, rows), caption, links)
    return Section("beyond", "Other test sets", body + notes(doubts(material.measured, keys)))
