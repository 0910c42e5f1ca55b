"""CLARID beside its controls, on the same inverted latents.

The sceptic's questions: are these directions special (random, bottom, middle), does the evidence
find the place better than the middle does (centre beside mask), is it not just stronger guidance
(none), or the decoder alone (reconstruction: no projection, no guidance), and would the measures
not say the same of images that show nothing (scrambled), or what the teacher cannot know (other
data, data:PATH)?
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.clarid.directions import project_out
from clarep.data.garments import SIZE
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data
from clarep.engine.printable import counted
from clarep.errors import UserError, unknown_name
from clarep.select.clarep_measures import Measures, Scene, measure, scene_of
from clarep.select.class_evidence import ClassEvidence, class_evidence
from clarep.select.judging import Scorer

_FEWEST = 2  # of each class: with one, k-means finds the classes whatever the features
_FEWEST_IN_ALL = 5  # the probe of the background's colour is fitted in five folds

OTHER_DATA = "data:"
"""Before the place of data whose images are the control, under the labels of the set's."""
_DRAWN = 11  # beside seed and index: the key of the choice of these images
CONTROLS = ("none", "reconstruction", "random", "centre", "bottom", "middle", "scrambled")


def check_controls(controls: Sequence[str], count: int, labels: NDArray[np.int64]) -> None:
    """Raise UserError for an unknown control, or too few images of these labels to measure on."""
    for name in controls:
        if name.startswith(OTHER_DATA):
            _other_data(name, SIZE)  # of whatever size: what counts here is that they are there
        elif name not in CONTROLS:
            raise unknown_name("control", name, [*CONTROLS, f"{OTHER_DATA}PATH"])
    fewest = max(_FEWEST_IN_ALL, _FEWEST * len(np.unique(labels)))
    if 0 < count < fewest:
        raise UserError(
            f"`control_images={count}` are too few to measure on: give at least {fewest}, two of "
            "each class and five in all, or 0 to skip the table"
        )


def measured_on(canonical: CanonicalSet, count: int) -> tuple[CanonicalSet, str]:
    """Return `count` images of a set, evenly from the classes, and why they are too few, or ""."""
    subset = canonical.balanced(count)
    labels, counts = subset.label.unique(return_counts=True)
    if len(subset) < _FEWEST_IN_ALL:
        larger = "`control_images`" if len(canonical) >= _FEWEST_IN_ALL else "set"
        return subset, (
            f"{counted(len(subset), 'image')} would be measured, and the table takes "
            f"{_FEWEST_IN_ALL} or more: it is left out; a larger {larger} gives it"
        )
    if int(counts.min()) >= _FEWEST:
        return subset, ""
    rarest = canonical.manifest["config"]["class_names"][int(labels[counts.argmin()])]
    whole = canonical.label.bincount()
    larger = "control_images" if int(whole[whole > 0].min()) >= _FEWEST else "fraction"
    return subset, (
        f"class '{rarest}' has {int(counts.min())} of the {len(subset)} images that would be "
        f"measured, and the table takes two of each class: it is left out; a larger `{larger}` "
        "gives it"
    )


def measure_set(
    clarid: Clarid,
    judge: Scorer | None,
    data: LabelledImages,
    canonical: CanonicalSet,
    control: str | None = None,
    *,
    seed: int = 0,
    before: ClassEvidence | None = None,
) -> Measures:
    """Return the measures of a stored set, or of a control on its images and inverted latents.

    Args:
        clarid: the setting that made the set. Where its k is a share of energy that is not settled
            yet, the first row that needs it settles it for all.
        judge: of the teacher's classes; None where there is none.
        data: the set's images; only where foregrounds are known is anything said of the background.
        canonical: the stored set.
        control: of CONTROLS, or data:PATH; it differs from the set in the one thing that its name
            says.
        seed: of random directions, of k-means, of class evidence and of what is shown instead.
        before: `inverted_evidence` of the same arguments; without it no change is told.
    """
    chosen, x_te = canonical.index.numpy(), canonical.x_te
    scene, kind = scene_of(data, chosen), control or clarid.config.kind
    latents, samples = canonical.latent, None if control else canonical.sample
    if control is not None:
        if clarid.num_dirs is None and control not in ("none", "reconstruction"):
            # As the set was made or, of a set without directions, now: once for all rows.
            clarid.num_dirs = canonical.manifest["config"]["num_dirs"] or None
            clarid.resolve_k(x_te, scene.labels)
        clarid = control_of(clarid, control)
        if shows_others(control):
            shown = shown_instead(control, data, chosen, seed)
            scene, before = Scene(scene.labels), None
            x_te, _ = invert_all(clarid, shown, scene.labels)
        latents = project_control(clarid, x_te, scene.labels, chosen, seed)
    evidence = None
    if before is not None and torch.equal(latents, x_te):
        alone = clarid.config.guidance == 1
        evidence = replace(before, swap_kept_guided=before.swap_kept) if alone else before
        before = None  # nothing was changed
    elif clarid.teacher.num_classes > 1:
        index = canonical.index
        evidence = class_evidence(clarid, latents, scene.labels, judge, indices=index, seed=seed)
    return measure(
        clarid,
        judge,
        scene,
        x_te,
        latents=latents,
        samples=samples,
        kind=kind,
        seed=seed,
        evidence=evidence,
        before=before,
    )


