"""What a page shows of a canonical set and its shards do not hold: a small file beside them.

`identify` leaves it, so that whoever looks at the set needs neither its teacher nor its images.
"""

import json
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.data.labelled import LabelledImages, to_uint8
from clarep.engine.artefacts import parse_json
from clarep.engine.places import local_file, place_of
from clarep.engine.tensors import read_tensors, tensor_bytes
from clarep.errors import UserError, refusing
from clarep.geometry.dense import exact_spectrum

PICTURES = "pictures.safetensors"
ROWS = 10
"""Images that are shown: `canonical.balanced(ROWS)`, so none is picked by its looks."""
POINTS = 300
"""Images whose features are laid out, likewise."""
_SET = "canonical_sha256"  # in the metadata: the set that they are of
_LARGEST_DENSE = 2**25  # entries of a Jacobian that is formed for a picture


@dataclass(frozen=True)
class SetPictures:
    """What `identify` leaves beside the shards."""

    original: UInt8[Tensor, "rows c h w"]
    reconstruction: UInt8[Tensor, "rows c h w"]
    """Decoded as it was inverted, neither projected nor guided."""
    guidance_alone: UInt8[Tensor, "rows c h w"]
    features_before: Float[Tensor, "points r"]
    """`principal_coordinates` of the features of inverted latents, of POINTS images."""
    spectrum: Float[Tensor, " n"] | None
    """All singular values of the first row's Jacobian, where that is small and the directions are
    its top ones."""
    data_name: str
    classes: list[str]
    """What the data call the class of each row."""


def store_pictures(clarid: Clarid, data: LabelledImages, canonical: CanonicalSet) -> None:
    """Write the set's pictures beside its shards, unless they are there and of this very set."""
    try:
        read_pictures(canonical)
        return
    except UserError:
        shown, laid_out = canonical.balanced(ROWS), canonical.balanced(POINTS)
    unguided = Clarid(clarid.teacher, clarid.config, kind="none", guidance=1.0)
    features = clarid.features(laid_out.x_te, laid_out.label)
    pictures = {
        "original": data.images(shown.index.numpy()),
        "reconstruction": to_uint8(unguided.sample(shown.x_te, shown.label)),
        "guidance_alone": to_uint8(clarid.sample(shown.x_te, shown.label)),
        "features_before": principal_coordinates(features),
    }
    if clarid.config.kind == "top":  # other directions have no place on the spectrum's left
        jacobian = clarid.jacobian(shown.x_te[:1], shown.label[:1])
        if jacobian.m * jacobian.n <= _LARGEST_DENSE:
            pictures["spectrum"] = exact_spectrum(jacobian.dense()[0].cpu()).float()
    about = {
        _SET: canonical.sha256,
        "data_name": data.name,
        "classes": json.dumps([data.class_names[label] for label in shown.label.tolist()]),
    }
    place_of(canonical.folder).write(PICTURES, tensor_bytes(pictures, about))


def read_pictures(canonical: CanonicalSet) -> SetPictures:
    """Return what `identify` left beside the shards.

    Raises UserError if there is nothing, or it is damaged or of another set.
    """
    place = place_of(canonical.folder)
    path = f"{place}/{PICTURES}"
    again = "the same clarep identify command again writes it"
    if PICTURES not in place.names():
        raise UserError(f"{path} is missing: {again}")
    with local_file(place, PICTURES) as file:
        tensors, about = read_tensors(file, "the pictures of a canonical set")
    if about.get(_SET) != canonical.sha256:
        raise UserError(f"{path} is of another canonical set: {again}")
    with refusing(f"cannot read {path}", again, (LookupError, TypeError, ValueError)):
        classes = parse_json(about["classes"])
        given: dict[str, Any] = {"spectrum": None} | tensors
        return SetPictures(**given, data_name=about["data_name"], classes=classes)


def picture_columns(
    shown: CanonicalSet, pictures: SetPictures | None
) -> dict[str, UInt8[Tensor, "rows _ _ _"]]:
    """Return the columns of the picture by their headings; shown: the first ROWS, balanced."""
    if pictures is None:
        return shown.columns()
    return {
        "original": pictures.original,
        "reconstruction": pictures.reconstruction,
        "guidance alone": pictures.guidance_alone,
    } | shown.columns()


def principal_coordinates(features: Float[Tensor, "n *feature"]) -> Float[Tensor, "n r"]:
    """Return features (n, ...) turned onto their principal axes, r = min(n, dim), float32.

    All distances stay; the first columns are what PCA shows. The largest entry of each is positive.
    """
    flat = features.flatten(1)
    gram = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for columns in flat.split(4096, dim=1):  # features may have 100,000 dimensions
        centred = columns.double() - columns.double().mean(dim=0)
        gram += centred @ centred.T
    squares, axes = torch.linalg.eigh(gram)  # ascending
    found: Tensor = (axes * squares.clamp_min(0).sqrt()).flip(1)[:, : flat.shape[1]]
    largest = found.gather(0, found.abs().argmax(dim=0, keepdim=True))
    return (found * torch.where(largest < 0, -1.0, 1.0)).float()
