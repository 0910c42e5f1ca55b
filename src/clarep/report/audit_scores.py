"""What an audit's doubt finds, beside a classifier's scores, and what the extraneous part says.

Kept beside the audit, for the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.audit.audit import Audit
from clarep.audit.detection import confident_learning, detection, jtt_errors
from clarep.audit.extraneous_part import Readable
from clarep.data.cues import NO_CUE, cues_of
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.engine.artefacts import read_json, write_json
from clarep.engine.printable import counted
from clarep.report.quality import classify_all
from clarep.report.tables import plain_table
from clarep.students.student import Student

SCORES_NAME = "scores.json"
_AUDIT = "audit_sha256"
_PART = 500  # images in memory
Row = dict[str, Any]


def probabilities_of(student: Student, audit: Audit, data: LabelledImages) -> Float[Tensor, "n k"]:
    """Return a student's class probabilities of the audited images."""
    parts = [
        classify_all(student, to_unit_range(data.images(some.numpy())))[1].softmax(1)
        for some in audit.index.split(_PART)
    ]
    return torch.cat(parts)


def detection_rows(
    audit: Audit, data: LabelledImages, probabilities: Float[Tensor, "n k"] | None
) -> list[Row]:
    """Return how well each score finds images with the cue of another class, as JSON values.

    Nothing where the data know no cues, or no image has a foreign one, or every one has.
    """
    cues = cues_of(data)
    if cues is None:
        return []
    shown = torch.from_numpy(cues)[audit.index]
    truth = ((shown != audit.labels) & (shown != NO_CUE)).numpy()
    if truth.all() or not truth.any():
        return []
    evidence = audit.evidence()
    scores = {
        f"doubt, sigma {sigma:g}": doubt
        for sigma, doubt in zip(evidence.sigmas, evidence.doubt, strict=True)
    }
    if probabilities is not None:
        scores["classifier's errors (JTT)"] = jtt_errors(probabilities, audit.labels)
        scores["confident learning"] = confident_learning(probabilities, audit.labels)
    share = audit.config.doubted_share
    return [{"score": name} | asdict(detection(s, truth, share)) for name, s in scores.items()]


def readable_rows(parts: Sequence[Readable], class_names: Sequence[str]) -> list[Row]:
    """Return how well the label is read from each part of the latent, as JSON values."""
    return [
        asdict(part) | {"by_class": {class_names[c]: share for c, share in part.by_class.items()}}
        for part in parts
    ]


def store_scores(audit: Audit, scores: Mapping[str, Sequence[Row]]) -> None:
    """Keep what was measured beside the audit; a table that is not measured now stays."""
    kept = read_scores(audit) | {name: list(rows) for name, rows in scores.items() if rows}
    if kept:
        write_json(audit.folder / SCORES_NAME, {_AUDIT: audit.sha256, **kept}, sealed=True)


def read_scores(audit: Audit) -> dict[str, list[Row]]:
    """Return what `store_scores` kept of this very audit: `detection`, `readable`, `projected`.

    May be empty.
    """
    try:
        stored = read_json(Path(audit.folder) / SCORES_NAME)
    except (OSError, ValueError):  # none, or damaged: it is measured again in seconds
        return {}
    if stored.pop(_AUDIT, "") != audit.sha256:
        return {}
    return stored


def detection_table(rows: Sequence[Row]) -> str:
    """Return `detection_rows` as plain text."""
    first = rows[0]
    cells = [
        [row["score"], *(_with_interval(row, name) for name in ("auc", "precision", "recall"))]
        for row in rows
    ]
    note = (
        f"(of {counted(first['images'], 'image')} {first['found']} show the cue of another class; "
        f"precision and recall of the {first['share']:.0%} with the highest score; 95 % intervals "
        "over images)"
    )
    return plain_table(("finds foreign cues", "AUC", "precision", "recall"), cells, note)


def readable_table(rows: Sequence[Row]) -> str:
    """Return `readable_rows` as plain text: a row a part, a column a class."""
    names = list(rows[0]["by_class"])
    cells = [
        [
            row["part"],
            "{:.2f} [{:.2f}, {:.2f}]".format(row["accuracy"], *row["interval"]),
            *(f"{row['by_class'][name]:.2f}" for name in names),
        ]
        for row in rows
    ]
    note = (
        f"(cross-validated accuracy of a linear probe on {rows[0]['images']} inverted latents: "
        f"whole, the part that CLARID takes out, and what is left; chance {rows[0]['chance']:.2f})"
    )
    return plain_table(("label read from", "accuracy", *names), cells, note)


def _with_interval(row: Row, name: str) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(row[name], *row[f"{name}_interval"])
