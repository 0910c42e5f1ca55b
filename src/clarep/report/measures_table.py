"""The measures as a table: on a terminal, as CSV, as JSON."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.data.held_out import Indices
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.engine.artefacts import read_json, versions, write_json
from clarep.engine.identity import plain
from clarep.engine.printable import counted
from clarep.engine.tensors import weights_hash
from clarep.report.quality import student_judge
from clarep.report.tables import WIDTH, filled, plain_table, write_csv
from clarep.select.clarep_columns import (
    BACKGROUND,
    COLUMNS,
    LATENT,
    OTHERS,
    SCRAMBLED,
    WHY_A_FOOTNOTE,
    blocks,
)
from clarep.select.clarep_measures import Measures
from clarep.select.class_evidence import LEVELS, ClassEvidence
from clarep.select.controls import OTHER_DATA, inverted_evidence, measure_set, shown_instead
from clarep.select.judging import judged
from clarep.students.student import Student

CLASSIFIER_NAME = "classifier.json"
MEASURES_NAME = "measures.json"
_LARGE = 10.0  # from where a second decimal says nothing


def measures_table(rows: Sequence[Measures], classifier: Mapping[str, Any] | None = None) -> str:
    """Return the measures as plain text: a table a question, one row a kind.

    95 % intervals over images in brackets. What no row knows has no column and no word in a
    legend. classifier: as `write_classifier`.
    """
    tables = []
    for question, names in blocks(lambda name: bool(told(rows, [name]))).items():
        cells = [[row.kind, *(_cell(row, name) for name in names)] for row in told(rows, names)]
        legend = legend_of(names, "" if classifier is None else _classifier_legend(classifier))
        if question == LATENT:
            tried = rows[0].labels_tried or 1
            legend["labels"] = (
                f"{tried} labels were tried: chance is {1 / tried:.2f}, certainty "
                f"{math.log(tried):.2f} nats"
            )
        if question == BACKGROUND:
            legend["area"] = f"pixels off the object: {rows[0].background_area:.2f}"
        headings = ("directions", *(COLUMNS[name].heading for name in names))
        note = f"({'; '.join(legend.values())})" if legend else ""
        tables.append(f"{question}\n{plain_table(headings, cells, note)}")
    foot = f"{foot_of(rows)} More in docs/method.md#measures"
    return "\n\n".join([*tables, filled(foot, WIDTH)])


def legend_of(names: Sequence[str], judge: str = "") -> dict[str, str]:
    """Return what must be said of the measures `names`; judge: who judged, if another did."""
    legend = {name: COLUMNS[name].legend for name in names if COLUMNS[name].legend}
    return legend | ({"judge_accuracy": judge} if judge and "judge_accuracy" in names else {})


def foot_of(rows: Sequence[Measures]) -> str:
    """Return what must be said of all the rows of all tables."""
    given = ", ".join(f"{row.kind} {row.nmi_conditional:.2f}" for row in rows)
    foot = f"{counted(rows[0].images, 'image')}; in brackets 95 % intervals over images. "
    foot += f"{SCRAMBLED}. " * any(row.kind == "scrambled" for row in rows)
    foot += f"{OTHERS}. " * any(row.kind.startswith(OTHER_DATA) for row in rows)
    return f"{foot}Not shown is NMI given the class ({given}): {WHY_A_FOOTNOTE}."


def measure_rows(
    clarid: Clarid,
    judge: Student | None,
    data: LabelledImages,
    subset: CanonicalSet,
    kinds: Sequence[str],
    *,
    folder: Path,
    described: dict[str, Any],
    seed: int,
) -> Iterator[tuple[str, list[Measures]]]:
    """Measure a set's own row and those of its controls into `folder`, or go on with them.

    Yields before each row that is missing, and at the end: the kind that comes next, "" where none
    does, and the rows so far. Rows of other kinds that `folder` holds stay there.

    Args:
        clarid: the setting that made the set.
        judge: of the teacher's classes; None where there is none.
        data: the set's images.
        subset: what is measured, of the set.
        kinds: the set's own and those of CONTROLS, in the order of the table.
        folder: of measures.json and measures.csv.
        described: what else than seed and judge the rows follow from, as JSON values.
        seed: of random directions, of k-means and of class evidence.
    """
    sha256 = None if judge is None else weights_hash(judge)["sha256"]
    config = described | {"seed": seed, "judge_sha256": sha256, "evidence_levels": LEVELS}
    config |= _shown_instead(kinds, data, subset.index.numpy(), seed)
    rows, scorer = read_measures(folder, config), None if judge is None else student_judge(judge)
    before: ClassEvidence | None = None
    for kind in kinds:
        if kind not in rows:
            yield kind, [rows[known] for known in kinds if known in rows]
            before = before or inverted_evidence(clarid, scorer, subset, seed=seed)
            control = None if kind == clarid.config.kind else kind
            rows[kind] = measure_set(
                clarid, scorer, data, subset, control, seed=seed, before=before
            )
            write_measures(list(rows.values()), folder, config)
    write_measures([rows[kind] for kind in dict.fromkeys((*kinds, *rows))], folder, config)
    yield "", [rows[kind] for kind in kinds]


def _shown_instead(
    kinds: Sequence[str], data: LabelledImages, chosen: Indices, seed: int
) -> dict[str, Any]:
    """Return control -> hash of the images that it shows, of those whose images are other data."""
    others = [kind for kind in kinds if kind.startswith(OTHER_DATA)]
    shown = {kind: shown_instead(kind, data, chosen, seed).numpy() for kind in others}
    return {kind: hashlib.sha256(images.tobytes()).hexdigest() for kind, images in shown.items()}


def judge_originals(judge: Student, data: LabelledImages, subset: CanonicalSet) -> dict[str, Any]:
    """Return which judge it is, and what it says of the images that a set was made of."""
    images = to_unit_range(data.images(subset.index.numpy()))
    said = judged(student_judge(judge), images, subset.label)
    originals = {"images": len(subset)} | said
    return {"student": judge.info.name, **weights_hash(judge), "originals": originals}


def write_measures(rows: Sequence[Measures], folder: Path, config: dict[str, Any]) -> None:
    """Write measures.json and measures.csv into `folder`.

    In the CSV an interval is two columns: `judge_interval` is `judge_low` and `judge_high`.

    config: all that the rows follow from, as JSON values; `read_measures` asks for the same.
    """
    values = [asdict(row) for row in rows]
    stored = {"config": config, "versions": versions(), "rows": values}
    write_json(folder / MEASURES_NAME, stored, sealed=True)
    write_csv(flat_rows(rows), folder / "measures.csv")


def read_measures(folder: Path, config: dict[str, Any]) -> dict[str, Measures]:
    """Return kind -> row of what `write_measures` wrote into `folder` under the same config.

    Empty if there is nothing, or something of another config or clarep: it is measured anew.
    """
    try:
        stored = read_json(folder / MEASURES_NAME)
        if stored["config"] != plain(config) or stored["versions"] != versions():
            return {}
        return {row.kind: row for row in _rows_in(stored)}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def rows_beside(canonical: CanonicalSet) -> list[Measures]:
    """Return the rows that `clarep identify` wrote beside a set, in report/; none of another's."""
    try:
        stored = read_json(canonical.folder.resolve().parent / "report" / MEASURES_NAME)
        shards = [shard["sha256"] for shard in canonical.manifest["shards"]]
        return _rows_in(stored) if stored["config"].get("canonical_sha256") == shards else []
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _rows_in(stored: Mapping[str, Any]) -> list[Measures]:
    rows: list[dict[str, Any]] = [
        {name: tuple(v) if isinstance(v, list) else v for name, v in row.items()}
        for row in stored["rows"]
    ]
    return [Measures(**row) for row in rows]


