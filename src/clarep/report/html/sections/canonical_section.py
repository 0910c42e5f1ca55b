"""Canonical samples beside their originals, and the spectrum of what was projected out."""

import numpy as np
import torch
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.set_pictures import ROWS
from clarep.report.html.charts import spectrum_chart
from clarep.report.html.markup import Cell, charts, figure, notes, paragraph, picture, table
from clarep.report.html.material import Material, Section
from clarep.report.set_figures import as_rgb, picture_columns


def canonical_section(material: Material) -> Section:
    """Show the first stored image of each class: none is picked by its looks."""
    canon = material.canon
    if canon is None:
        missing: tuple[str, ...] = (material.canon_missing,)
        return Section("canonical", "Canonical samples", notes(missing), missing)
    shown, lacking = canon.balanced(ROWS), material.pictures_missing
    columns = picture_columns(shown, material.pictures)
    content = _recognised(canon) + notes(lacking) + _gallery(canon, shown, columns)
    spectrum, why_not = _spectrum(material, canon)
    content += spectrum + notes(why_not)
    return Section("canonical", "Canonical samples", content, (*lacking, *why_not))


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
    clarid = canon.setting
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


def class_names(canon: CanonicalSet) -> list[str]:
    """Return the teacher's class names, or numbers where the manifest has none."""
    count = int(canon.tensors["label"].max()) + 1
    return list(canon.manifest["config"].get("class_names") or map(str, range(count)))


def _spectrum(material: Material, canon: CanonicalSet) -> tuple[str, tuple[str, ...]]:
    values, kind = canon.tensors["singular_values"], canon.setting["kind"]
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
