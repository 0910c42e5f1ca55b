"""The report: one page from a set of runs and their canonical set."""

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from clarep.engine.artefacts import atomic_path
from clarep.engine.lock import hold
from clarep.engine.printable import printable
from clarep.report.html.blocks import Download, Figure, Section, Table, Text
from clarep.report.html.report_data import ReportData, read_report_data
from clarep.report.html.sections.audit_section import audit_section
from clarep.report.html.sections.canonical_section import canonical_section
from clarep.report.html.sections.features_section import features_section
from clarep.report.html.sections.measured_sections import (
    attacks_section,
    beyond_section,
    calibration_section,
    corruptions_section,
)
from clarep.report.html.sections.object_sections import backgrounds_section, focus_section
from clarep.report.html.sections.results_section import compare_methods, results_section, verdict
from clarep.report.html.sections.setup_section import cost_section, setup_section
from clarep.robustness.evaluation import EVALUATION_NAME
from clarep.study.runs import ROBUSTNESS, STUDENT, STUDENT_CONFIG

PAGE_NAME = "index.html"
DATA_NAME = "data"


def build_report(
    runs: Sequence[Path | str],
    canon: Path | str | None,
    out: Path | str,
    title: str | None = None,
    tell: Callable[[str], None] | None = None,
    *,
    audit: Path | str | None = None,
) -> Path:
    """Write OUT/index.html, which needs no other file, and its numbers as OUT/data/*.csv, .json.

    What a run lacks is left out, and the page says so and which command gives it. The same runs
    give the same bytes. Nothing is computed anew: no teacher, data set or student is loaded.

    Args:
        runs: folders that hold student/ and robustness/, as far as they got.
        canon: canonical set to show, or the folder above its canon/; None takes a canon/ in a
            run's folder, and leaves its sections out where there is none.
        out: folder of the report.
        title: heading of the page, in front of the day of the last run; None names methods and
            data.
        audit: folder of an audit to show; None takes that of the study that the runs are of.
        tell: called with each thing that the page lacks, a sentence that says what gives it.

    Raises:
        UserError: if a run's folder does not exist, no run can be read, one is given twice, or
            canon is no whole canonical set, or audit no finished audit.
    """
    out, canon = Path(out), None if canon is None else Path(canon)
    folders = [Path(run) for run in runs]
    data = read_report_data(folders, canon, None if audit is None else Path(audit))
    compared = compare_methods(data)
    sections = [
        canonical_section(data),
        results_section(data, compared),
        attacks_section(data),
        corruptions_section(data),
        backgrounds_section(data),
        *beyond_section(data),
        *audit_section(data),
        calibration_section(data),
        focus_section(data),
        features_section(data),
        setup_section(data),
        cost_section(data),
    ]
    sections.append(_data_section(data, [one for s in sections for one in s.downloads]))
    page = {
        "title": f"{title or _named(data)}, {_day(folders)}",
        "verdict": verdict(compared),
        "one_seed": _one_seed(data),
        "sections": sections,
        "style": Markup(_resource("style.css") + chart_style()),
    }
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(_resource("page.html.jinja")).render(page)
    _lock = hold(out)
    for one in (download for section in sections for download in section.downloads):
        one.write(out / DATA_NAME)
    with atomic_path(out / PAGE_NAME) as temporary:
        temporary.write_text(printable(text), encoding="utf-8")
    if tell is not None:
        for lacking in dict.fromkeys(text for section in sections for text in section.missing):
            tell(lacking.replace("`", ""))
    return out / PAGE_NAME


def chart_style() -> str:
    """Return the style sheet of charts, which a page gives its colours."""
    return _resource("charts.css")


def _resource(name: str) -> str:
    return (files("clarep.report.html") / name).read_text(encoding="utf-8")


def _named(data: ReportData) -> str:
    """Name the methods and what they were trained on."""
    methods = [group.label for group in data.groups]
    names = " and ".join(filter(None, [", ".join(methods[:-1]), methods[-1]]))
    options = [run.config.get("data_options") or run.config for run in data.runs]
    sets = list(dict.fromkeys(Path(str(one["data"])).name for one in options if one.get("data")))
    return names + (f" on {' and '.join(sets)}" if sets else "")


def _day(runs: Sequence[Path]) -> str:
    """Return the day, in UTC, on which the last of the runs was trained or evaluated."""
    found = [
        path
        for run in runs
        for path in (run / STUDENT / STUDENT_CONFIG, run / ROBUSTNESS / EVALUATION_NAME)
        if path.exists()
    ]
    last = max(path.stat().st_mtime for path in found)
    return f"{datetime.fromtimestamp(last, timezone.utc):%Y-%m-%d}"


def _one_seed(data: ReportData) -> str:
    """Say which methods have one seed only; empty where none has."""
    if not data.single:
        return ""
    names = ", ".join(group.label for group in data.single)
    of_whom = "" if len(data.single) == len(data.measured) else f" of {names}"
    return (
        f"One seed only{of_whom}: the intervals come from the images and do not show how much "
        "another seed would change."
    )


def _data_section(data: ReportData, others: Sequence[Download]) -> Section:
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
        for run in data.runs
        if run.evaluation is not None
        for one in run.evaluation.measurements
    ]
    every = Download("measurements", measurements)
    words = (
        "Every number of this page, inside it and as files in data/ beside it. measurements holds "
        "each run's own figures; the other tables hold what is shown, averaged over seeds."
    )
    kept = [*([every] if measurements else []), *others]
    rows = [[one.name, len(one.rows), f"data/{one.name}.csv, .json"] for one in kept]
    table = Table("Data", ("table", "rows", "files beside the page"), rows)
    caption = "The links below figures and tables hold the same; measurements:"
    return Section("data", "Data", [Text(words), Figure(table, caption, every)])
