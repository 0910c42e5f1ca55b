"""Noise as a function of its seed, what it is for, the image, the level and the draw.

So neither what goes through the teacher at once, nor which images are asked about, nor where a
killed run goes on changes a figure.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

ERRORS, MASKS, TARGETS, EVIDENCE = range(4)
"""What noise is for: draws of one kind are independent of those of another.

The first three are of an audit, the last of class evidence."""


def noise_of(
    indices: Sequence[int] | NDArray[np.int64],
    shape: tuple[int, int, int],
    *,
    seed: int,
    purpose: int,
    level: int = 0,
    draw: int = 0,
) -> Float[Tensor, "batch c h w"]:
    """Return standard normal noise of the images at `indices` of a data set, float32.

    level: place of the noise level among those that are tried.
    """
    keys = [[seed, purpose, level, draw, int(i)] for i in indices]
    return torch.from_numpy(
        np.stack([np.random.default_rng(key).standard_normal(shape, np.float32) for key in keys])
    )
