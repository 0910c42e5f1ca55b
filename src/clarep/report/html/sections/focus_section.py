"""Where the students look: input gradients beside the object's mask."""

import matplotlib
import numpy as np
from numpy.typing import NDArray

from clarep.report.html.counts import counted, per_row
from clarep.report.html.figures import doubts, figure_cell, rows_of
from clarep.report.html.markup import DASH, Cell, figure, notes, paragraph, picture, table
from clarep.report.html.material import NO_OBJECTS, Material, Section
from clarep.report.html.sections.names import names_of
from clarep.report.set_figures import as_rgb
from clarep.robustness.measures import heading_of

_MOST_EXAMPLES = 6


def focus_section(material: Material) -> Section:
    """Tabulate the share of saliency on the object, and show saliency beside the image."""
    missing = material.lacking("focus")
    keys = material.keys("focus")
    content = ""
    if keys:
        headings = ["energy inside the mask", *(group.label for group in material.measured)]
        counts = per_row(material.measured, keys)
        rows = [
            [
                Cell(heading_of(key), below=counts[key]),
                *(figure_cell(group.get(key)) for group in material.measured),
            ]
            for key in keys
        ]
        links = material.downloads.add("focus", rows_of(material.measured, keys))
        caption = (
            "Share of the saliency's energy on the object, with 95 % intervals. A student "
            "that does not care where the object is reaches the mask's share of pixels."
        ) + counted(material.measured, keys)
        content += figure(table("Focus by methods", headings, rows), caption, links)
        content += notes(doubts(material.measured, keys))
    if not keys and not missing:
        return Section("focus", "Saliency", paragraph(NO_OBJECTS))
    pairs, lacking = _pairs(material) if keys else ("", ())
    missing = (*missing, *lacking)
    return Section("focus", "Saliency", notes(missing) + content + pairs, missing)


def _pairs(material: Material) -> tuple[str, tuple[str, ...]]:
    able = [
        group
        for group in material.measured
        if {"examples/original", "examples/saliency"} <= set(group.evaluations[0].arrays)
    ]
    if not able:
        return "", ("Saliency maps were not stored: `clarep evaluate RUN` stores them",)
    first = able[0].evaluations[0].arrays
    labels = first["examples/label"].tolist() if "examples/label" in first else None
    names = names_of(material, max(labels) + 1) if labels else []
    rows = []
    for i in range(min(len(first["examples/original"]), _MOST_EXAMPLES)):
        name = names[labels[i]] if labels else f"example {i + 1}"
        cells = [Cell("", html=picture(as_rgb(first["examples/original"][i]), f"{name}", 72))]
        if "examples/mask" in first:
            mask = first["examples/mask"][i].numpy().astype(np.uint8) * 255
            cells.append(Cell("", html=picture(mask, f"{name}, mask of the object", 72)))
        for group in able:
            maps = group.evaluations[0].arrays["examples/saliency"]
            if i >= len(maps):
                cells.append(Cell(DASH, css="none"))
                continue
            shown = heat(maps[i].double().numpy())
            cells.append(Cell("", html=picture(shown, f"{name}, saliency of {group.label}", 72)))
        rows.append([name, *cells])
    masked = ["mask"] if "examples/mask" in first else []
    headings = ["class", "original", *masked, *(group.label for group in able)]
    caption = (
        "Magnitude of the input gradient of each method's first seed, dark to bright, each map "
        "scaled to its own 99th percentile."
    )
    return figure(table("Saliency pairs", headings, rows, css="gallery"), caption), ()


def heat(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return magnitudes (H, W) as colours (H, W, 3), the 99th percentile brightest."""
    magnitudes = np.abs(np.nan_to_num(values))
    scale = max(float(np.quantile(magnitudes, 0.99)), 1e-12)
    coloured = matplotlib.colormaps["inferno"](np.clip(magnitudes / scale, 0, 1), bytes=True)
    return np.ascontiguousarray(coloured[..., :3])
