"""Data whose spurious cues are known, and the groups that class and cue make of them.

Groups are what worst-group accuracy is taken over, and what some rivals are told of the training
images: Sagawa et al. 2020, arXiv 1911.08731.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clarep.data.labelled import LabelledImages
from clarep.errors import UserError, unknown_name

NO_CUE = -1
"""Kind of the cue in an image that shows none, or one that goes with no class."""
OTHER_CUES = ("own", "random", "none")
"""What may stand in place of an image's cue: that of its class, of a random class, nothing."""


@runtime_checkable
class Grouped(Protocol):
    """A data set that knows the spurious cue in each image: backdrops, or `GroupedImages`."""

    def cues(self) -> NDArray[np.int64]:
        """Return the cue in each image, (N,): the class that it goes with, or NO_CUE."""


@dataclass(frozen=True, repr=False)
class GroupedImages(LabelledImages):
    """Labelled images whose spurious cue is known, of a user's own, say."""

    cue: NDArray[np.int64] = field(repr=False, compare=False, kw_only=True)
    """The cue in each image, (N,): the class that it goes with, or NO_CUE."""
    other_cues: Mapping[str, LabelledImages] = field(
        default_factory=dict, repr=False, compare=False, kw_only=True
    )
    """A name of OTHER_CUES -> the same images with that in place of their cue."""

    def __post_init__(self) -> None:
        """Raise UserError as `LabelledImages`, and for other cues that no measure knows."""
        super().__post_init__()
        for name in self.other_cues:
            if name not in OTHER_CUES:
                raise unknown_name("other cue", name, OTHER_CUES)

    def cues(self) -> NDArray[np.int64]:
        """Return the cue in each image, (N,)."""
        return self.cue


def cues_of(data: LabelledImages) -> NDArray[np.int64] | None:
    """Return the cue in each image, (N,), in -1 ... classes - 1; None if the data know of none.

    Raises UserError for cues that are none.
    """
    if not isinstance(data, Grouped):
        return None
    cues = np.asarray(data.cues())
    classes = len(data.class_names)
    right = cues.shape == (len(data),) and cues.dtype.kind in "iu"
    if not (right and bool(((cues >= NO_CUE) & (cues < classes)).all())):
        raise UserError(
            f"the cues of {data.name} are {cues.dtype} {cues.shape}: give each of its {len(data)} "
            f"images the number of the class that its cue goes with, 0 to {classes - 1}, or "
            f"{NO_CUE} for none"
        )
    return cues.astype(np.int64) if (cues != NO_CUE).any() else None


def group_numbers(labels: NDArray[np.int64], cues: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group of each image, (N,): the pairs of class and cue that there are, from 0."""
    pairs = np.stack([labels, cues], axis=1)
    _, groups = np.unique(pairs, axis=0, return_inverse=True)
    return np.asarray(groups, np.int64).reshape(-1)
