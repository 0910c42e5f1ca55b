"""Tensors of a canonical set where they lie: rows are read when they are asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from clarep.clarid.canonical_shards import read_shard
from clarep.engine.places import Place


@dataclass(frozen=True, eq=False)
class ShardRows:
    """The rows of a set's shards, in their order: row i is the i-th image of the set.

    A shard is opened for as long as rows are copied from it, mapped where it is a file of this
    machine, so that what is in memory does not grow with the set.
    """

    place: Place
    shards: Sequence[dict[str, Any]]
    """Entries of the manifest."""

    def take(self, name: str, rows: Int64[Tensor, " m"]) -> Shaped[Tensor, "m *shape"]:
        """Return some rows of a tensor, in the order asked; raises UserError for a lost shard."""
        starts = np.cumsum([0, *(len(shard["images"]) for shard in self.shards)])
        asked = rows.numpy()
        home = np.searchsorted(starts, asked, side="right") - 1  # the shard of each row
        found: Tensor | None = None
        for shard in np.unique(home) if len(asked) else [0]:
            tensor = self._tensor(int(shard), name)
            if found is None:
                found = tensor.new_empty((len(asked), *tensor.shape[1:]))
            where = np.flatnonzero(home == shard)
            found[torch.from_numpy(where)] = tensor[torch.from_numpy(asked[where] - starts[shard])]
        assert found is not None  # a set has a shard
        return found

    def whole(self, name: str) -> Shaped[Tensor, "n *shape"]:
        """Return all rows of a tensor, in memory."""
        return torch.cat([self._tensor(i, name) for i in range(len(self.shards))])

    def by_shard(self, *names: str) -> Iterator[tuple[Tensor, ...]]:
        """Yield these tensors shard by shard, in the order of the set."""
        for shard in self.shards:
            tensors = read_shard(self.place, shard["file"], names)[1]
            yield tuple(tensors[name] for name in names)

    def _tensor(self, shard: int, name: str) -> Tensor:
        return read_shard(self.place, self.shards[shard]["file"], (name,))[1][name]
