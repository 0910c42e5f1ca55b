"""Canonical samples as a student meets them: those of the batch's own images first."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.class_balance import rank_within_class
from clarep.data.labelled import to_uint8
from clarep.errors import UserError


@dataclass(frozen=True)
class CanonicalImages:
    """Canonical samples and the teacher's features, in memory."""

    index: NDArray[np.int64]
    """The images in the data set that the samples were made of, (N,)."""
    labels: Int64[Tensor, " n"]
    """Their classes."""
    images: UInt8[Tensor, "n c h w"]
    """The canonical samples."""
    features: Float[Tensor, "n d"]
    """The teacher's canonical features."""

    @classmethod
    def of(
        cls, canonical: CanonicalSet, pooled: bool, left_out: NDArray[np.int64] | None = None
    ) -> "CanonicalImages":
        """Take samples and features of a set.

        pooled: average the features over the image. left_out: images whose samples are not taken,
        such as those to validate on. Raises UserError if none is left.
        """
        index = canonical.index.numpy()
        kept = np.flatnonzero(~np.isin(index, [] if left_out is None else left_out))
        if not len(kept):
            raise UserError(
                f"all {len(index)} images of the canonical set lie in the validation share: give "
                "a larger set, or a smaller `validation_share`"
            )
        rows = torch.from_numpy(kept)
        taken = [
            (to_uint8(sample), _flat(features, pooled))
            for sample, features in canonical.by_shard("sample", "features")
        ]
        samples, features = (torch.cat(parts)[rows] for parts in zip(*taken, strict=True))
        return cls(index[kept], canonical.label[rows], samples, features)

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "CanonicalImages":
        """Return the same with its tensors on a device."""
        parts = (part.to(device) for part in (self.labels, self.images, self.features))
        return CanonicalImages(self.index, *parts)

    def draw(self, batch_index: NDArray[np.int64], count: int, seed: int) -> "CanonicalBatch":
        """Draw at most `count` samples: those of the images in the batch, then class by class.

        What fills the batch is spread over the classes as evenly as the set allows, each class's
        samples in random order. batch_index: the training batch as indices of the data set.
        The same batch and seed give the same samples.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        paired = np.isin(self.index, batch_index)
        order = np.concatenate([order[paired[order]], order[~paired[order]]])
        rank = rank_within_class(self.labels.cpu().numpy()[order])
        # By rank within the class; the sort is stable, so that pairs stay before all others.
        rows = order[np.lexsort((rank, ~paired[order]))[:count]]
        place = {int(image): i for i, image in enumerate(batch_index)}
        pairs = [place[int(image)] for image in self.index[rows[paired[rows]]]]
        chosen = torch.from_numpy(rows).to(self.labels.device)
        return CanonicalBatch(
            self.index[rows],
            self.labels[chosen],
            self.images[chosen],
            self.features[chosen],
            torch.tensor(pairs, dtype=torch.int64, device=chosen.device),
        )


def _flat(features: Float[Tensor, "n *feature"], pooled: bool) -> Float[Tensor, "n d"]:
    features = features.float()
    if pooled and features.ndim > 2:
        features = features.flatten(2).mean(2)
    return features.flatten(1)


@dataclass(frozen=True)
class CanonicalBatch(CanonicalImages):
    """Canonical samples of one step."""

    pairs: Int64[Tensor, " p"]
    """Where in the training batch the images lie whose samples are the first p."""
