"""The report: one page from a set of runs and their canonical set."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from clarep.clarid.canonical_set import MANIFEST, CanonicalSet
from clarep.clarid.set_pictures import SetPictures, read_pictures
from clarep.engine.artefacts import atomic_path
from clarep.engine.lock import hold
from clarep.errors import UserError
from clarep.report.html.markup import escape, figure, html_notes, link, paragraph, table
from clarep.report.html.material import Material, Section
from clarep.report.html.run_folders import group_runs, read_runs
from clarep.report.html.sections.attacks_section import attacks_section
from clarep.report.html.sections.backgrounds_section import backgrounds_section
from clarep.report.html.sections.beyond_section import beyond_section
from clarep.report.html.sections.calibration_section import calibration_section
from clarep.report.html.sections.canonical_section import canonical_section
from clarep.report.html.sections.corruptions_section import corruptions_section
from clarep.report.html.sections.cost_section import cost_section
from clarep.report.html.sections.features_section import features_section
from clarep.report.html.sections.focus_section import focus_section
from clarep.report.html.sections.results_section import results_section
from clarep.report.html.sections.setup_section import setup_section

PAGE_NAME = "index.html"
DATA_NAME = "data"
CANON = "canon"  # in a run's folder
# A browser that obeys this asks the network for nothing, whatever a run's strings hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def build_report(
    runs: Sequence[Path],
    canon: Path | None,
    out: Path,
    title: str = "Measured students",
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write OUT/index.html, which needs no other file, and its numbers as OUT/data/*.csv, .json.

    What a run lacks is left out, and the page says so and which command gives it. The same runs
    give the same bytes.

    Args:
        runs: folders that hold student/ and robustness/, as far as they got.
        canon: canonical set to show, or the folder above its canon/; None takes a canon/ in a
            run's folder, and leaves its sections out where there is none.
        out: folder of the report.
        title: heading of the page.
        tell: called with each thing that the page lacks, a sentence that says what gives it.

    Raises:
        UserError: if a run's folder does not exist, no run can be read, one is given twice, or
            canon is no whole canonical set.
    """
    read = read_runs(runs)
    canonical, canon_missing = _read_canon(canon, runs)
    pictures, pictures_missing = _read_pictures(canonical)
    material = Material(
        read, group_runs(read), canonical, canon_missing, pictures, pictures_missing
    )
    sections = _sections(material)
    _lock = hold(out)
    material.downloads.write(out / DATA_NAME)
    page = out / PAGE_NAME
    with atomic_path(page) as temporary:
        temporary.write_text(_page(title, material, sections), encoding="utf-8")
    if tell is not None:
        for text in dict.fromkeys(text for section in sections for text in section.missing):
            tell(text.replace("`", ""))
    return page


def _read_canon(given: Path | None, runs: Sequence[Path]) -> tuple[CanonicalSet | None, str]:
    """Return the set, or why it is missing; raises UserError if the one given is damaged."""
    if given is not None:
        inside = given / CANON
        is_above = not (given / MANIFEST).exists() and (inside / MANIFEST).exists()
        return CanonicalSet.load(inside if is_above else given), ""
    beside = [run / CANON for run in runs if (run / CANON / MANIFEST).exists()]
    if not beside:
        return None, (
            "no canonical set was given, so that its samples, spectrum and cost are not shown: "
            "`clarep report RUN… --canon DIR` shows them"
        )
    try:
        return CanonicalSet.load(beside[0]), ""
    except UserError as error:
        return None, f"the canonical set cannot be shown: {error}"


def _read_pictures(canon: CanonicalSet | None) -> tuple[SetPictures | None, tuple[str, ...]]:
    if canon is None:
        return None, ()
    try:
        return read_pictures(canon), ()
    except UserError as error:
        return None, (f"Originals, reconstructions and the features before: {error}",)


def _sections(material: Material) -> list[Section]:
    measurements = [
        {
            "run": run.name,
            "method": run.method,
            "seed": run.seed,
            "key": one.key,
            "value": one.value,
            "low": one.interval[0],
            "high": one.interval[1],
            "images": one.images,
            "untrustworthy": one.untrustworthy,
            "note": one.note,
        }
        for run in material.runs
        if run.evaluation is not None
        for one in run.evaluation.measurements
    ]
    material.downloads.keep("measurements", measurements)
    sections = [
        results_section(material),
        setup_section(material),
        cost_section(material),
        canonical_section(material),
        features_section(material),
        attacks_section(material),
        corruptions_section(material),
        backgrounds_section(material),
        beyond_section(material),
        calibration_section(material),
        focus_section(material),
    ]
    return [*(section for section in sections if section is not None), _data_section(material)]


def _data_section(material: Material) -> Section:
    names = {name: kept for name, kept in material.downloads.tables.items() if kept}
    rows = [
        [name, len(table_rows), f"data/{name}.csv, .json"] for name, table_rows in names.items()
    ]
    every = material.downloads.links("measurements") if names.get("measurements") else ""
    content = paragraph(
        "Every number of this page, inside it and as files in data/ beside it. measurements holds "
        "each run's own figures; the other tables hold what is shown, averaged over seeds."
    )
    listed = table("Data", ("table", "rows", "files beside the page"), rows)
    caption = "The links below figures and tables hold the same; measurements:"
    return Section("data", "Data", content + figure(listed, caption, every))


def _page(title: str, material: Material, sections: Sequence[Section]) -> str:
    style = (files("clarep.report.html") / "style.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in sections)
    body = "".join(
        f'<section id="{s.key}" aria-labelledby="{s.key}-h"><h2 id="{s.key}-h">'
        f"{escape(s.title)}</h2>{s.html}</section>"
        for s in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head><body>"
        f'<div class="page"><nav aria-label="Sections"><ol>{links}</ol></nav><main>'
        f"<h1>{escape(title)}</h1>{_lede(material, sections)}{body}"
        f"<footer>{paragraph('Made by clarep report. Self-contained: no network is used.')}"
        "</footer></main></div></body></html>\n"
    )


def _lede(material: Material, sections: Sequence[Section]) -> str:
    """Say in a sentence what the page is about, and in how many places something is missing."""
    evaluated = sum(run.evaluation is not None for run in material.runs)
    methods = ", ".join(group.label for group in material.groups)
    text = (
        f"{len(material.runs)} {_plural('run', len(material.runs))} of "
        f"{len(material.groups)} {_plural('method', len(material.groups))} ({methods}), "
        f"{evaluated} of them evaluated."
    )
    said = []
    if incomplete := [s for s in sections if s.missing]:
        places = ", ".join(link(s.key, s.title) for s in incomplete)
        said.append(f"This report is incomplete; what is missing is said in: {places}.")
    if material.single:
        said.append(_one_seed(material))
    return paragraph(text, "lede") + html_notes(said)


def _one_seed(material: Material) -> str:
    """Say which methods have one seed only, and where it is said what that means."""
    names = ", ".join(group.label for group in material.single)
    of_whom = "" if len(material.single) == len(material.measured) else f" of {escape(names)}"
    return (
        f"One seed only{of_whom}: the intervals come from the images and do not show how much "
        f"another seed would change. {link('another-seed', 'How to add one')}."
    )


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
