"""Whether the students know how sure they can be."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clarep.report.html.charts import reliability_chart
from clarep.report.html.counts import counted, per_row
from clarep.report.html.figures import doubts, figure_cell, rows_of
from clarep.report.html.markup import Cell, charts, figure, notes, table
from clarep.report.html.material import Material, Section
from clarep.report.html.runs import Group

_BINS = 15
_NAMES = {
    "calibration/ece": "ECE",
    "calibration/adaptive_ece": "adaptive ECE",
    "calibration/brier": "Brier score",
    "calibration/nll": "NLL, nats",
}


def calibration_section(material: Material) -> Section:
    """Draw a reliability diagram a method, and tabulate calibration and OOD detection."""
    missing = material.lacking("calibration/", "Calibration")
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
            f"Reliability on the n clean test images of all seeds together, {_BINS} bins of equal "
            "width. "
            "Above the diagonal: less sure than right; below: too sure. A marker's area is the "
            "bin's share of images.",
            links,
        )
    keys = [*material.keys("calibration/"), *material.keys("ood/")]
    if keys:
        headings = ["measure", *(group.label for group in material.measured)]
        counts = per_row(material.measured, keys)
        rows = [
            [
                Cell(_name(key), below=counts[key]),
                *(figure_cell(group.get(key)) for group in material.measured),
            ]
            for key in keys
        ]
        links = material.downloads.add("calibration", rows_of(material.measured, keys))
        caption = "With 95 % intervals; less is better, except for AUROC."
        caption += counted(material.measured, keys)
        content += figure(table("Calibration by methods", headings, rows), caption, links)
        content += notes(doubts(material.measured, keys))
    return Section("calibration", "Calibration", notes(missing) + content, missing)


def _grid(panels: int) -> str:
    """Return the class name of a grid that few or no holes are left in."""
    return "panels by3" if panels % 3 == 0 or panels == 5 else "panels"


def _name(key: str) -> str:
    if key.startswith("ood/"):
        return f"AUROC against {key.split('/')[1]}"
    return _NAMES.get(key, key.split("/", 1)[1])


def _of(group: Group) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return probabilities (N, K) and labels (N,) of all seeds one after another."""
    arrays = [e.arrays for e in group.evaluations if {"probabilities", "label"} <= set(e.arrays)]
    if not arrays:
        return np.zeros((0, 0)), np.zeros(0, np.int64)
    probabilities = torch.cat([one["probabilities"].double() for one in arrays]).numpy()
    return probabilities, torch.cat([one["label"].long() for one in arrays]).numpy()


def reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> list[tuple[float, float, float]]:
    """Return (mean confidence, accuracy, share of images) of each bin that is not empty."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    # A confidence on the border of two bins belongs to the lower one, as in Guo et al. 2017.
    which = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    return [
        (
            float(confidence[members].mean()),
            float(correct[members].mean()),
            float(members.mean()),
        )
        for b in range(_BINS)
        if (members := which == b).any()
    ]
