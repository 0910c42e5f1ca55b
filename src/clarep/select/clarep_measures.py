"""What CLARID removed and what it kept, in numbers that need no eye.

The masks of `backdrops` are exact, so that background and garment can be told apart; the
judge is a classifier that neither the teacher nor CLARID has seen (docs/method.md). Other data
have no masks, and a judge only where one is given. Samples are clamped to [-1, 1], the range of
an image, before any of it.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.clarid import Clarid
from clarep.data.backdrops import Backdrops
from clarep.data.foregrounds import separate
from clarep.data.garments import CLASS_NAMES
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.engine.arrays import check_finite
from clarep.engine.statistics import bootstrap_interval
from clarep.select.class_evidence import ClassEvidence
from clarep.select.evidence_summary import summarised
from clarep.select.judging import Scorer, judged
from clarep.teachers.teacher import Teacher

_LOOK = "look for NaN in the teacher's weights, or take float32"


@dataclass(frozen=True)
class Scene:
    """What is known of the images that the measures compare with."""

    labels: Int64[Tensor, " batch"]
    masks: Bool[Tensor, "batch h w"] | None = None
    """True on the object; None, and no colours, where the data know no foregrounds."""
    colours: Float[Tensor, "batch 3"] | None = None
    """Mean colour of the whole backdrop, in [-1, 1]."""


def judge_knows(teacher: Teacher, data: LabelledImages) -> bool:
    """Say whether the bundled judge can measure the teacher's samples of these data.

    They must be `Backdrops`, and the teacher's classes the judge's ten garments in their order.
    """
    return tuple(teacher.class_names) == CLASS_NAMES and isinstance(data, Backdrops)


def scene_of(data: LabelledImages, indices: NDArray[np.int64]) -> Scene:
    """Return labels and, where every image's object is known, masks and background colours."""
    labels = torch.from_numpy(data.labels[indices])
    parts = separate(data)
    if parts is None or parts.masks is None or not np.isin(indices, parts.usable).all():
        return Scene(labels)
    masks = parts.masks(indices)
    if parts.paired and parts.backdrops is not None:
        colours = to_unit_range(parts.backdrops(indices)).mean(dim=(2, 3))
    else:
        off = ~masks[:, None]
        colours = (to_unit_range(data.images(indices)) * off).sum((2, 3)) / off.sum((2, 3))
    return Scene(labels, masks, colours)


def removed_on_background(
    removed: Float[Tensor, "batch c h w"], masks: Bool[Tensor, "batch h w"]
) -> Float[Tensor, " batch"]:
    """Return the share, in [0, 1], of each image's removed energy that lies off the garment."""
    energy = removed.square().sum(1)
    return (energy * ~masks).sum((1, 2)) / energy.sum((1, 2)).clamp_min(1e-12)


def background_colours(
    samples: Float[Tensor, "batch c h w"], masks: Bool[Tensor, "batch h w"]
) -> Float[Tensor, "batch c"]:
    """Return each sample's mean colour where the original shows its backdrop."""
    outside = ~masks[:, None]
    return (samples * outside).sum((2, 3)) / outside.sum((2, 3)).clamp_min(1)


def distance_from_grey(
    samples: Float[Tensor, "batch c h w"], masks: Bool[Tensor, "batch h w"]
) -> Float[Tensor, " batch"]:
    """Return how colourful each sample is where the original shows its backdrop.

    Root mean square distance of the pixels from the grey of their own mean channel; 0 where all
    of them are grey, whatever their brightness.
    """
    outside = ~masks
    colour = (samples - samples.mean(1, keepdim=True)).square().sum(1)
    return ((colour * outside).sum((1, 2)) / outside.sum((1, 2)).clamp_min(1)).sqrt()


def colour_spread(colours: Float[Tensor, "batch c"]) -> float:
    """Return the root mean square distance of the colours from their mean."""
    return float((colours - colours.mean(0)).square().sum(1).mean().sqrt())


def within_over_total(
    vectors: Float[Tensor, "batch *shape"], labels: Int64[Tensor, " batch"]
) -> float:
    """Return within-class over total variance, in [0, 1]; 0 when a class is one point."""
    check_finite(vectors, "vectors", _LOOK)
    flat = vectors.flatten(1).double()
    total = (flat - flat.mean(0)).square().sum()
    within = sum(
        (flat[labels == label] - flat[labels == label].mean(0)).square().sum()
        for label in labels.unique()
    )
    return float(within / total) if total > 0 else 0.0


def probe_r2(features: Float[Tensor, "batch *shape"], targets: Float[Tensor, "batch t"]) -> float:
    """Return how much of the targets' variance a ridge probe reads from the features.

    R^2 of 5-fold cross-validated predictions, penalty chosen inside each fold; at most 1, and
    0 or less where the features tell nothing.
    """
    check_finite(features, "features", _LOOK)
    from sklearn.linear_model import RidgeCV
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 6, 13)))
    x, y = features.flatten(1).double().numpy(), targets.double().numpy()
    folds = KFold(5, shuffle=True, random_state=0)
    return float(
        r2_score(y, cross_val_predict(probe, x, y, cv=folds), multioutput="variance_weighted")
    )