def write_classifier(classifier: Mapping[str, Any] | None, folder: Path) -> None:
    """Write classifier.json into `folder`, or remove what an earlier run left of it.

    classifier: what judged instead of the bundled judge, as JSON values: student, sha256 and, of
        the `originals` of the samples, images, judge_accuracy, judge_interval, judge_confidence.
    """
    if classifier is not None:
        write_json(folder / CLASSIFIER_NAME, classifier)
    else:  # it would be taken for what judged these rows
        (folder / CLASSIFIER_NAME).unlink(missing_ok=True)


def told(rows: Sequence[Measures], names: Sequence[str]) -> list[Measures]:
    """Return the rows that know any of the fields `names`."""
    return [row for row in rows if any(getattr(row, name) is not None for name in names)]


def judge_beside(canonical: CanonicalSet) -> str:
    """Say which classifier judged the rows beside a set; "" of the bundled judge."""
    try:
        given = read_json(canonical.folder.resolve().parent / "report" / CLASSIFIER_NAME)
        return _classifier_legend(given)
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _classifier_legend(classifier: Mapping[str, Any]) -> str:
    originals = classifier["originals"]
    low, high = originals["judge_interval"]
    return (
        f"judge: the given classifier, {classifier['student']}, which may have seen the original "
        f"images and is right on {originals['judge_accuracy']:.2f} [{low:.2f}, {high:.2f}] of them"
    )


def flat_rows(rows: Sequence[Measures]) -> list[dict[str, Any]]:
    """Return rows as CSV has them: `judge_interval` is `judge_low` and `judge_high`."""
    return [_flat(row) for row in rows]


def _flat(row: Measures) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if name.endswith("_interval"):
            low, high = (None, None) if value is None else value
            stem = name.removesuffix("_interval")
            flat |= {f"{stem}_low": low, f"{stem}_high": high}
        else:
            flat[name] = value
    return flat


def _cell(row: Measures, field: str) -> str:
    value, named = getattr(row, field), COLUMNS[field].interval
    if value is None:
        return "-"
    interval = getattr(row, named) if named else None
    bracket = f" [{_short(interval[0])}, {_short(interval[1])}]" if interval else ""
    return f"{_short(value)}{bracket}"


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < _LARGE else f"{value:.1f}"
