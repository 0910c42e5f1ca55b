"""What is known where masks or boxes tell the object: other backgrounds, and saliency on it."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.clareps import as_rgb
from clarep.report.html import blocks
from clarep.report.html.blocks import Block, Cell, Figure, Picture, Section, Table, Text
from clarep.report.html.figure_cells import measures_table
from clarep.report.html.report_data import ReportData
from clarep.report.html.run_folders import Group
from clarep.robustness.measures import MEASURES

_MOST_EXAMPLES = 6
_SIDE = 72
_NO_OBJECTS = Text(
    "Nothing is measured here: it needs masks or boxes that tell objects from their background."
)
_PLACES = [one.pattern.removeprefix("background/") for one in MEASURES]


def backgrounds_section(data: ReportData) -> Section:
    """Tabulate the variants, and show examples with what each method saw in them."""
    return _section(data, "backgrounds", "Backgrounds", "", _swaps)


def focus_section(data: ReportData) -> Section:
    """Tabulate the share of saliency on the object, and show saliency beside the image."""
    caption = (
        "Share of the saliency's energy on the object. A student that does not care where the "
        "object is reaches the object's share of pixels."
    )
    return _section(data, "focus", "Saliency", caption, _saliency_pairs)


def _section(
    data: ReportData,
    group: str,
    title: str,
    caption: str,
    examples: Callable[[ReportData], tuple[list[Block], tuple[str, ...]]],
) -> Section:
    missing, keys = data.lacking(group), data.keys(group)
    if not keys:
        return Section(group, title, [] if missing else [_NO_OBJECTS], missing)
    shown, lacking = examples(data)
    parts = [*measures_table(data, group, keys, caption), *shown]
    return Section(group, title, parts, (*missing, *lacking))


def _with_arrays(data: ReportData, *names: str) -> list[tuple[Group, Mapping[str, Tensor]]]:
    """Return the methods whose first seed stored all of these arrays, and its arrays."""
    arrays = [(group, group.evaluations[0].arrays) for group in data.measured]
    return [(group, own) for group, own in arrays if set(names) <= set(own)]


def _swaps(data: ReportData) -> tuple[list[Block], tuple[str, ...]]:
    """Show the examples once, and below each image what every method predicts."""
    able = _with_arrays(data, "examples/original", "examples/label")
    if not able:
        return [], ("Example swaps were not stored: `clarep evaluate RUN` stores them",)
    first = able[0][1]
    variants = sorted(
        (name.split("/")[1] for name in first if f"{name}/predicted" in first),
        key=lambda variant: _PLACES.index(variant) if variant in _PLACES else len(_PLACES),
    )
    alike = [
        (group, own)
        for group, own in able
        if torch.equal(own["examples/original"], first["examples/original"])
    ]
    lacking = tuple(
        f"Example swaps of {group.label} are of other images and are left out: evaluate all runs "
        "on the same data"
        for group, own in able
        if own is not first and all(own is not other for _, other in alike)
    )
    if not variants:
        return [], (*lacking, "Predictions on the examples were not stored: `clarep evaluate RUN`")
    labels = first["examples/label"].tolist()
    names = data.class_names(max(labels) + 1)
    rows: list[list[object]] = []
    for i, label in enumerate(labels[:_MOST_EXAMPLES]):
        images = [as_rgb(first[f"examples/{variant}"][i]) for variant in variants]
        said = [f"{names[label]}, {variant}" for variant in variants]
        pictures = [Picture(*one, _SIDE) for one in zip(images, said, strict=True)]
        rows.append([names[label], *pictures])
        rows += [
            [
                Cell(group.label, css="method"),
                *(_predicted(own, v, i, label, names) for v in variants),
            ]
            for group, own in alike
        ]
    caption = (
        "The first examples that the evaluation stored, and the class that each method's first "
        "seed sees in them; ✗ marks another than the object's. On only_bg and no_fg, where the "
        "object is gone, naming its class is reading the background."
    )
    table = Table("Example swaps", ["", *variants], rows, css="swaps")
    return [Text("Example swaps", "h3"), Figure(table, caption)], lacking


def _predicted(
    arrays: Mapping[str, Tensor], variant: str, i: int, label: int, names: Sequence[str]
) -> Cell:
    stored = arrays.get(f"examples/{variant}/predicted")
    if stored is None:
        return blocks.NO_FIGURE
    seen = int(stored[i])
    word = names[seen] if 0 <= seen < len(names) else str(seen)
    return Cell(word, css="right") if seen == label else Cell(f"✗ {word}", css="wrong")


def _saliency_pairs(data: ReportData) -> tuple[list[Block], tuple[str, ...]]:
    able = _with_arrays(data, "examples/original", "examples/saliency")
    if not able:
        return [], ("Saliency maps were not stored: `clarep evaluate RUN` stores them",)
    first = able[0][1]
    shown = range(min(len(first["examples/original"]), _MOST_EXAMPLES))
    labels = first["examples/label"].tolist() if "examples/label" in first else []
    known = data.class_names(max(labels) + 1) if labels else []
    names = [known[labels[i]] if labels else f"example {i + 1}" for i in shown]
    images = {"original": [as_rgb(first["examples/original"][i]) for i in shown]}
    if "examples/mask" in first:
        masks = first["examples/mask"].numpy().astype(np.uint8) * 255
        images["mask of the object"] = [masks[i] for i in shown]
    for group, own in able:
        maps = own["examples/saliency"].double().numpy()
        images[group.label] = [heat(maps[i]) for i in shown if i < len(maps)]
    rows = [
        [what, *(Picture(image, f"{names[i]}, {what}", _SIDE) for i, image in enumerate(of_what))]
        + [None] * (len(names) - len(of_what))
        for what, of_what in images.items()
    ]
    table = Table("Saliency pairs", ["", *names], rows, css="gallery")
    caption = (
        "Magnitude of the input gradient of each method's first seed, dark to bright, each map "
        "scaled to its own 99th percentile."
    )
    return [Figure(table, caption)], ()


def heat(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return magnitudes (H, W) as colours (H, W, 3), the 99th percentile brightest."""
    magnitudes = np.abs(np.nan_to_num(values))
    scale = max(float(np.quantile(magnitudes, 0.99)), 1e-12)
    coloured = matplotlib.colormaps["inferno"](np.clip(magnitudes / scale, 0, 1), bytes=True)
    return np.ascontiguousarray(coloured[..., :3])
