"""What an audit has computed so far: a file for each block of images, and what each cost."""

import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clarep.engine.artefacts import Progressed
from clarep.engine.cost import peak_memory_mb
from clarep.engine.tensors import computed_once

BLOCK = 250
"""Images a part: what a kill can cost."""
Rows = NDArray[np.int64]
"""Places of images among those that are audited."""
_FOLDER = "parts"
_SECONDS = "seconds"  # the tensor of a part that tells how long it took


@dataclass(frozen=True)
class Stage:
    """One kind of question to the teacher, asked of some images."""

    name: str
    images: int
    """How many."""
    passes_each: int
    """Of each through the denoiser."""

    def blocks(self) -> list[tuple[str, slice]]:
        """Return name and place of each block of its images."""
        starts = range(0, self.images, BLOCK)
        return [(f"{self.name}-{i:05d}", slice(s, s + BLOCK)) for i, s in enumerate(starts)]

    def passes(self, block: slice) -> int:
        """Return what a block costs."""
        return len(range(*block.indices(self.images))) * self.passes_each


class AuditParts:
    """Parts of an audit in a folder: each computed once, whatever kills the run between them.

    described: what all parts follow from, JSON values; parts of anything else are made again.
    """

    def __init__(self, folder: Path, described: Mapping[str, Any], stages: Sequence[Stage]) -> None:
        self._folder, self._described = folder / _FOLDER, dict(described)
        self._seconds: dict[str, float] = {}
        blocks = [(stage, *block) for stage in stages for block in stage.blocks()]
        self.total = sum(stage.passes(block) for stage, _, block in blocks)
        kept = [stage.passes(block) for stage, name, block in blocks if self._path(name).exists()]
        self._done = sum(kept)

    def progress(self, new: int = 0) -> Progressed:
        """Say how many denoisings are done and to do, and add `new` ones."""
        self._done += new
        return Progressed(self._done, new, self.total)

    def walk(
        self, stage: Stage, rows: Rows, compute: Callable[[Rows], dict[str, Tensor]]
    ) -> Generator[Progressed, None, dict[str, Tensor]]:
        """Compute what is missing of a stage, yielding after each part; return all of it.

        rows: the stage's images. compute: from some of them to tensors, batch first.
        """
        found = []
        for name, block in stage.blocks():
            path, started = self._path(name), time.perf_counter()
            is_new = not path.exists()

            def timed(some: Rows = rows[block], started: float = started) -> dict[str, Tensor]:
                tensors = compute(some)
                spent = time.perf_counter() - started
                return tensors | {_SECONDS: torch.tensor(spent, dtype=torch.float64)}

            part = computed_once(path, self._described | {"part": name}, timed)
            spent = float(part.pop(_SECONDS))
            self._seconds[stage.name] = self._seconds.get(stage.name, 0.0) + spent
            found.append(part)
            if is_new:
                yield self.progress(stage.passes(block))
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    def cost(self) -> dict[str, Any]:
        """Return what all stages that were walked cost, whichever run computed them."""
        return {
            "denoiser_evaluations": self.total,
            "seconds": {stage: round(spent, 3) for stage, spent in self._seconds.items()},
            "peak_memory_mb": peak_memory_mb(),
        }

    def remove(self) -> None:
        """Delete all parts, once what was made of them is stored."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"
