"""Accuracy under attack, over the strength of the attack."""

from collections.abc import Sequence
from dataclasses import replace

from clarep.report.html.charts import Point, Series, line_chart
from clarep.report.html.counts import counted, images_of, per_row
from clarep.report.html.figures import doubts, figure_cell, rows_of
from clarep.report.html.markup import DASH, Cell, charts, figure, notes, paragraph, table
from clarep.report.html.material import Material, Section, series_of
from clarep.report.html.run_folders import Group
from clarep.report.html.sections.results_section import eps_of
from clarep.robustness.measures import heading_of, measure_of

_CLEAN = "clean/accuracy"
_ATTACKED_CLEAN = "attack/clean"  # of the attacked images alone, before the attack
_FEWEST = 2  # strengths above 0 that make a curve
_NORMS = {
    "eps_255": ("L∞", "ε, in 1/255"),
    "eps_l2": ("L2", "ε, in units of [0, 1] pixels"),
}


def attacks_section(material: Material) -> Section:
    """Draw a curve a method for every attack of several strengths, and tabulate all figures."""
    missing = material.lacking("attacks")
    keys = material.keys("attacks")
    if not [key for key in keys if key != _ATTACKED_CLEAN]:
        return Section("attacks", "Attacks", notes(missing), missing)
    families: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        attack, unit = _parts(key)
        if unit in _NORMS:
            families.setdefault((attack, unit), []).append(key)
    order = sorted(families, key=lambda f: (list(_NORMS).index(f[1]), not f[0].startswith("worst")))
    drawn = [
        line_chart(
            f"attack-{attack}",
            attack_name(families[attack, unit][0]),
            _NORMS[unit][1],
            [_series(group, families[attack, unit]) for group in material.measured],
        )
        for attack, unit in order
        if len({eps for key in families[attack, unit] if (eps := eps_of(key)) > 0}) >= _FEWEST
    ]
    links = material.downloads.add("attacks", rows_of(material.measured, [_CLEAN, *keys]))
    content = ""
    if drawn:
        content += paragraph(
            "Hollow markers and daggers are figures that a check against gradient masking found "
            "not to be trustworthy; the reasons stand below the table."
        )
        content += material.legend() + figure(
            charts(drawn),
            f"Share of images still classified correctly. {_of_zero(material, keys)} "
            f"Whiskers: 95 % intervals.{counted(material.measured, _attacked(keys))}",
            links,
        )
    in_order = [key for family in order for key in sorted(families[family], key=eps_of)]
    in_order = [*([_ATTACKED_CLEAN] if _ATTACKED_CLEAN in keys else []), *in_order]
    in_order += [key for key in keys if key not in in_order]
    content += _table(material, in_order, "" if drawn else links)
    content += notes(doubts(material.measured, keys))
    return Section("attacks", "Attacks", notes(missing) + content, missing)


def _parts(key: str) -> tuple[str, str]:
    """Return the attack of a key and the unit of its strength, as far as it names them."""
    _, attack, setting = [*key.split("/", 2), "", ""][:3]
    return attack, setting.split("=")[0]


def _attacked(keys: Sequence[str]) -> list[str]:
    return [key for key in keys if _parts(key)[1] in _NORMS]


def _of_zero(material: Material, keys: Sequence[str]) -> str:
    """Say which images the figure at no attack is of."""
    if all(group.get(_ATTACKED_CLEAN) for group in material.measured if _has_attacks(group, keys)):
        return "ε = 0 is the accuracy of the same images before the attack."
    clean, attacked = (images_of(material.measured, of) for of in ([_CLEAN], _attacked(keys)))
    if clean == attacked:
        return "ε = 0 is the clean accuracy."
    return (
        f"ε = 0 is the clean accuracy over other images ({clean}) than those attacked, so that "
        "the first step of a curve is not the attack's alone."
    )


def _has_attacks(group: Group, keys: Sequence[str]) -> bool:
    return any(group.get(key) for key in _attacked(keys))


def attack_name(key: str) -> str:
    """Return the attack's name with its norm, as it is written in papers."""
    short = measure_of(key).heading.split(" {}")[0].removesuffix(" L2")
    return f"{short} {_NORMS[_parts(key)[1]][0]}"


def _series(group: Group, keys: Sequence[str]) -> Series:
    places = [(eps_of(key), key) for key in keys]
    if all(eps > 0 for eps, _ in places):
        places.append((0.0, _ATTACKED_CLEAN if group.get(_ATTACKED_CLEAN) else _CLEAN))
    points = [
        Point(eps, measured.value, *measured.interval, measured.untrustworthy)
        for eps, key in sorted(places)
        if (measured := group.get(key)) is not None
    ]
    attacked = any(point.x > 0 for point in points)
    return replace(series_of(group), points=tuple(points) if attacked else ())


def _table(material: Material, keys: Sequence[str], links: str) -> str:
    headings = ["attack", "ε", *(group.label for group in material.measured)]
    counts = per_row(material.measured, keys)
    rows = []
    for key in keys:
        unit = _parts(key)[1]
        eps = f"{eps_of(key):g}" + ("/255" if unit == "eps_255" else "") if unit in _NORMS else DASH
        what = attack_name(key) if unit in _NORMS else heading_of(key)
        figures = [figure_cell(g.get(key)) for g in material.measured]
        rows.append([Cell(what, below=counts[key]), Cell(eps, number=True), *figures])
    caption = "Accuracies with 95 % intervals." + counted(material.measured, keys)
    return figure(table("Attacks by methods", headings, rows), caption, links)
