"""Accuracy under attack, over the strength of the attack."""

from collections.abc import Sequence
from dataclasses import replace

from clarep.report.html.charts import Point, Series, line_chart
from clarep.report.html.figures import doubts, figure_cell, rows_of, share_cell
from clarep.report.html.markup import DASH, Cell, charts, figure, notes, paragraph, table
from clarep.report.html.material import Material, Section, series_of
from clarep.report.html.runs import Group
from clarep.report.html.sections.results import eps_of

_CLEAN = "clean/accuracy"
_NORMS = {
    "eps_255": ("L∞", "ε, in 1/255"),
    "eps_l2": ("L2", "ε, in units of [0, 1] pixels"),
}
_NAMES = {
    "pgd": "PGD", "apgd-ce": "APGD-CE", "apgd-dlr": "APGD-DLR", "worst": "Worst of all attacks",
    "autoattack": "AutoAttack",
}  # fmt: skip
_OTHERS = {"attack/cw-l2/median_l2": "CW L2, median distance"}


def attacks_section(material: Material) -> Section:
    """Draw a curve a method for every attack, and tabulate all figures."""
    missing = material.lacking("attack/", "Attacks")
    keys = material.keys("attack/")
    if not keys:
        return Section("attacks", "Attacks", notes(missing), missing)
    families: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        _, attack, setting = key.split("/", 2)
        unit = setting.split("=")[0]
        if unit in _NORMS:
            families.setdefault((attack, unit), []).append(key)
    order = sorted(families, key=lambda f: (list(_NORMS).index(f[1]), not f[0].startswith("worst")))
    drawn = [
        line_chart(
            f"attack-{attack}",
            f"{attack_name(attack)}, {_NORMS[unit][0]}",
            _NORMS[unit][1],
            [_series(group, families[attack, unit]) for group in material.measured],
        )
        for attack, unit in order
        if _is_curve(families[attack, unit])
    ]
    links = material.downloads.add("attacks", rows_of(material.measured, [_CLEAN, *keys]))
    content = paragraph(
        "Hollow markers and daggers are figures that a check against gradient masking found not "
        "to be trustworthy; the reasons stand below the table."
    )
    content += material.legend() + figure(
        charts(drawn),
        "Share of images still classified correctly; ε = 0 is the clean accuracy. "
        "Whiskers: 95 % intervals.",
        links,
    )
    in_order = [key for family in order for key in sorted(families[family], key=eps_of)]
    in_order += [key for key in keys if key not in in_order]
    content += _table(material, in_order) + notes(doubts(material.measured, keys))
    return Section("attacks", "Attacks", notes(missing) + content, missing)


def attack_name(attack: str) -> str:
    """Return the attack's name without its norm, as it is written in papers."""
    short = attack.removesuffix("-linf").removesuffix("-l2")
    return _NAMES.get(short, short)


def _is_curve(keys: Sequence[str]) -> bool:
    return any(eps_of(key) > 0 for key in keys)


def _series(group: Group, keys: Sequence[str]) -> Series:
    places = [(eps_of(key), key) for key in keys]
    if all(eps > 0 for eps, _ in places):
        places.append((0.0, _CLEAN))
    points = [
        Point(eps, measured.value, *measured.interval, measured.untrustworthy)
        for eps, key in sorted(places)
        if (measured := group.get(key)) is not None
    ]
    attacked = any(point.x > 0 for point in points)
    return replace(series_of(group), points=tuple(points) if attacked else ())


def _table(material: Material, keys: Sequence[str]) -> str:
    headings = ["attack", "ε", *(group.label for group in material.measured)]
    rows = []
    for key in keys:
        _, attack, setting = key.split("/", 2)
        unit = setting.split("=")[0]
        share = unit in _NORMS
        norm = _NORMS[unit][0] if share else ""
        eps = f"{eps_of(key):g}" + ("/255" if unit == "eps_255" else "") if share else DASH
        what = f"{attack_name(attack)} {norm}" if share else _OTHERS.get(key, key)
        figures = [(share_cell if share else figure_cell)(g.get(key)) for g in material.measured]
        rows.append([what.strip(), Cell(eps, number=True), *figures])
    name = "Attacks by methods"
    return figure(table(name, headings, rows), "Accuracies in % with 95 % intervals.")
