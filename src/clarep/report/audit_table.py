"""What an audit says, as a table on a terminal and as JSON values."""

from collections.abc import Sequence
from typing import Any

from clarep.audit.audit import Audit
from clarep.audit.label_evidence import ClassDoubts
from clarep.report.tables import plain_table


def audit_table(audit: Audit) -> str:
    """Return a row a class: how many of its images its cue speaks against, and for which class."""
    names, rows = audit.class_names, audit.evidence().by_class()
    cells = [
        [
            names[row.label],
            str(row.images),
            f"{row.against} ({row.against / row.images:.0%})",
            "[{:.0%}, {:.0%}]".format(*row.share_interval),
            f"{row.doubt:+.3g} [{row.doubt_interval[0]:+.3g}, {row.doubt_interval[1]:+.3g}]",
            "" if row.rival is None else audit.name_of(row.rival),
        ]
        for row in rows
    ]
    cells += [_all(rows)] if len(rows) > 1 else []
    headings = ("class", "images", "against", "95 %", "mean doubt", "mostly for")
    note = (
        "(against: another class explains the image better than its own label does, at sigma "
        f"{audit.config.sigmas[0]:g}: a cue of another class, a wrong label, or a teacher that "
        "errs.\nDoubt: denoising error under the label less the least under another class; 95 % "
        "intervals over images. More in docs/audit.md)"
    )
    return plain_table(headings, cells, note)


def most_doubted(audit: Audit, sources: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Return the most doubted images, the most first, as JSON values.

    sources: where each image of the data set comes from.
    """
    found, names = audit.evidence(), audit.class_names
    order = audit.doubts.argsort(descending=True, stable=True)[:count]
    return [
        {
            "index": int(audit.index[row]),
            "source": str(sources[int(audit.index[row])]),
            "label": names[int(audit.labels[row])],
            "rival": audit.name_of(int(found.rival[0, row])),
            "doubt": float(found.doubt[0, row]),
            "standard_error": None
            if found.standard_error is None
            else float(found.standard_error[0, row]),
            "interval": None if found.interval is None else found.interval[0, row].tolist(),
        }
        for row in order.tolist()
    ]


def said_of(image: dict[str, Any]) -> str:
    """Return one of `most_doubted` as a line."""
    interval = image["interval"]
    sure = " [{:+.3g}, {:+.3g}]".format(*interval) if interval else ""
    beside = "rather" if image["doubt"] > 0 else "and not"  # the label explains it best
    return (
        f"{image['source']}: '{image['label']}', {beside} '{image['rival']}', doubt "
        f"{image['doubt']:+.3g}{sure}"
    )


def _all(rows: Sequence[ClassDoubts]) -> list[str]:
    images, against = sum(row.images for row in rows), sum(row.against for row in rows)
    return ["all", str(images), f"{against} ({against / images:.0%})", "", "", ""]