def inverted_evidence(
    clarid: Clarid, judge: Scorer | None, canonical: CanonicalSet, *, seed: int = 0
) -> ClassEvidence | None:
    """Return the class evidence of a set's inverted latents; None for a teacher of one class."""
    if clarid.teacher.num_classes < 2:
        return None
    labels, index = canonical.label, canonical.index
    return class_evidence(clarid, canonical.x_te, labels, judge, indices=index, seed=seed)


def shows_others(kind: str) -> bool:
    """Say whether a row is of other images than the set's."""
    return kind == "scrambled" or kind.startswith(OTHER_DATA)


def shown_instead(
    control: str, data: LabelledImages, chosen: NDArray[np.int64], seed: int
) -> UInt8[Tensor, "batch c h w"]:
    """Return what is shown in place of the chosen images: these scrambled, or those of other data.

    Which of the other data follows from seed and index; one may be drawn twice. Raises UserError if
    there are no such data.
    """
    if control == "scrambled":
        return scrambled(data.images(chosen), chosen, seed)
    height, width = data.images(chosen[:1]).shape[2:]
    other = _other_data(control, height if height == width else None)
    rngs = [np.random.default_rng([seed, _DRAWN, int(i)]) for i in chosen]
    return other.images([int(rng.integers(len(other))) for rng in rngs])


def _other_data(control: str, side: int | None) -> LabelledImages:
    """Return the data of a control data:PATH, at a side as --image-size makes it."""
    return load_data(DataConfig(data=control.removeprefix(OTHER_DATA), image_size=side))


def scrambled(
    images: UInt8[Tensor, "batch c h w"], chosen: NDArray[np.int64], seed: int
) -> UInt8[Tensor, "batch c h w"]:
    """Return images of the same colours and texture that show nothing: square blocks shuffled.

    Sixteen blocks and more, each image's own order by seed and index.
    """
    height, width = images.shape[2:]
    sides = range(1, max(1, min(height, width) // 4) + 1)
    side = max(d for d in sides if height % d == width % d == 0)
    rows, columns = height // side, width // side
    blocks = images.unflatten(3, (columns, side)).unflatten(2, (rows, side))
    flat = blocks.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, rows * columns, C, side, side)
    orders = [np.random.default_rng([seed, int(i)]).permutation(rows * columns) for i in chosen]
    shuffled = torch.stack([one[order] for one, order in zip(flat, orders, strict=True)])
    again = shuffled.unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5)
    whole: Tensor = again.flatten(4, 5).flatten(2, 3).contiguous()
    return whole


def control_of(clarid: Clarid, kind: str) -> Clarid:
    """Return the setting of a control: same teacher, k and all, another kind of directions."""
    changed: dict[str, Any] = {"kind": kind}
    if kind == "reconstruction":
        changed = {"kind": "none", "guidance": 1.0}
    elif shows_others(kind):
        changed = {}
    control = Clarid(clarid.teacher, clarid.config, **changed)
    control.num_dirs = clarid.num_dirs
    # No kind or guidance changes the Jacobian.
    control.engine, control.products = clarid.engine, clarid.products
    return control


def project_control(
    clarid: Clarid, x_te: Tensor, labels: Tensor, chosen: NDArray[np.int64], seed: int
) -> Tensor:
    """Return the latents (N, C, H, W) of inverted ones under clarid's setting, batch by batch."""
    latents = []
    for part in torch.arange(len(x_te)).split(clarid.config.batch_size):
        subspace = clarid.directions(x_te[part], labels[part], seed + int(chosen[part[0]]))
        latents.append(x_te[part] if subspace is None else project_out(x_te[part], subspace.V))
    return torch.cat(latents)


def invert_all(clarid: Clarid, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return x_te of images, and the round trips' PSNR in dB."""
    size = clarid.config.batch_size
    parts = zip(images.split(size), labels.split(size), strict=True)
    latents, quality = zip(*(clarid.invert(*part) for part in parts), strict=True)
    return torch.cat(latents), torch.cat(quality)
