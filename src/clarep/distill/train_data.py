"""Images of a student's training: what is kept apart, how an epoch is cut, how they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clarep.data.held_out import Indices
from clarep.data.labelled import LabelledImages

# The first is drawn no longer, and keeps the others their seeds.
_PURPOSES = ("validation", "batches", "views", "canonical", "projector", "generated", "features")


def seed_of(purpose: str, *key: int) -> int:
    """Return a seed below 2^63 that no other purpose and no other key has."""
    # NumPy takes no notice of trailing zeros, so that the purpose stands first.
    sequence = np.random.SeedSequence([_PURPOSES.index(purpose) + 1, *key])
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return into how many batches of nearly equal size an epoch is cut; at least one."""
    return max(1, round(images / batch_size))


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Return the batches of an epoch, as positions in 0 ... images - 1, each once."""
    order = np.random.default_rng(seed_of("batches", seed, epoch)).permutation(images)
    return np.array_split(order, steps_per_epoch(images, batch_size))


@dataclass(frozen=True)
class TrainImages:
    """Images and labels to train on; decoded once where they fit into memory."""

    data: LabelledImages
    """The data set."""
    index: Indices
    """Which images of it, (N,)."""
    labels: Int64[Tensor, " n"]
    """Their classes, and behind them those of the images added."""
    stored: UInt8[Tensor, "n c h w"] | None
    """All images, and behind them those added; None where they are decoded when asked for."""
    added: UInt8[Tensor, "m c h w"] | None = None
    """Images that are not of the data set, such as a teacher's samples, where none are stored."""
    workers: int = 0
    """Processes that decode."""

    @classmethod
    def of(
        cls, data: LabelledImages, index: Indices, memory_mb: float, workers: int
    ) -> "TrainImages":
        """Take images of a data set, into memory if they are at most `memory_mb` MiB."""
        labels = torch.from_numpy(data.labels[index])
        size = len(index) * data.images([int(index[0])]).numel() if len(index) else 0
        fits = size <= memory_mb * 2**20
        stored = data.images(index) if fits and len(index) else None
        return cls(data, index, labels, stored, workers=0 if fits else workers)

    def __len__(self) -> int:
        return len(self.labels)

    def with_added(
        self, images: UInt8[Tensor, "m c h w"], labels: Int64[Tensor, " m"]
    ) -> "TrainImages":
        """Return the set with more images behind its own."""
        both = torch.cat([self.labels, labels])
        if self.stored is None:
            return TrainImages(self.data, self.index, both, None, images, self.workers)
        stored = torch.cat([self.stored, images])
        return TrainImages(self.data, self.index, both, stored, None, self.workers)

    def data_index(self, positions: Indices) -> Indices:
        """Return the images' indices in the data set; -1 for those added."""
        known = np.append(self.index, -1)
        return known[np.minimum(positions, len(self.index))]

    def images(self, positions: Indices) -> UInt8[Tensor, "b c h w"]:
        """Return the images at `positions`."""
        if self.stored is not None:
            return self.stored[torch.from_numpy(positions)]
        own = positions < len(self.index)
        if self.added is None or own.all():
            return self.data.images(self.index[positions])
        others = self.added[torch.from_numpy(positions[~own] - len(self.index))]
        out = others.new_empty(len(positions), *others.shape[1:])
        mask = torch.from_numpy(own)
        out[~mask] = others
        if own.any():
            out[mask] = self.data.images(self.index[positions[own]])
        return out

    def batches(self, positions: Sequence[Indices]) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """Yield the images of each batch, decoded ahead by other processes where not stored."""
        if self.stored is not None or self.workers == 0:
            yield from map(self.images, positions)
            return
        loader = DataLoader(
            _Batches(self, positions), batch_size=None, num_workers=self.workers, shuffle=False
        )
        yield from loader


class _Batches(Dataset[Tensor]):
    """Whole batches by number."""

    def __init__(self, images: TrainImages, positions: Sequence[Indices]) -> None:
        self.images, self.positions = images, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> Tensor:
        return self.images.images(self.positions[i])
