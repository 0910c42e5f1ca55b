"""Canonical samples as a student meets them: those of the batch's own images first."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.labelled import to_uint8
from clarep.errors import UserError


@dataclass(frozen=True)
class CanonicalBatch:
    """Canonical samples of one step."""

    rows: Int64[Tensor, " m"]
    """Which of the set they are."""
    images: UInt8[Tensor, "m c h w"]
    """The canonical samples."""
    labels: Int64[Tensor, " m"]
    """Their classes."""
    features: Float[Tensor, "m d"]
    """The teacher's canonical features."""
    pairs: Int64[Tensor, " p"]
    """Where in the training batch the images lie whose samples are the first p."""


@dataclass(frozen=True)
class CanonicalImages:
    """A canonical set in memory, ready to be drawn from."""

    index: NDArray[np.int64]
    """The images in the data set that the samples were made of, (N,)."""
    labels: Int64[Tensor, " n"]
    """Their classes."""
    images: UInt8[Tensor, "n c h w"]
    """The canonical samples."""
    features: Float[Tensor, "n d"]
    """The teacher's canonical features."""

    @classmethod
    def of(cls, canonical: CanonicalSet, pooled: bool) -> "CanonicalImages":
        """Take samples and features of a set; pooled: average the features over the image."""
        tensors = canonical.tensors
        features = tensors["features"].float()
        if pooled and features.ndim > 2:
            features = features.flatten(2).mean(2)
        return cls(
            tensors["index"].numpy(),
            tensors["label"],
            to_uint8(tensors["sample"]),
            features.flatten(1),
        )

    def __len__(self) -> int:
        return len(self.index)

    def without(self, left_out: NDArray[np.int64]) -> "CanonicalImages":
        """Return the set without the samples of some images, such as those to validate on.

        Raises UserError if none is left.
        """
        kept = np.flatnonzero(~np.isin(self.index, left_out))
        if not len(kept):
            raise UserError(
                f"all {len(self)} images of the canonical set lie in the validation share: give "
                "a larger set, or a smaller `validation_share`"
            )
        rows = torch.from_numpy(kept)
        return CanonicalImages(
            self.index[kept], self.labels[rows], self.images[rows], self.features[rows]
        )

    def with_class_means(self) -> "CanonicalImages":
        """Return the set with each sample's features replaced by their mean over its class."""
        _, group = self.labels.unique(return_inverse=True)
        count = torch.bincount(group).to(self.features.dtype)
        sums = torch.zeros(len(count), self.features.shape[1], dtype=self.features.dtype)
        means = sums.index_add(0, group, self.features) / count[:, None]
        return replace(self, features=means[group])

    def to(self, device: torch.device) -> "CanonicalImages":
        """Return the set with its tensors on a device."""
        return CanonicalImages(
            self.index,
            self.labels.to(device),
            self.images.to(device),
            self.features.to(device),
        )

    def draw(self, batch_index: NDArray[np.int64], count: int, seed: int) -> CanonicalBatch:
        """Draw at most `count` samples: those of the images in the batch, then class by class.

        What fills the batch is spread over the classes as evenly as the set allows, each class's
        samples in random order. batch_index: the training batch as indices of the data set.
        The same batch and seed give the same samples.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        paired = np.isin(self.index, batch_index)
        order = np.concatenate([order[paired[order]], order[~paired[order]]])
        rank = _rank_within_class(self.labels.cpu().numpy()[order])
        # By rank within the class; the sort is stable, so that pairs stay before all others.
        by_rank = np.lexsort((rank, ~paired[order]))
        rows = order[by_rank[:count]]
        place = {int(image): i for i, image in enumerate(batch_index)}
        pairs = [place[int(image)] for image in self.index[rows[paired[rows]]]]
        chosen = torch.from_numpy(rows).to(self.labels.device)
        return CanonicalBatch(
            chosen,
            self.images[chosen],
            self.labels[chosen],
            self.features[chosen],
            torch.tensor(pairs, dtype=torch.int64, device=chosen.device),
        )


def _rank_within_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many entries of the same label come before each entry."""
    by_label = np.argsort(labels, kind="stable")
    ordered = labels[by_label]
    first = np.searchsorted(ordered, ordered)
    rank = np.empty(len(labels), np.int64)
    rank[by_label] = np.arange(len(labels)) - first
    return rank
