"""Canonical samples beside their originals, and the spectrum of what was projected out."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.labelled import LabelledImages, to_uint8
from clarep.data.load import DataConfig, load_data
from clarep.errors import UserError
from clarep.report.html.charts import spectrum_chart
from clarep.report.html.markup import Cell, charts, figure, notes, paragraph, picture, table
from clarep.report.html.material import Material, Section
from clarep.report.html.teacher import TeacherOfSet
from clarep.select.controls import control_of

_ROWS = 10


def canonical_section(material: Material, teacher: TeacherOfSet) -> Section:
    """Show the first stored image of each class: none is picked by its looks."""
    canon = material.canon
    if canon is None:
        missing: tuple[str, ...] = (material.canon_missing,)
        return Section("canonical", "Canonical samples", notes(missing), missing)
    shown = canon.balanced(_ROWS)
    originals, lacking = _originals(canon.manifest["config"], shown.tensors["index"].numpy())
    columns: dict[str, Tensor] = {} if originals is None else {"original": originals}
    if teacher.clarid is not None:
        x_te, labels = shown.tensors["x_te"], shown.tensors["label"]
        for name, control in (("reconstruction", "reconstruction"), ("guidance alone", "none")):
            columns[name] = to_uint8(control_of(teacher.clarid, control).sample(x_te, labels))
    else:
        lacking = (*lacking, f"Reconstruction and guidance alone: {teacher.reason}")
    columns["canonical sample"] = to_uint8(shown.tensors["sample"])
    columns["what was removed"] = _removed(shown)
    content = _recognised(canon) + notes(lacking) + _gallery(canon, shown, columns)
    spectrum, why_not = _spectrum(material, canon)
    missing = (*lacking, *why_not)
    content += spectrum + notes(why_not)
    return Section("canonical", "Canonical samples", content, missing)


def _recognised(canon: CanonicalSet) -> str:
    """Return how the set's images stood the check that its teacher knows their classes."""
    found = canon.manifest.get("findings", {}).get("recognition") or {}
    if not found:
        return ""
    near = found.get("verdict") == "near chance"
    doubt = "; near chance, so that these samples say nothing of the classes" if near else ""
    return paragraph(f"Does the teacher know these classes? {found.get('said')}{doubt}.")


def _gallery(canon: CanonicalSet, shown: CanonicalSet, columns: dict[str, Tensor]) -> str:
    names = class_names(canon)
    rows = []
    for i, label in enumerate(shown.tensors["label"].tolist()):
        images = [
            Cell("", html=picture(as_rgb(images[i]), f"{column}, {names[label]}"))
            for column, images in columns.items()
        ]
        index = int(shown.tensors["index"][i])
        rows.append([Cell(names[label], below=f"image {index}"), *images])
    clarid = canon.manifest["config"]["clarid"]
    caption = (
        "The first stored image of each class (of the first ten); none was picked. All columns "
        "after the original start from the same inverted latent. What was removed is scaled to "
        "its own largest value in each row, so that rows cannot be compared in strength. "
        f"Directions: {clarid['kind']}; guidance {clarid['guidance']:g}."
    )
    aid = paragraph(
        "Reading \u201cwhat was removed\u201d: it is the latent before minus after the projection; "
        "grey is where nothing changed, and the stronger a colour, the more was taken away there."
    )
    shown_table = table("Canonical samples", ["class", *columns], rows, css="gallery")
    return aid + figure(shown_table, caption)


def as_rgb(image: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return uint8 (C, H, W) as (H, W, 3): the first three channels, or one channel grey."""
    channels = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return channels.permute(1, 2, 0).numpy()


def class_names(canon: CanonicalSet) -> list[str]:
    """Return the teacher's class names, or numbers where the manifest has none."""
    count = int(canon.tensors["label"].max()) + 1
    return list(canon.manifest["config"].get("class_names") or map(str, range(count)))


def _removed(shown: CanonicalSet) -> Tensor:
    difference = shown.tensors["x_te"] - shown.tensors["latent"]
    largest = difference.abs().flatten(1).amax(1).clamp_min(1e-12)
    return to_uint8(difference / largest[:, None, None, None])


def _originals(
    config: dict[str, Any], indices: "np.ndarray[Any, np.dtype[np.int64]]"
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Decode the originals from the data set that the manifest names."""
    try:
        data = _load(config["data_options"])
        if data.sha256(config["chosen"]) != config["data_sha256"]:
            raise UserError("its images or labels are no longer those that the set was made of")
        return data.images(indices), ()
    except (UserError, KeyError, TypeError, IndexError, OSError) as error:
        reason = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        return None, (
            f"The originals: the data set of the canonical set cannot be shown here ({reason}); "
            "build the report where it lies",
        )


def _load(options: dict[str, Any]) -> LabelledImages:
    known = {field.name for field in fields(DataConfig)}
    given = {key: value for key, value in options.items() if key in known}
    if given.get("classes_file"):
        given["classes_file"] = Path(given["classes_file"])
    return load_data(DataConfig(**given))


def _spectrum(material: Material, canon: CanonicalSet) -> tuple[str, tuple[str, ...]]:
    values, kind = canon.tensors["singular_values"], canon.manifest["config"]["clarid"]["kind"]
    if kind != "top" or not values.shape[1] or not torch.isfinite(values).all():
        return "", (
            f"The singular spectrum: the directions of this set are {kind}, which have no place "
            "at its top; `clarep identify --kind top` gives a set that has one",
        )
    quantiles = np.quantile(values.double().numpy(), [0.05, 0.5, 0.95], axis=0).T
    rows = [
        {"direction": i + 1, "low": float(low), "median": float(middle), "high": float(high)}
        for i, (low, middle, high) in enumerate(quantiles)
    ]
    links = material.downloads.add("spectrum", rows)
    drawn = spectrum_chart(
        "spectrum",
        [(r["low"], r["median"], r["high"]) for r in rows],
        f"Singular values, {len(values)} images",
    )
    caption = (
        "Median over images and the band from 5 to 95 %. Everything left of k is projected out; "
        "what lies beyond was not computed."
    )
    return "<h3>Singular spectrum</h3>" + figure(charts([drawn]), caption, links), ()
