"""Other backgrounds behind the same objects: figures and examples."""

import torch

from clarep.report.html.counts import counted, per_row
from clarep.report.html.figures import doubts, figure_cell, rows_of
from clarep.report.html.markup import DASH, Cell, escape, figure, notes, paragraph, picture, table
from clarep.report.html.material import NO_OBJECTS, Material, Section
from clarep.report.html.run_folders import Group
from clarep.report.html.sections.names import names_of
from clarep.report.set_figures import as_rgb
from clarep.robustness.measures import MEASURES, heading_of, measure_of

_MOST_EXAMPLES = 6


def backgrounds_section(material: Material) -> Section:
    """Tabulate the variants, and show examples with what each method saw in them."""
    missing = material.lacking("backgrounds")
    keys = material.keys("backgrounds")
    if not keys:
        content = notes(missing) if missing else paragraph(NO_OBJECTS)
        return Section("backgrounds", "Backgrounds", content, missing)
    links = material.downloads.add("backgrounds", rows_of(material.measured, keys))
    counts = per_row(material.measured, keys)
    rows = [
        [
            Cell(heading_of(key), below=f"{measure_of(key).meaning}\n{counts[key]}".strip()),
            *(figure_cell(group.get(key)) for group in material.measured),
        ]
        for key in keys
    ]
    headings = ["images", *(group.label for group in material.measured)]
    content = figure(
        table("Backgrounds by methods", headings, rows),
        "Accuracies with 95 % intervals; of BG-gap and flipped less is better."
        + counted(material.measured, keys),
        links,
    )
    content += notes(doubts(material.measured, keys))
    swaps, lacking = _swaps(material)
    missing = (*missing, *lacking)
    return Section("backgrounds", "Backgrounds", notes(missing) + content + swaps, missing)


def _swaps(material: Material) -> tuple[str, tuple[str, ...]]:
    """Show the examples once, and below each image what every method predicts."""
    with_examples = [
        group for group in material.measured if "examples/original" in group.evaluations[0].arrays
    ]
    if not with_examples:
        return "", ("Example swaps were not stored: `clarep evaluate RUN` stores them",)
    first = with_examples[0].evaluations[0].arrays
    variants = [
        name.split("/")[1]
        for name in sorted(first, key=_place)
        if name.startswith("examples/") and f"{name}/predicted" in first
    ]
    alike = [
        group
        for group in with_examples
        if torch.equal(group.evaluations[0].arrays["examples/original"], first["examples/original"])
    ]
    lacking = tuple(
        f"Example swaps of {group.label} are of other images and are left out: evaluate all runs "
        "on the same data"
        for group in with_examples
        if group not in alike
    )
    if not variants:
        return "", (*lacking, "Predictions on the examples were not stored: `clarep evaluate RUN`")
    labels = first["examples/label"].tolist()
    names = names_of(material, max(labels) + 1)
    body = "".join(
        _example(i, labels[i], variants, alike, names)
        for i in range(min(len(labels), _MOST_EXAMPLES))
    )
    head = "".join(f'<th scope="col">{escape(variant)}</th>' for variant in ["", *variants])
    swaps = (
        '<div class="scroll" role="region" tabindex="0" aria-label="Example swaps">'
        f'<table class="swaps"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
    caption = (
        "The first examples that the evaluation stored, and the class that each method's first "
        "seed sees in them; ✗ marks another than the object's. On only_bg and no_fg, where the "
        "object is gone, naming its class is reading the background."
    )
    return "<h3>Example swaps</h3>" + figure(swaps, caption), lacking


def _place(name: str) -> int:
    """Return where a variant stands in the order of the table."""
    variants = [one.heading for one in MEASURES if one.group == "backgrounds"]
    variant = name.split("/")[1] if "/" in name else name
    return variants.index(variant) if variant in variants else len(variants)


def _example(i: int, label: int, variants: list[str], groups: list[Group], names: list[str]) -> str:
    name = names[label]
    arrays = groups[0].evaluations[0].arrays
    images = "".join(
        f"<td>{picture(as_rgb(arrays[f'examples/{v}'][i]), f'{name}, {v}', 72)}</td>"
        for v in variants
    )
    lines = [f'<tr class="images"><th scope="row">{escape(name)}</th>{images}</tr>']
    for group in groups:
        own = group.evaluations[0].arrays
        cells = "".join(_predicted(own, v, i, label, names) for v in variants)
        lines.append(f'<tr><th scope="row"><small>{escape(group.label)}</small></th>{cells}</tr>')
    return "".join(lines)


def _predicted(
    arrays: dict[str, torch.Tensor], variant: str, i: int, label: int, names: list[str]
) -> str:
    stored = arrays.get(f"examples/{variant}/predicted")
    if stored is None:
        return f'<td class="none">{DASH}</td>'
    seen = int(stored[i])
    word = names[seen] if 0 <= seen < len(names) else str(seen)
    css, mark = ("right", "") if seen == label else ("wrong", "✗ ")
    return f'<td class="{css}">{mark}{escape(word)}</td>'
