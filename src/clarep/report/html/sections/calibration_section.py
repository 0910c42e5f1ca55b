"""Whether the students know how sure they can be."""

from typing import Any

import torch
from torch import Tensor

from clarep.report.html.charts import reliability_chart
from clarep.report.html.counts import counted, per_row
from clarep.report.html.figures import doubts, figure_cell, rows_of
from clarep.report.html.markup import Cell, charts, figure, notes, table
from clarep.report.html.material import Material, Section
from clarep.report.html.run_folders import Group
from clarep.robustness.calibration import BINS, reliability
from clarep.robustness.measures import heading_of, measure_of


def calibration_section(material: Material) -> Section:
    """Draw a reliability diagram a method, and tabulate calibration and OOD detection."""
    missing = material.lacking("calibration")
    drawn: list[str] = []
    points: list[dict[str, Any]] = []
    for group in material.measured:
        probabilities, labels = _of(group)
        if len(labels) == 0:
            missing += (
                f"{group.label}'s probabilities were not stored: "
                f"`clarep evaluate {group.runs[0].folder}` stores them",
            )
            continue
        bins = reliability(probabilities, labels)
        name = f"reliability-{len(drawn)}"
        title = f"n = {len(labels):,}, {group.label}"
        drawn.append(reliability_chart(name, title, bins, group.css, group.slot))
        points += [
            {"method": group.label, "confidence": c, "accuracy": a, "share": s} for c, a, s in bins
        ]
    content = ""
    if drawn:
        links = material.downloads.add("reliability", points)
        content += figure(
            charts(drawn, _grid(len(drawn))),
            f"Reliability on the n clean test images of all seeds together, {BINS} bins of equal "
            "width. "
            "Above the diagonal: less sure than right; below: too sure. A marker's area is the "
            "bin's share of images.",
            links,
        )
    keys = material.keys("calibration", "ood")
    if keys:
        headings = ["measure", *(group.label for group in material.measured)]
        counts = per_row(material.measured, keys)
        rows = [
            [
                Cell(heading_of(key), below=_below(key, counts[key])),
                *(figure_cell(group.get(key)) for group in material.measured),
            ]
            for key in keys
        ]
        links = material.downloads.add("calibration", rows_of(material.measured, keys))
        caption = "With 95 % intervals." + counted(material.measured, keys)
        content += figure(table("Calibration by methods", headings, rows), caption, links)
        content += notes(doubts(material.measured, keys))
    return Section("calibration", "Calibration", notes(missing) + content, missing)


def _grid(panels: int) -> str:
    """Return the class name of a grid that few or no holes are left in."""
    return "panels by3" if panels % 3 == 0 or panels == 5 else "panels"


def _below(key: str, images: str) -> str:
    return f"{measure_of(key).unit_and_better}\n{images}".strip()


def _of(group: Group) -> tuple[Tensor, Tensor]:
    """Return probabilities (N, K) and labels (N,) of all seeds one after another."""
    arrays = [e.arrays for e in group.evaluations if {"probabilities", "label"} <= set(e.arrays)]
    if not arrays:
        return torch.zeros(0, 0), torch.zeros(0)
    return torch.cat([a["probabilities"] for a in arrays]), torch.cat([a["label"] for a in arrays])