def cluster_nmi(
    features: Float[Tensor, "batch *shape"], labels: Int64[Tensor, " batch"], seed: int
) -> float:
    """Return the normalised mutual information, in [0, 1], of k-means clusters and classes."""
    check_finite(features, "features", _LOOK)
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import normalized_mutual_info_score

    flat = features.flatten(1).numpy()
    k_means = KMeans(len(labels.unique()), n_init=10, random_state=seed)
    with warnings.catch_warnings():
        # Fewer distinct points than classes: where all is projected out, say.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = k_means.fit_predict(flat)
    return float(normalized_mutual_info_score(labels.numpy(), clusters))


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One row of the table: a way of choosing directions, over a set of images.

    What takes a mask is None where there is none, and so is the judge's where no judge is asked.
    The intervals are of 95 %, over images.
    """

    kind: str
    """Directions that were projected out; `reconstruction` is no projection and no guidance,
    `scrambled` the set's own directions on images that show nothing."""
    images: int
    labels_tried: int | None = None
    """Labels that the teacher weighs against each other; all evidence is None of one class."""
    evidence: float | None = None
    """Mean over images of log p(label | latent) - log of chance, in nats, by the teacher."""
    evidence_interval: tuple[float, float] | None = None
    evidence_change: float | None = None
    """By how much the projection changed it, in pairs; None where nothing was projected out."""
    evidence_change_interval: tuple[float, float] | None = None
    posterior_share: float | None = None
    """Share of latents whose own label is the likeliest, by the teacher."""
    posterior_interval: tuple[float, float] | None = None
    below_share: float | None = None
    """The same, of what they are decoded to under no class."""
    below_interval: tuple[float, float] | None = None
    null_share: float | None = None
    """Share of what is decoded under no class, guidance 1, that the judge gives its own label."""
    null_interval: tuple[float, float] | None = None
    swap_share: float | None = None
    """Share of what is decoded under another class, guidance 1, that it does."""
    swap_interval: tuple[float, float] | None = None
    swap_guided_share: float | None = None
    """The same at the setting's guidance."""
    swap_guided_interval: tuple[float, float] | None = None
    removed_on_background: float | None = None
    """Share of the removed energy that lies off the garment; None too where nothing is removed."""
    removed_interval: tuple[float, float] | None = None
    background_area: float | None = None
    """Share of the pixels off the garment: what an indifferent removal would give."""
    background_colour: float | None = None
    """Mean distance of the samples' background pixels from grey."""
    background_interval: tuple[float, float] | None = None
    background_spread: float | None = None
    """Root mean square distance of the samples' background colours from their mean."""
    background_r2: float | None = None
    """How well a linear probe reads the backdrop's colour from the features (R^2)."""
    judge_accuracy: float | None = None
    """Share of samples that the judge gives their class."""
    judge_interval: tuple[float, float] | None = None
    judge_confidence: float | None = None
    """Mean probability that the judge gives the class."""
    sample_within: float
    """Within-class over total variance of the samples."""
    feature_within: float
    """Within-class over total variance of the features."""
    nmi_conditional: float
    """NMI of k-means clusters of the features given the class."""
    nmi_null: float | None = None
    """NMI of k-means clusters of the features given no class; None where the teacher knows none."""


@torch.no_grad()
def measure(
    clarid: Clarid,
    judge: Scorer | None,
    scene: Scene,
    x_te: Float[Tensor, "batch c h w"],
    *,
    latents: Float[Tensor, "batch c h w"],
    samples: Float[Tensor, "batch ci hi wi"] | None = None,
    kind: str,
    seed: int = 0,
    evidence: ClassEvidence | None = None,
    before: ClassEvidence | None = None,
) -> Measures:
    """Measure one set of latents and the samples decoded from them, by clarid without any.

    scene, x_te, latents and samples belong to the same images, in the same order; samples may
    leave [-1, 1], and are clamped to it here, once for all measures. evidence and before: of
    latents and of x_te, as `summarised` takes them; without evidence, nothing is said of it.
    """
    labels = scene.labels
    samples = (clarid.sample(latents, labels) if samples is None else samples).clamp(-1, 1)
    features = clarid.features(latents, labels)
    nmi_null = None
    if clarid.teacher.has_null:
        nmi_null = cluster_nmi(clarid.features(latents, labels, "null"), labels, seed)
    return Measures(
        kind=kind,
        images=len(latents),
        **({} if evidence is None else summarised(evidence, before)),
        **_on_background(scene, x_te - latents, samples, features),
        **({} if judge is None else judged(judge, samples, labels)),
        sample_within=within_over_total(samples, labels),
        feature_within=within_over_total(features, labels),
        nmi_conditional=cluster_nmi(features, labels, seed),
        nmi_null=nmi_null,
    )


def _on_background(
    scene: Scene, removed: Tensor, samples: Tensor, features: Tensor
) -> dict[str, Any]:
    """Return the fields of `Measures` that take a mask; none of them where there is none."""
    masks = scene.masks
    if masks is None or scene.colours is None:
        return {}
    colour = distance_from_grey(samples, masks)
    found = {
        "background_area": float((~masks).double().mean()),
        "background_colour": float(colour.mean()),
        "background_interval": bootstrap_interval(colour),
        "background_spread": colour_spread(background_colours(samples, masks)),
        "background_r2": probe_r2(features, scene.colours),
    }
    # The mask knows pixels: of a latent teacher it cannot say where the removed energy lies.
    if not removed.any() or removed.shape[2:] != masks.shape[1:]:
        return found
    shares = removed_on_background(removed, masks)
    return found | {
        "removed_on_background": float(shares.mean()),
        "removed_interval": bootstrap_interval(shares),
    }
