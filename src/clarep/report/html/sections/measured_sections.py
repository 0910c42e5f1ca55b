"""What needs no mask: attacks and corruptions over their strength, calibration, other sets."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from clarep.report.html.blocks import Block, Charts, Download, Figure, Section, Text
from clarep.report.html.charts import Point, Series, bar_chart, line_chart, reliability_chart
from clarep.report.html.figure_cells import counted, images_of, measures_table
from clarep.report.html.report_data import ReportData
from clarep.report.html.run_folders import Group
from clarep.report.html.sections.results_section import eps_of
from clarep.report.html.svg import Number
from clarep.robustness.calibration import BINS, reliability
from clarep.robustness.evaluation import Measurement
from clarep.robustness.measures import heading_of, measure_of

_CLEAN = "clean/accuracy"
_ATTACKED_CLEAN = "attack/clean"  # of the attacked images alone, before the attack
_FEWEST = 2  # strengths above 0 that make a curve
_STRENGTHS = {"eps_255": "ε, in 1/255", "eps_l2": "ε, in units of [0, 1] pixels"}


def attacks_section(data: ReportData) -> Section:
    """Draw a curve a method for every attack of several strengths, and tabulate all figures."""
    missing, keys = data.lacking("attacks"), data.keys("attacks")
    if not [key for key in keys if key != _ATTACKED_CLEAN]:
        return Section("attacks", "Attacks", [], missing)
    families: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        if (unit := _unit(key)) in _STRENGTHS:
            families.setdefault((key.split("/")[1], unit), []).append(key)
    order = sorted(
        families, key=lambda f: (list(_STRENGTHS).index(f[1]), not f[0].startswith("worst"))
    )
    drawn = [
        line_chart(
            f"attack-{attack}",
            _title(families[attack, unit][0]),
            _STRENGTHS[unit],
            [_attacked_series(group, families[attack, unit]) for group in data.measured],
        )
        for attack, unit in order
        if len({eps for key in families[attack, unit] if (eps := eps_of(key)) > 0}) >= _FEWEST
    ]
    attacked = [key for family in order for key in sorted(families[family], key=eps_of)]
    blocks: list[Block] = []
    if drawn:
        words = (
            "Hollow markers and daggers are figures that a check against gradient masking found "
            "not to be trustworthy; the reasons stand below the table."
        )
        caption = (
            f"Share of images still classified correctly. {_of_zero(data, attacked)} "
            f"Whiskers: 95 % intervals.{counted(data.measured, attacked)}"
        )
        blocks += [Text(words), data.legend, Figure(Charts(drawn), caption)]
    first = [key for key in keys if key == _ATTACKED_CLEAN]
    last = [key for key in keys if key not in (*first, *attacked)]
    rows, behind = [*first, *attacked, *last], [_CLEAN, *keys]
    blocks += measures_table(data, "attacks", rows, explained=False, behind=behind)
    return Section("attacks", "Attacks", blocks, missing)


def _title(key: str) -> str:
    """Return an attack's name with its norm, as it is written in papers."""
    return measure_of(key).heading.replace("{}/255", "L∞").replace(" {}", "")


def _unit(key: str) -> str:
    """Return the unit of an attack's strength; empty where it has none."""
    return key.rsplit("/", maxsplit=1)[-1].split("=", maxsplit=1)[0]


def _of_zero(data: ReportData, attacked: Sequence[str]) -> str:
    """Say which images the figure at no attack is of."""
    of_attacks = [group for group in data.measured if any(group.get(key) for key in attacked)]
    if all(group.get(_ATTACKED_CLEAN) for group in of_attacks):
        return "ε = 0 is the accuracy of the same images before the attack."
    clean, others = (images_of(data.measured, of) for of in ([_CLEAN], attacked))
    if clean == others:
        return "ε = 0 is the clean accuracy."
    return (
        f"ε = 0 is the clean accuracy over other images ({clean}) than those attacked, so that "
        "the first step of a curve is not the attack's alone."
    )


def _attacked_series(group: Group, keys: Sequence[str]) -> Series:
    places = [(eps_of(key), key) for key in keys]
    if all(eps > 0 for eps, _ in places):
        places.append((0.0, _ATTACKED_CLEAN if group.get(_ATTACKED_CLEAN) else _CLEAN))
    points = [_point(eps, group.get(key)) for eps, key in sorted(places)]
    found = [point for point in points if point is not None]
    return _series(group, found if any(point.x > 0 for point in found) else ())


