"""Features before and after: the teacher's and the students', in two dimensions."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from clarep.clarid.set_pictures import POINTS
from clarep.report.html.charts import class_legend, scatter
from clarep.report.html.markup import charts, figure, notes
from clarep.report.html.material import Material, Section
from clarep.report.html.sections.canonical_section import class_names
from clarep.report.html.sections.names import names_of

_MOST_METHODS = 6
_PCA_FIRST = 50  # components that t-SNE is given
_FEWEST = 5  # images that can be laid out in two dimensions

_CAPTION = (
    "One point an image, coloured and shaped by class. PCA keeps large distances; t-SNE keeps "
    "neighbourhoods, and its distances between clusters, sizes and axes mean nothing."
)


def features_section(material: Material) -> Section:
    """Show the teacher's features of latents and CLAReps, and each method's of test images."""
    teacher_part, teacher_missing = _of_teacher(material)
    student_part, student_missing = _of_students(material)
    missing = (*teacher_missing, *student_missing)
    content = notes(missing) + teacher_part + student_part
    return Section("features", "Features before and after", content, missing)


def _of_teacher(material: Material) -> tuple[str, tuple[str, ...]]:
    canon = material.canon
    if canon is None:
        return "", (material.canon_missing,)
    shown = canon.balanced(POINTS)
    if len(shown) < _FEWEST:
        return "", (f"The teacher's features: {len(shown)} images are too few to lay out",)
    labels = shown.tensors["label"]
    names = class_names(canon)
    sets: dict[str, Tensor] = {}
    if material.pictures is not None:
        sets["before, inverted latents"] = material.pictures.features_before
    sets["after, CLAReps"] = shown.tensors["features"]
    drawn = [
        svg
        for i, (what, features) in enumerate(sets.items())
        for svg in _both_maps(material, ("teacher_features", i), what, features, (labels, names))
    ]
    links = material.downloads.links("teacher_features")
    tap = canon.manifest["config"].get("tap")
    caption = f"The teacher's activations at {tap} of {len(shown)} images. {_CAPTION}"
    content = "<h3>The teacher's</h3>" + class_legend(names)
    return content + figure(charts(drawn, "maps"), caption, links), material.pictures_missing


def _of_students(material: Material) -> tuple[str, tuple[str, ...]]:
    drawn: list[str] = []
    missing: list[str] = []
    names: list[str] = []
    able = []
    for group in material.measured:
        arrays = group.evaluations[0].arrays
        if {"features", "label"} <= set(arrays) and len(arrays["label"]) >= _FEWEST:
            able.append(group)
        else:
            missing.append(
                f"{group.label}'s features were not stored: `clarep evaluate "
                f"{group.runs[0].folder}` stores them"
            )
    for i, group in enumerate(able[:_MOST_METHODS]):
        evaluation = group.evaluations[0]
        kept = _evenly(len(evaluation.arrays["label"]))
        labels = evaluation.arrays["label"][kept].long()
        names = names_of(material, int(evaluation.arrays["label"].max()) + 1)
        features = evaluation.arrays["features"][kept]
        drawn += _both_maps(
            material, ("student_features", i), group.label, features, (labels, names)
        )
    if able[_MOST_METHODS:]:
        rest = ", ".join(group.label for group in able[_MOST_METHODS:])
        missing.append(f"features of {rest} are not drawn: a report of fewer runs draws them")
    if not drawn:
        return "", tuple(missing)
    content = "<h3>The students', of clean test images</h3>" + class_legend(names)
    caption = f"The first seed of each method, at most {POINTS} images. {_CAPTION}"
    links = material.downloads.links("student_features")
    return content + figure(charts(drawn, "maps"), caption, links), tuple(missing)


def _evenly(count: int) -> Tensor:
    """Return at most POINTS indices, spread over all."""
    return torch.linspace(0, count - 1, min(count, POINTS), dtype=torch.float64).long()


def _both_maps(
    material: Material,
    place: tuple[str, int],
    what: str,
    features: Tensor,
    classes: tuple[Tensor, list[str]],
) -> Iterator[str]:
    """Draw PCA and t-SNE of features (N, ...), and keep the points to take away.

    place: the table that the points go to, and how many sets of features stand before these.
    classes: labels (N,) and the names of all classes.
    """
    flat = features.flatten(1).double().numpy()
    pca, explained = project_pca(flat)
    maps = {"pca": pca, "tsne": project_tsne(flat)}
    labels = classes[0].tolist()
    names = [classes[1][label] for label in labels]
    material.downloads.keep(
        place[0],
        [
            {"features": what, "image": i, "class": names[i]}
            | {
                f"{method}_{axis}": float(places[i, j])
                for method, places in maps.items()
                for j, axis in enumerate("xy")
            }
            for i in range(len(flat))
        ],
    )
    axes = {
        "pca": (
            f"first component, {100 * explained[0]:.0f} % of variance",
            f"second, {100 * explained[1]:.0f} %",
        ),
        "tsne": ("", ""),
    }
    for method, title in (("pca", "PCA"), ("tsne", "t-SNE")):
        points = [
            (float(x), float(y), label, f"{names[i]}, image {i}")
            for i, ((x, y), label) in enumerate(zip(maps[method], labels, strict=True))
        ]
        yield scatter(f"{place[0]}-{place[1]}-{method}", f"{title}: {what}", axes[method], points)


def project_pca(flat: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Return the first two principal components and their shares of the variance."""
    if flat.shape[1] < 2 or not np.ptp(flat, axis=0).any():
        return np.zeros((len(flat), 2)), (0.0, 0.0)
    pca = PCA(2, random_state=0)
    places = pca.fit_transform(flat)
    first, second = pca.explained_variance_ratio_
    return places, (float(first), float(second))


def project_tsne(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a t-SNE of features (N, D), the same each time."""
    if not np.ptp(flat, axis=0).any():
        return np.zeros((len(flat), 2))
    most = min(_PCA_FIRST, *flat.shape)
    reduced = PCA(most, random_state=0).fit_transform(flat) if flat.shape[1] > most else flat
    perplexity = min(30.0, (len(flat) - 1) / 3)
    init = "pca" if reduced.shape[1] >= 2 else "random"
    tsne = TSNE(2, perplexity=perplexity, init=init, random_state=0)
    return np.asarray(tsne.fit_transform(reduced), np.float64)
