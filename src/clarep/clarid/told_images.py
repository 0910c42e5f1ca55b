"""What tells the images of a set that was begun before they were read: each shard tells its own.

So are sets whose images do not fit in memory: an image is read when its shard is made. Until the
set is complete, classes and labels stand in its configuration where else the hash of all images is.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.image_hashes import joint_sha256, pixels_sha256
from clarep.data.labelled import LabelledImages, UnreadableImage
from clarep.engine.printable import counted
from clarep.errors import UserError

TOLD = "images_told"
"""Of a shard: label and SHA-256 of the pixels of each of its images."""


def unread(data: LabelledImages, indices: NDArray[np.int64]) -> dict[str, Any]:
    """Return what stands for the hash of images that are not read yet."""
    labels = hashlib.sha256(data.labels[indices].tobytes()).hexdigest()
    return {"class_names": list(data.class_names), "labels_sha256": labels}


def told(config: dict[str, Any], images: Tensor, labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return what a shard tells of its images, uint8 (B, 3, H, W); nothing where its set does."""
    if not isinstance(config["data_sha256"], dict):
        return {}
    each = [pixels_sha256(image).hex() for image in images.permute(0, 2, 3, 1).numpy()]
    return {TOLD: [list(pair) for pair in zip(labels.tolist(), each, strict=True)]}


def is_told(shard: dict[str, Any]) -> bool:
    """Tell whether a shard's entry tells each of its images, or none, as `told` does."""
    pairs = shard.get(TOLD, [[0, "0" * 64]] * len(shard["images"]))
    return isinstance(pairs, list) and len(pairs) == len(shard["images"]) and all(map(_pair, pairs))


def _pair(one: object) -> bool:
    match one:
        case [int(), str() as sha256]:
            return re.fullmatch("[0-9a-f]{64}", sha256) is not None
    return False


def all_told(config: dict[str, Any], shards: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return `data_sha256` of a complete set as its shards tell it; nothing where they do not."""
    begun = config.get("data_sha256")
    if not isinstance(begun, dict) or not all(TOLD in shard for shard in shards):
        return {}
    images = [i for shard in shards for i in shard["images"]]
    pairs = [pair for shard in shards for pair in shard[TOLD]]
    each = [bytes.fromhex(sha256) for _, sha256 in pairs]
    try:
        whole = joint_sha256(begun["class_names"], images, [label for label, _ in pairs], each)
    except (LookupError, TypeError, ValueError, OverflowError):  # forged: it is of no data
        return {}
    return {"data_sha256": whole}


def read_images(data: LabelledImages, indices: Sequence[int]) -> Tensor:
    """Return images for a shard. Raises UserError for one that cannot be read."""
    try:
        return data.images(indices)
    except UnreadableImage as error:
        raise UserError(
            f"cannot read {error.source}: {error.reason}; what is done is kept: put a whole image "
            "in its place and give the same command again, or begin anew with `skip_bad`"
        ) from error


def refuse_changed(shards: Iterable[dict[str, Any]], data: LabelledImages) -> None:
    """Raise UserError for an image that is no longer what its stored shard was made of."""
    shards = [shard for shard in shards if TOLD in shard]
    if shards:
        from clarep.engine.progress import announce  # with rich, which importing does not need

        count = sum(len(shard["images"]) for shard in shards)
        announce(f"reading the {counted(count, 'image')} of the stored shards: are they the same?")
    for shard in shards:
        for i, (_, sha256) in zip(shard["images"], shard[TOLD], strict=False):
            if data.digests([i]) != [sha256]:
                raise UserError(
                    f"{data.sources[i]} has changed since {shard['file']} was made of it: put the "
                    "image back that it was, or give another `out`"
                )