def _series(group: Group, points: Sequence[Point] = ()) -> Series:
    return Series(group.label, group.css, group.slot, tuple(points))


def _point(x: Number, measured: Measurement | None) -> Point | None:
    if measured is None:
        return None
    return Point(x, measured.value, *measured.interval, measured.untrustworthy)


def corruptions_section(data: ReportData) -> Section:
    """Draw bars for each corruption and the mean over corruptions at each severity."""
    missing, keys = data.lacking("corruptions"), data.keys("corruptions")
    if not keys:
        return Section("corruptions", "Corruptions", [], missing)
    means = [key for key in keys if measure_of(key).pattern == "corruption/*/mean"]
    singles = [key for key in keys if "/severity=" in key]
    bars = [
        [(_series(group), point) for group in data.measured if (point := _point(0, group.get(key)))]
        for key in means
    ]
    rows = list(zip(map(heading_of, means), bars, strict=True))
    drawn = [bar_chart("corruption-bars", "Accuracy by corruption", "accuracy", rows)] * bool(rows)
    by_severity = [_over_severity(group, singles) for group in data.measured]
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
    blocks: list[Block] = []
    if drawn:
        caption += counted(data.measured, means)
        blocks += [data.legend, Figure(Charts(drawn), caption)]
    overall = [key for key in keys if key not in (*means, *singles)]
    shown, words = [*means, *overall], "Means over severities."
    blocks += measures_table(data, "corruptions", shown, words, explained=False, behind=keys)
    return Section("corruptions", "Corruptions", blocks, missing)


def _over_severity(group: Group, keys: Sequence[str]) -> Series:
    found = defaultdict(list)
    for key in keys:
        if (point := _point(eps_of(key), group.get(key))) is not None:
            found[int(point.x)].append(point)
    points = [
        Point(x, *(sum(values) / len(at) for values in zip(*map(_bounds, at), strict=True)))
        for x, at in sorted(found.items())
    ]
    return _series(group, points)


def _bounds(point: Point) -> tuple[Number, Number, Number]:
    return point.value, point.low, point.high


def calibration_section(data: ReportData) -> Section:
    """Draw a reliability diagram a method, and tabulate calibration and OOD detection."""
    missing = data.lacking("calibration")
    drawn: list[Markup] = []
    points: list[dict[str, Any]] = []
    for group in data.measured:
        probabilities, labels = _of(group)
        if len(labels) == 0:
            missing += (
                f"{group.label}'s probabilities were not stored: "
                f"`clarep evaluate {group.runs[0].folder}` stores them",
            )
            continue
        bins = reliability(probabilities, labels)
        name, title = f"reliability-{len(drawn)}", f"n = {len(labels):,}, {group.label}"
        drawn.append(reliability_chart(name, title, bins, group.css, group.slot))
        points += [
            {"method": group.label, "confidence": c, "accuracy": a, "share": s} for c, a, s in bins
        ]
    blocks: list[Block] = []
    if drawn:
        caption = (
            f"Reliability on the n clean test images of all seeds together, {BINS} bins of equal "
            "width. Above the diagonal: less sure than right; below: too sure. A marker's area is "
            "the bin's share of images."
        )
        blocks.append(Figure(Charts(drawn), caption, Download("reliability", points)))
    if keys := data.keys("calibration", "ood"):
        blocks += measures_table(data, "calibration", keys)
    return Section("calibration", "Calibration", blocks, missing)


def _of(group: Group) -> tuple[Tensor, Tensor]:
    """Return probabilities (N, K) and labels (N,) of all seeds one after another."""
    arrays = [e.arrays for e in group.evaluations if {"probabilities", "label"} <= set(e.arrays)]
    if not arrays:
        return torch.zeros(0, 0), torch.zeros(0)
    return torch.cat([a["probabilities"] for a in arrays]), torch.cat([a["label"] for a in arrays])


def beyond_section(data: ReportData) -> list[Section]:
    """Tabulate other natural test sets, where any was measured: nobody need have one."""
    keys = data.keys("beyond")
    return (
        [Section("beyond", "Other test sets", measures_table(data, "beyond", keys))] if keys else []
    )
