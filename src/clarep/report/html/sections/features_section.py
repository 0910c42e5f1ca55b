"""Features before and after, in two dimensions, and the spectrum of what was projected out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.set_pictures import POINTS, principal_coordinates
from clarep.report.html.blocks import Block, Charts, Download, Figure, Legend, Section, Text
from clarep.report.html.charts import class_swatch, scatter, spectrum_chart
from clarep.report.html.report_data import ReportData

_MOST_METHODS = 6
_FIRST_COMPONENTS = 50  # that t-SNE is given
_FEWEST = 5  # images that can be laid out in two dimensions
_CAPTION = (
    "One point an image, coloured and shaped by class. PCA keeps large distances; t-SNE keeps "
    "neighbourhoods, and its distances between clusters, sizes and axes mean nothing."
)


def features_section(data: ReportData) -> Section:
    """Show the teacher's features of latents and CLAReps, and each method's of test images."""
    of_teacher, teacher_missing = _of_teacher(data)
    of_students, student_missing = _of_students(data)
    spectrum, why_not = ([], ()) if data.canon is None else _spectrum(data, data.canon)
    missing = (*teacher_missing, *student_missing, *why_not)
    blocks = [*of_teacher, *of_students, *spectrum]
    return Section("features", "Features before and after", blocks, missing)


def _of_teacher(data: ReportData) -> tuple[list[Block], tuple[str, ...]]:
    if data.canon is None:
        return [], data.canon_missing
    shown = data.canon.balanced(POINTS)
    if len(shown) < _FEWEST:
        return [], (f"The teacher's features: {len(shown)} images are too few to lay out",)
    sets: dict[str, Tensor] = {}
    if data.pictures is not None:
        sets["before, inverted latents"] = data.pictures.features_before
    sets["after, CLAReps"] = shown.features
    labels = shown.label.tolist()
    tap = data.canon.manifest["config"].get("tap")
    caption = f"The teacher's activations at {tap} of {len(shown)} images. {_CAPTION}"
    maps = [(what, features, labels) for what, features in sets.items()]
    blocks = _maps("teacher_features", "The teacher's", maps, data.set_classes, caption)
    return blocks, data.pictures_missing


def _of_students(data: ReportData) -> tuple[list[Block], tuple[str, ...]]:
    missing: list[str] = []
    maps: list[tuple[str, Tensor, list[int]]] = []
    for group in data.measured:
        arrays = group.evaluations[0].arrays
        if {"features", "label"} <= set(arrays) and len(arrays["label"]) >= _FEWEST:
            count = len(arrays["label"])
            kept = torch.linspace(0, count - 1, min(count, POINTS), dtype=torch.float64).long()
            maps.append((group.label, arrays["features"][kept], arrays["label"][kept].tolist()))
        else:
            folder, few = group.runs[0].folder, len(arrays.get("label", ()))
            why = f"were not stored: `clarep evaluate {folder}` stores them"
            if "features" in arrays:
                why = f"are of {few} images, too few to lay out: measure {_FEWEST} or more"
            missing.append(f"{group.label}'s features {why}")
    if rest := ", ".join(what for what, _, _ in maps[_MOST_METHODS:]):
        missing.append(f"features of {rest} are not drawn: a report of fewer runs draws them")
    if not maps:
        return [], tuple(missing)
    names = data.class_names(max(max(labels) for _, _, labels in maps) + 1)
    heading = "The students', of clean test images"
    caption = f"The first seed of each method, at most {POINTS} images. {_CAPTION}"
    blocks = _maps("student_features", heading, maps[:_MOST_METHODS], names, caption)
    return blocks, tuple(missing)


def _maps(
    name: str,
    heading: str,
    maps: Sequence[tuple[str, Tensor, list[int]]],
    names: Sequence[str],
    caption: str,
) -> list[Block]:
    """Draw PCA and t-SNE of each (what, features (N, ...), labels), with the points below.

    name: of the points to take away. names: of all classes.
    """
    drawn: list[Markup] = []
    points: list[dict[str, Any]] = []
    for number, (what, features, labels) in enumerate(maps):
        (first, second), pca = project_pca(features)
        axes = f"first component, {100 * first:.0f} % of variance", f"second, {100 * second:.0f} %"
        tsne = project_tsne(features)
        told = [f"{names[label]}, image {i}" for i, label in enumerate(labels)]
        for method, places, labelled in (("PCA", pca, axes), ("t-SNE", tsne, ("", ""))):
            key = f"{name}-{number}-{method.replace('-', '').lower()}"
            at = [(*xy, label, tip) for xy, label, tip in zip(places, labels, told, strict=True)]
            drawn.append(scatter(key, f"{method}: {what}", labelled, at))
        points += [
            {"features": what, "image": i, "class": names[label]}
            | dict(zip(("pca_x", "pca_y", "tsne_x", "tsne_y"), (*pca[i], *tsne[i]), strict=True))
            for i, label in enumerate(labels)
        ]
    legend = Legend([(class_swatch(i), class_name) for i, class_name in enumerate(names)])
    figure = Figure(Charts(drawn), caption, Download(name, points))
    return [Text(heading, "h3"), legend, figure]


def project_pca(
    features: Float[Tensor, "n *feature"],
) -> tuple[tuple[float, float], list[tuple[float, float]]]:
    """Return the shares of the variance of the first two principal components, and the places."""
    coordinates = principal_coordinates(features).double()
    places = torch.nn.functional.pad(coordinates, (0, 2))[:, :2]
    total = max(float(coordinates.square().sum()), 1e-300)
    first, second = (float(squares) / total for squares in places.square().sum(dim=0))
    return (first, second), [(x, y) for x, y in places.tolist()]


def project_tsne(features: Float[Tensor, "n *feature"]) -> list[tuple[float, float]]:
    """Return a t-SNE of features, the same each time."""
    from sklearn.manifold import TSNE

    coordinates = principal_coordinates(features)[:, :_FIRST_COMPONENTS].double().numpy()
    if not coordinates.any():
        return [(0.0, 0.0)] * len(coordinates)
    perplexity = min(30.0, (len(coordinates) - 1) / 3)
    init = "pca" if coordinates.shape[1] >= 2 else "random"
    tsne = TSNE(2, perplexity=perplexity, init=init, random_state=0)
    return [(float(x), float(y)) for x, y in tsne.fit_transform(coordinates)]


def _spectrum(data: ReportData, canon: CanonicalSet) -> tuple[list[Block], tuple[str, ...]]:
    values, kind = canon.singular_values, canon.setting["kind"]
    if kind != "top" or not values.shape[1] or not torch.isfinite(values).all():
        return [], (
            f"The singular spectrum: the directions of this set are {kind}, which have no place "
            "at its top; `clarep identify --kind top` gives a set that has one",
        )
    quantiles = np.quantile(values.double().numpy(), [0.05, 0.5, 0.95], axis=0).T.tolist()
    rows = [
        {"direction": i + 1, "low": low, "median": middle, "high": high}
        for i, (low, middle, high) in enumerate(quantiles)
    ]
    exact = None if data.pictures is None else data.pictures.spectrum
    whole = [] if exact is None else exact.tolist()
    title = f"Singular values, {len(values)} images"
    drawn = spectrum_chart("spectrum", [tuple(one) for one in quantiles], title, whole)
    beyond = "the grey line is the whole spectrum of one image" if whole else "was not computed"
    caption = (
        "Median over images and the band from 5 to 95 %. Everything left of k is projected out; "
        f"what lies beyond: {beyond}."
    )
    figure = Figure(Charts([drawn]), caption, Download("spectrum", rows))
    return [Text("Singular spectrum", "h3"), figure], ()
