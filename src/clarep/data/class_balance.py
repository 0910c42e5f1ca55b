"""Choices that take the same share of every class, and the order that takes classes in turn."""

from numbers import Real

import numpy as np
from numpy.typing import NDArray

from clarep.engine.bounds import check_seed
from clarep.errors import UserError


def class_balanced_choice(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.int64]:
    """Choose at random the same share of every class; at least one image a class.

    Returns sorted indices into `labels`. The same seed gives the same choice.
    Raises UserError if `fraction` is not in (0, 1], or the seed is no seed.
    """
    check_seed(seed)
    mend = "labels are no whole numbers, one an image: give those of the data"
    try:
        labels = np.asarray(labels)
    except ValueError as error:  # lists of several lengths
        raise UserError(mend) from error
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise UserError(mend)
    if isinstance(fraction, bool) or not isinstance(fraction, Real) or not 0 < fraction <= 1:
        raise UserError(f"fraction {fraction!r} is outside (0, 1]: give a share such as 0.1")
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        chosen.append(rng.choice(members, size=count, replace=False))
    return np.sort(np.concatenate(chosen))


def rank_within_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many entries of the same label come before each entry."""
    by_label = np.argsort(labels, kind="stable")
    ordered = labels[by_label]
    rank = np.empty(len(labels), np.int64)
    rank[by_label] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return rank
