"""The few images that a page shows of an audit: the most typical and most doubted of each class.

`audit` leaves them beside its figures, so that whoever looks at these needs no data.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from clarep.audit.audit import Audit
from clarep.data.labelled import LabelledImages
from clarep.engine.tensors import read_tensors, save_tensors
from clarep.errors import UserError

PICTURES = "pictures.safetensors"
EACH = 5
"""Typical images of a class that are shown, and doubted ones."""
CLASSES = 20
"""Of more classes, the first."""
_SIDE = 96  # pixels: larger images are shrunk
_AUDIT = "audit_sha256"  # in the metadata: the audit that they are of


@dataclass(frozen=True)
class ShownImages:
    """Images of each class, the most typical first, then the most doubted."""

    row: Int64[Tensor, " n"]
    """Which of the audited images."""
    doubted: Bool[Tensor, " n"]
    """Whether it stands among the doubted ones."""
    images: UInt8[Tensor, "n c h w"]
    """At most 96 pixels a side."""
    masks: Bool[Tensor, "n h w"] | None
    """Where the object is in them, as the audit says."""


def store_shown(audit: Audit, data: LabelledImages) -> None:
    """Write the images that a page shows, unless they are there and of this very audit."""
    if read_shown(audit) is not None:
        return
    row, doubted = _chosen(audit)
    images = data.images(audit.index[row].numpy())
    side = max(images.shape[2:])
    shape = [max(1, round(n * min(1.0, _SIDE / side))) for n in images.shape[2:]]
    small = F.interpolate(images.float(), shape, mode="area").round().to(torch.uint8)
    tensors = {"row": row, "doubted": doubted, "images": small}
    if audit.masks is not None:
        masks = F.interpolate(audit.masks[row, None].float(), shape, mode="area")
        tensors["masks"] = masks[:, 0] > 0.5
    save_tensors(audit.folder / PICTURES, tensors, {_AUDIT: audit.sha256})


def read_shown(audit: Audit) -> ShownImages | None:
    """Return what `store_shown` left; None if there is nothing, or it is damaged or of another."""
    try:
        tensors, about = read_tensors(audit.folder / PICTURES, "pictures of an audit")
    except UserError:
        return None
    if about.get(_AUDIT) != audit.sha256 or not {"row", "doubted", "images"} <= set(tensors):
        return None
    return ShownImages(tensors["row"], tensors["doubted"], tensors["images"], tensors.get("masks"))


def _chosen(audit: Audit) -> tuple[Tensor, Tensor]:
    """Return the rows to show, and which of them as doubted; no image is both."""
    rows, doubted = [], []
    for label in audit.labels.unique()[:CLASSES]:
        members = torch.nonzero(audit.labels == label)[:, 0]
        order = members[audit.doubts[members].argsort(stable=True)]
        typical, most = order[:EACH], order[EACH:].flip(0)[:EACH]
        rows += [typical, most]
        doubted += [torch.zeros(len(typical)), torch.ones(len(most))]
    return torch.cat(rows), torch.cat(doubted).bool()
