"""Accuracy under common corruptions, one by one and by severity."""

from collections import defaultdict
from dataclasses import replace

from clarep.report.html.charts import Point, Series, bar_chart, line_chart
from clarep.report.html.counts import counted, per_row
from clarep.report.html.figures import doubts, figure_cell, rows_of
from clarep.report.html.markup import Cell, charts, figure, notes, table
from clarep.report.html.material import Material, Section, series_of
from clarep.report.html.run_folders import Group
from clarep.robustness.measures import heading_of

_OVERALL = ("corruption/mean", "corruption/mce")


def corruptions_section(material: Material) -> Section:
    """Draw bars for each corruption and the mean over corruptions at each severity."""
    missing = material.lacking("corruptions")
    keys = material.keys("corruptions")
    if not keys:
        return Section("corruptions", "Corruptions", notes(missing), missing)
    links = material.downloads.add("corruptions", rows_of(material.measured, keys))
    means = [key for key in keys if key.endswith("/mean") and key not in _OVERALL]
    drawn = []
    if means:
        rows = [
            (
                heading_of(key),
                [(series_of(g), _point(g, key)) for g in material.measured if g.get(key)],
            )
            for key in means
        ]
        title = "Accuracy by corruption"
        drawn.append(bar_chart("corruption-bars", title, "accuracy", rows))
    by_severity = [_over_severity(group, keys) for group in material.measured]
    severities = sorted({point.x for one in by_severity for point in one.points})
    caption = "By corruption: mean over the severities that were measured, with its 95 % interval."
    if len(severities) > 1:
        caption += (
            " By severity: mean over corruptions; its whiskers are the mean of the single "
            "intervals, wider than the mean's own."
        )
        title = "Mean over corruptions, by severity"
        drawn.append(line_chart("corruption-severity", title, "severity", by_severity))
    elif severities:
        caption = f"All at severity {severities[0]}, with 95 % intervals."
    caption += counted(material.measured, means)
    content = material.legend() + figure(charts(drawn), caption, links) if drawn else ""
    overall = [key for key in _OVERALL if key in keys]
    content += _table(material, [*means, *overall], "" if drawn else links)
    content += notes(doubts(material.measured, keys))
    return Section("corruptions", "Corruptions", notes(missing) + content, missing)


def _point(group: Group, key: str) -> Point:
    measured = group.get(key)
    assert measured is not None  # the caller asked for figures that are there
    return Point(0, measured.value, *measured.interval, measured.untrustworthy)


def _over_severity(group: Group, keys: list[str]) -> Series:
    found = defaultdict(list)
    for key in keys:
        measured = group.get(key)
        if "/severity=" in key and measured is not None:
            found[int(key.rsplit("=", 1)[1])].append(measured)
    points = [
        Point(
            severity,
            sum(m.value for m in measured) / len(measured),
            sum(m.interval[0] for m in measured) / len(measured),
            sum(m.interval[1] for m in measured) / len(measured),
        )
        for severity, measured in sorted(found.items())
    ]
    return replace(series_of(group), points=tuple(points))


def _table(material: Material, keys: list[str], links: str) -> str:
    headings = ["corruption", *(group.label for group in material.measured)]
    counts = per_row(material.measured, keys)
    rows = [
        [
            Cell(heading_of(key), below=counts[key]),
            *(figure_cell(group.get(key)) for group in material.measured),
        ]
        for key in keys
    ]
    caption = "Accuracies, mean over severities, with 95 % intervals."
    if "corruption/mce" in keys:
        caption += " mCE: mean error relative to the baseline's, less is better."
    caption += counted(material.measured, keys)
    return figure(table("Corruptions by methods", headings, rows), caption, links)
