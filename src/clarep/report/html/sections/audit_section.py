"""What the teacher said of the training images: which go against their class's cue."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clarep.audit.audit import Audit
from clarep.audit.shown_images import CLASSES, EACH, ShownImages, read_shown
from clarep.clarid.clareps import as_rgb
from clarep.engine.printable import counted
from clarep.report.audit_scores import read_scores
from clarep.report.html.blocks import Block, Cell, Download, Figure, Picture, Section, Table
from clarep.report.html.report_data import ReportData
from clarep.report.projected_scores import said_below

_SIDE = 72
_OUTLINE = (255, 0, 160)  # seen on garments, photographs and black


def audit_section(data: ReportData) -> list[Section]:
    """Tabulate doubts by class, and show the most typical and most doubted images of each.

    No section where no run has read an audit and none is given.
    """
    audit, title = data.audit, "What the teacher doubts"
    if audit is None:
        missing = data.audit_missing
        return [Section("audit", title, [], missing)] if missing else []
    shown = read_shown(audit)
    missing = () if shown else (f"images of the audit {audit.folder}: its command again adds them",)
    sheet = [] if shown is None else [_sheet(audit, shown)]
    return [Section("audit", title, [_by_class(audit), *_scores(audit), *sheet], missing)]


def _by_class(audit: Audit) -> Figure:
    names, rows = audit.class_names, audit.evidence().by_class()
    table = [
        [
            names[row.label],
            row.images,
            Cell(str(row.against), number=True, below=_percent(row.share_interval)),
            Cell(f"{row.doubt:+.3g}", number=True, below=_interval(row.doubt_interval, "+.3g")),
            "" if row.rival is None else audit.name_of(row.rival),
        ]
        for row in rows
    ]
    cost = audit.manifest.get("cost", {})
    caption = (
        "Against: images that another class explains better than their own, by the denoising "
        f"error at sigma {audit.config.sigmas[0]:g}; in small print the 95 % interval of the "
        "share, and of the mean over images. Such an image shows the cue of another class, bears a "
        "wrong label, or the teacher errs. It took "
        f"{cost.get('denoiser_evaluations', 0):,} denoiser evaluations."
    )
    headings = ("class", "images", "against", "mean doubt", "mostly for")
    download = Download("audit", [_flat(audit, row) for row in rows])
    return Figure(Table("Doubt by class", headings, table), caption, download)


def _scores(audit: Audit) -> list[Block]:
    """Return what was measured beside the audit: tables that clarep audit printed."""
    found, blocks = read_scores(audit), list[Block]()
    if rows := found.get("detection"):
        names = ("auc", "precision", "recall")
        table = [
            [row["score"], *(_figure(row, name, f"{name}_interval") for name in names)]
            for row in rows
        ]
        caption = (
            f"How well a score finds the {rows[0]['found']} of {rows[0]['images']} images that "
            "show the cue of another class; precision and recall of the "
            f"{rows[0]['share']:.0%} with the highest score."
        )
        headings = ("score", "AUC", "precision", "recall")
        download = Download("audit-scores", [_without_pairs(row) for row in rows])
        blocks.append(Figure(Table("Finding foreign cues", headings, table), caption, download))
    if rows := found.get("readable"):
        classes = list(rows[0]["by_class"])
        table = [
            [row["part"], _figure(row, "accuracy", "interval"), *row["by_class"].values()]
            for row in rows
        ]
        caption = (
            "How well a linear probe reads the label from the inverted latent, from the part that "
            f"CLARID takes out, and from what is left; {counted(rows[0]['images'], 'image')}, "
            f"chance {rows[0]['chance']:.2f}."
        )
        headings = ("label read from", "all", *classes)
        blocks.append(Figure(Table("Reading the label", headings, table), caption))
    if rows := found.get("projected"):
        blocks.append(_projected(rows, found.get("projected_images", [])))
    return blocks


def _projected(rows: Sequence[dict[str, Any]], images: list[dict[str, Any]]) -> Figure:
    against = [f"against_{when}" for when in ("before", "after", "no_longer")]
    table = [
        [
            row["group"],
            row["images"],
            *(Cell(f"{row[when]:+.2f}", number=True) for when in ("before", "after")),
            _figure(row, "change", "change_interval", "+.2f"),
            *(row[name] for name in against),
        ]
        for row in rows
    ]
    headings = ("images of", "images", "before", "after", "change")
    counted = ("against before", "against after", "no longer")
    caption = f"{said_below(rows).capitalize()}. The download tells it of each image."
    download = Download("audit-projected", images)
    title = "Class evidence before and after the projection"
    return Figure(Table(title, (*headings, *counted), table), caption, download)


def _sheet(audit: Audit, shown: ShownImages) -> Figure:
    rows = []
    for label in audit.labels.unique().tolist()[:CLASSES]:
        of_class = audit.labels[shown.row] == label
        for doubted in (False, True):
            places = torch.nonzero(of_class & (shown.doubted == doubted))[:, 0].tolist()
            cells = [_picture(audit, shown, place) for place in places]
            what = f"{audit.class_names[label]}, {'doubted' if doubted else 'typical'}"
            rows.append([what, *cells, *[Cell()] * (EACH - len(cells))])
    outlined = "" if shown.masks is None else "The line is where the audit sees the object. "
    caption = (
        f"The {EACH} images of each class that its own label explains best beside the others, and "
        f"the {EACH} that are doubted most, with the class that explains them better. {outlined}"
        "Small print: index in the data."
    )
    table = Table("Typical and doubted images", ["", *[""] * EACH], rows, css="gallery")
    return Figure(table, caption)


def _picture(audit: Audit, shown: ShownImages, place: int) -> Cell:
    row = int(shown.row[place])
    image, name = as_rgb(shown.images[place]), audit.class_names[int(audit.labels[row])]
    if shown.masks is not None:
        image = outlined(image, shown.masks[place])
    rival, index = audit.name_of(int(audit.rivals[row])), int(audit.index[row])
    said = f"{rival}, {index}" if shown.doubted[place] else str(index)
    return Cell(picture=Picture(image, f"{name}, image {index}", _SIDE), below=said)


def outlined(image: NDArray[np.uint8], mask: Tensor) -> NDArray[np.uint8]:
    """Return an image (H, W, 3), enlarged, with a line around a mask (H, W)."""
    times = max(1, -(-96 // len(image)))
    large = image.repeat(times, 0).repeat(times, 1)
    inside = mask.float()[None, None].repeat_interleave(times, 2).repeat_interleave(times, 3)
    eroded = -F.max_pool2d(-inside, 3, 1, 1)
    line = ((inside > 0) & (eroded == 0))[0, 0].numpy()
    large[line] = _OUTLINE
    return large


def _figure(row: dict[str, Any], name: str, interval: str, form: str = ".3f") -> Cell:
    return Cell(f"{row[name]:{form}}", number=True, below=_interval(row[interval], form))


def _interval(ends: Sequence[float], form: str) -> str:
    return f"{ends[0]:{form}} to {ends[1]:{form}}"


def _percent(ends: Sequence[float]) -> str:
    return f"{ends[0]:.0%} to {ends[1]:.0%}"


def _without_pairs(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list | tuple):
            flat |= {f"{name}_low": value[0], f"{name}_high": value[1]}
        else:
            flat[name] = value
    return flat


def _flat(audit: Audit, row: Any) -> dict[str, Any]:
    rival = None if row.rival is None else audit.name_of(row.rival)
    return {"class": audit.class_names[row.label]} | _without_pairs(vars(row)) | {"rival": rival}
