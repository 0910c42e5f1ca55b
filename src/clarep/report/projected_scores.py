"""Class evidence before and after the projection, as rows that are kept beside an audit."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from clarep.audit.audit import Audit
from clarep.audit.projected_evidence import ProjectedEvidence
from clarep.report.tables import plain_table

Row = dict[str, Any]
CLASSES = 20
"""Of more classes, no row of each."""
DOUBTED = "most doubted"
MEANING = (
    "class evidence, in nats, of the inverted latent and of what CLARID leaves of it: how much "
    "likelier than by chance the own class is, mean over images; change: in pairs, with its 95 % "
    "interval; against: images of which another class is as likely or likelier, before, after, and "
    "no longer: before and not after"
)


def projected_rows(
    found: ProjectedEvidence, audit: Audit, *, sigma_te: float, canonical_sha256: str
) -> dict[str, list[Row]]:
    """Return JSON values: `projected`, a row a group of images, and `projected_images`, one each.

    Groups are the classes, all, and those that the audit doubts most; sigma_te, canonical_sha256:
    noise level and hash of the canonical set.
    """
    names, doubted = audit.class_names, torch.isin(found.index, audit.index[audit.doubted()])
    present = found.labels.unique().tolist()
    groups = {names[c]: found.labels == c for c in present} if len(present) <= CLASSES else {}
    groups["all"] = torch.ones_like(doubted)
    groups |= {DOUBTED: doubted} if doubted.any() else {}
    made_of = {"sigma_te": sigma_te, "canonical_sha256": canonical_sha256}
    each = zip(
        found.index.tolist(),
        found.labels.tolist(),
        doubted.tolist(),
        found.before.tolist(),
        found.after.tolist(),
        (~found.right_before).tolist(),
        (~found.right_after).tolist(),
        strict=True,
    )
    keys = ("index", "label", "doubted", "before", "after", "against_before", "against_after")
    images = [dict(zip(keys, values, strict=True)) for values in each]
    return {
        "projected": [
            {"group": name} | asdict(found.of(rows)) | made_of for name, rows in groups.items()
        ],
        "projected_images": [one | {"label": names[one["label"]]} for one in images],
    }


def are_of(rows: Sequence[Row], canonical_sha256: str) -> bool:
    """Say whether `projected` rows are there, and of this very set."""
    return bool(rows) and rows[0].get("canonical_sha256") == canonical_sha256


def projected_table(rows: Sequence[Row]) -> str:
    """Return `projected` rows as plain text."""
    cells = [
        [
            row["group"],
            str(row["images"]),
            f"{row['before']:+.2f}",
            f"{row['after']:+.2f}",
            "{:+.2f} [{:+.2f}, {:+.2f}]".format(row["change"], *row["change_interval"]),
            *(str(row[f"against_{when}"]) for when in ("before", "after", "no_longer")),
        ]
        for row in rows
    ]
    note = f"({said_below(rows)})"
    headings = ("evidence, in nats", "images", "before", "after", "change")
    return plain_table((*headings, "against before", "after", "no longer"), cells, note)


def said_below(rows: Sequence[Row]) -> str:
    """Return what a table of `projected` rows says below."""
    whole = next(row for row in rows if row["group"] == "all")
    tried = whole["labels_tried"]
    return (
        f"{MEANING}; noise level {whole['sigma_te']:.3g}, {tried} classes tried, certainty "
        f"{math.log(tried):.2f} nats; {whole['denoiser_evaluations']} denoiser evaluations"
    )


def no_longer_against(images: Sequence[Row], sources: Sequence[str], most: int) -> list[Row]:
    """Return images that another class explained before and their own does after, as JSON values.

    At most so many, the largest change first; sources: of the images of the data set.
    """
    found = [one for one in images if one["against_before"] and not one["against_after"]]
    found.sort(key=lambda one: one["before"] - one["after"])
    return [one | {"source": str(sources[one["index"]])} for one in found[:most]]


def said_of_change(image: Row) -> str:
    """Return one of `no_longer_against` as a line."""
    return (
        f"{image['source']}: '{image['label']}' again without its extraneous part, "
        f"{image['before']:+.2f} before and {image['after']:+.2f} nats after"
    )
