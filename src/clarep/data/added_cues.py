"""A spurious cue with a dial, added to any images: each class has a colour of its own.

What scenes are to backdrops, so that there is a regime that can tell whatever the data.
"""

import colorsys
from dataclasses import fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clarep.data.cues import NO_CUE, OTHER_CUES, GroupedImages
from clarep.data.labelled import LabelledImages
from clarep.engine.bounds import check_seed
from clarep.errors import UserError, unknown_name

CueKind = Literal["tint", "patch"]
CUE_VARIANTS = ("original", *OTHER_CUES)
"""The cue by the dial; the class's own; a random class's, as at a dial of 0; the image itself."""
_TINT = 0.3  # share of the colour in a tinted image
_PATCH = 4  # sides of the patch that the image's shorter side holds
_MOST = 32  # classes: with more, neighbouring colours cannot be told apart


def with_cue(
    data: LabelledImages,
    kind: CueKind,
    correlation: float,
    *,
    seed: int = 0,
    variant: str = "original",
    split: str = "train",
) -> GroupedImages:
    """Return images that are tinted, or have a patch in the upper left corner, in a class's colour.

    Images, labels, seed, split and options that are the same give the same bytes.

    Args:
        data: any labelled images.
        kind: `tint` mixes the whole image with 30 % of the colour; `patch` puts a square of it, a
            quarter of the shorter side, into the upper left corner.
        correlation: share of images, in [0, 1], that are given their own class's colour; the
            others draw any class's. Which are given it at one share are at every larger one.
        seed: of the draws.
        variant: of CUE_VARIANTS.
        split: another one draws otherwise.

    Returns:
        The images, which know their cues, and those of the other variants as `other_cues`.

    Raises:
        UserError: for a kind or variant of no such name, a share outside [0, 1], and too many
            classes to have colours of their own.
    """
    check_seed(seed)
    if kind not in ("tint", "patch"):
        raise unknown_name("cue", kind, ("tint", "patch"))
    if variant not in CUE_VARIANTS:
        raise unknown_name("variant", variant, CUE_VARIANTS)
    if not 0 <= correlation <= 1:
        raise UserError(f"correlation {correlation} is outside [0, 1]: give a share such as 0.9")
    if (classes := len(data.class_names)) > _MOST:
        raise UserError(
            f"`cue={kind}` gives each class a colour, and those of {classes} classes cannot be "
            f"told apart: give data of at most {_MOST} classes"
        )
    chance, anywhere = np.empty(len(data)), np.empty(len(data), np.int64)
    for i in range(len(data)):
        rng = np.random.default_rng([seed, *split.encode(), i])
        chance[i], anywhere[i] = rng.random(), rng.integers(classes)
    cues = {
        "original": np.where(chance < correlation, data.labels, anywhere),
        "own": data.labels,
        "random": anywhere,
        "none": np.full(len(data), NO_CUE),
    }
    told = f"{data.name}/cue={kind}/seed={seed}"
    named = {name: f"{told}/{name}" for name in CUE_VARIANTS}
    named["original"] = f"{told}/correlation={correlation:g}"
    made = {name: _shown(data, kind, cues[name], named[name]) for name in CUE_VARIANTS}
    others = {name: made[name] for name in OTHER_CUES}
    chosen = {one.name: getattr(made[variant], one.name) for one in fields(GroupedImages)}
    return GroupedImages(**chosen | {"other_cues": others})


def _shown(
    data: LabelledImages, kind: CueKind, cues: NDArray[np.int64], name: str
) -> GroupedImages:
    """Return the images with these cues, each made when it is read."""
    classes = len(data.class_names)

    def read(i: int) -> NDArray[np.uint8]:
        image = data.read(i)
        return image if cues[i] == NO_CUE else coloured(image, kind, int(cues[i]), classes)

    return GroupedImages(
        name=name,
        labels=data.labels,
        class_names=data.class_names,
        sources=data.sources,
        read=read,
        notes=data.notes,
        cue=cues,
    )


def coloured(image: NDArray[np.uint8], kind: CueKind, cue: int, classes: int) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) with a class's colour: of the classes' hues, evenly spaced."""
    colour = 255 * np.array(colorsys.hsv_to_rgb(cue / classes, 1.0, 1.0))
    if kind == "tint":
        mixed: NDArray[np.uint8] = np.rint((1 - _TINT) * image + _TINT * colour).astype(np.uint8)
        return mixed
    side = max(1, min(image.shape[:2]) // _PATCH)
    marked = np.array(image)
    marked[:side, :side] = np.rint(colour)
    return marked
