"""Images of a student's training: how an epoch is cut, and how they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from clarep.data.held_out import Indices
from clarep.data.labelled import LabelledImages
from clarep.errors import UserError

# The first is drawn no longer, and keeps the others their seeds.
_PURPOSES = (
    "validation",
    "batches",
    "views",
    "canonical",
    "projector",
    "generated",
    "features",
    "evidence",
    "dfr",
)


def seed_of(purpose: str, *key: int) -> int:
    """Return a seed below 2^63 that no other purpose and no other key has."""
    # NumPy takes no notice of trailing zeros, so that the purpose stands first.
    sequence = np.random.SeedSequence([_PURPOSES.index(purpose) + 1, *key])
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1


def epoch_batches(
    images: int, batch_size: int, seed: int, epoch: int, weights: Float[Tensor, " n"] | None = None
) -> list[Indices]:
    """Return an epoch's batches of nearly equal size, as positions in 0 ... images - 1.

    weights: how often each image is drawn, with replacement, in proportion to the others; None
        draws each once. Either way an epoch has as many steps, and follows from seed and epoch.
    """
    rng = np.random.default_rng(seed_of("batches", seed, epoch))
    if weights is None:
        order = rng.permutation(images)
    else:
        p = weights.double().cpu().numpy()
        order = rng.choice(images, images, p=p / p.sum())
    return np.array_split(order, max(1, round(images / batch_size)))


def drawn_with_share(chosen: Bool[Tensor, " n"], share: float) -> Float[Tensor, " n"] | None:
    """Return weights by which the chosen images take that share of all draws, evenly.

    None, which is each image once an epoch, where none or all are chosen.
    """
    count = int(chosen.sum())
    if count in (0, len(chosen)):
        return None
    return torch.where(chosen, share / count, (1 - share) / (len(chosen) - count)).double()


def check_weights(weights: Tensor | None, images: int) -> None:
    """Raise UserError unless weights are one finite number of at least 0 an image, not all 0."""
    if weights is None:
        return
    fits = weights.shape == (images,) and weights.is_floating_point()
    if not (fits and bool(weights.isfinite().all() & (weights >= 0).all() & (weights > 0).any())):
        raise UserError(
            f"the method's `weights` are {weights.dtype} {tuple(weights.shape)}: give one float, "
            f"finite and not negative, for each of the {images} training images, not all of them 0"
        )


@dataclass(frozen=True)
class TrainImages:
    """Images and labels to train on; decoded once where they fit into memory."""

    data: LabelledImages
    """The data set, and behind its images those added."""
    index: Indices
    """Which images of it, (N,)."""
    stored: UInt8[Tensor, "n c h w"] | None
    """These images; None where they are decoded when asked for."""
    workers: int = 0
    """Processes that decode."""

    @classmethod
    def of(
        cls, data: LabelledImages, index: Indices, memory_mb: float, workers: int
    ) -> "TrainImages":
        """Take images of a data set, into memory if they are at most `memory_mb` MiB."""
        size = len(index) * data.images([int(index[0])]).numel() if len(index) else 0
        if size > memory_mb * 2**20:
            return cls(data, index, None, workers)
        return cls(data, index, data.images(index) if len(index) else None)

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def labels(self) -> Int64[Tensor, " n"]:
        """Their classes."""
        return torch.from_numpy(self.data.labels[self.index])

    def at(self, positions: Indices) -> "TrainImages":
        """Return those at `positions` alone."""
        stored = None if self.stored is None else self.stored[torch.from_numpy(positions)]
        return TrainImages(self.data, self.index[positions], stored, self.workers)

    def with_added(
        self, images: UInt8[Tensor, "m c h w"], labels: Int64[Tensor, " m"]
    ) -> "TrainImages":
        """Return the set with more images behind its own, which are not of the data set."""
        data, count = self.data, len(self.data)
        both = LabelledImages(
            data.name,
            np.concatenate([data.labels, labels.numpy()]),
            data.class_names,
            [*data.sources, *(f"added/{i}" for i in range(len(labels)))],
            partial(_read, data, images.permute(0, 2, 3, 1).numpy()),
        )
        index = np.concatenate([self.index, np.arange(count, count + len(labels))])
        stored = None if self.stored is None else torch.cat([self.stored, images])
        return TrainImages(both, index, stored, self.workers)

    def images(self, positions: Indices) -> UInt8[Tensor, "b c h w"]:
        """Return the images at `positions`."""
        if self.stored is not None:
            return self.stored[torch.from_numpy(positions)]
        return self.data.images(self.index[positions])

    def batches(self, positions: Sequence[Indices]) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """Yield the images of each batch, decoded ahead by other processes where not stored."""
        if self.stored is not None or self.workers == 0:
            return map(self.images, positions)
        decode: Any = self.images
        whole: Any = positions  # a sequence is a data set to it
        loader = DataLoader(whole, batch_size=None, num_workers=self.workers, collate_fn=decode)
        return iter(loader)


def _read(data: LabelledImages, added: Any, i: int) -> Any:
    return data.read(i) if i < len(data) else added[i - len(data)]
