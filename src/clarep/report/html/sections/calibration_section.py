"""Whether the students know how sure they can be."""

from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from clarep.report.html.blocks import Block, Charts, Download, Figure, Section
from clarep.report.html.charts import reliability_chart
from clarep.report.html.figure_cells import measures_table
from clarep.report.html.report_data import ReportData
from clarep.report.html.run_folders import Group
from clarep.robustness.calibration import BINS, reliability


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
