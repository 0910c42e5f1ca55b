"""How well the label can be read from what CLARID takes out of a latent, and from what is left.

By a linear probe, image by image on others: where the part that is taken out says the class as
well as the rest does, it is no mere background, or the background says the class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.clareps import CLAReps
from clarep.clarid.set_pictures import principal_coordinates
from clarep.engine.bounds import check_seed
from clarep.engine.printable import counted
from clarep.engine.statistics import binomial_interval
from clarep.errors import UserError

_FOLDS = 5
_PENALTIES = 10.0 ** np.arange(-3, 4)  # in units of the mean square of a feature, times their count


@dataclass(frozen=True)
class Readable:
    """How often a linear probe reads the label from a part of the latent."""

    part: str
    """`whole`, `extraneous` (what is taken out), or `left`."""
    images: int
    accuracy: float
    interval: tuple[float, float]
    """95 %, exact binomial."""
    by_class: dict[int, float]
    """Class -> the share of its images that are read right."""
    chance: float
    """Share of the most frequent class."""


def readable_parts(canonical: CLAReps, seed: int = 0) -> list[Readable]:
    """Return how well labels are read before, from what is taken out, and from what is left.

    Cross-validated in five folds; the probe is a ridge classifier, its penalty chosen within the
    images that it is trained on.

    Raises:
        UserError: for fewer than two classes, or fewer than five images of one.
    """
    check_seed(seed)
    labels = canonical.label.numpy()
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < 2 or counts.min() < _FOLDS:
        raise UserError(
            f"a probe of the label needs {_FOLDS} images or more of two classes or more, and the "
            f"canonical set has {counted(len(present), 'class')}, one of "
            f"{counted(int(counts.min()), 'image')}: make one of a larger `fraction`"
        )
    x_te, left = canonical.x_te, canonical.latent
    parts = {"whole": x_te, "extraneous": x_te - left, "left": left}
    return [_read(name, part, labels, seed) for name, part in parts.items()]


def _read(name: str, part: Tensor, labels: NDArray[np.int64], seed: int) -> Readable:
    right = _predicted(part, labels, seed) == labels
    return Readable(
        part=name,
        images=len(labels),
        accuracy=float(right.mean()),
        interval=binomial_interval(int(right.sum()), len(right)),
        by_class={int(label): float(right[labels == label].mean()) for label in np.unique(labels)},
        chance=float(np.bincount(labels).max() / len(labels)),
    )


def _predicted(part: Tensor, labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the class that a probe trained on other folds reads from each image."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import StratifiedKFold

    # The axes change no distance, and a ridge knows nothing else; they are fewer than features.
    features = principal_coordinates(part).double().numpy()
    scale = float(np.sqrt((features**2).sum(1).mean()))
    features /= scale if scale > 0 else 1.0
    found = np.empty_like(labels)
    for train, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(
        features, labels
    ):
        probe = RidgeClassifierCV(alphas=_PENALTIES).fit(features[train], labels[train])
        found[test] = probe.predict(features[test])
    return found
