"""`AuditConfig`: what a teacher is asked of a data set."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from clarep.engine.bounds import Seed, Within
from clarep.engine.identity import recorded

Part = Literal["errors", "masks", "targets"]
"""What an audit holds, a file each."""
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class AuditConfig:
    """What a teacher is asked of a data set. Noise levels are sigma of x_0 + sigma eps."""

    sigmas: tuple[Annotated[float, Within(0, ends="(]")], ...] = (0.25,)
    """Noise levels at which every image is denoised under each class; doubts are taken at the
    first."""
    draws: Annotated[int, Within(1)] = 2
    """Draws of noise at each level."""
    rivals: Annotated[int, Within(0)] | None = None
    """Other classes that each image is tried with, drawn at random for each; all without any; 0
    tries no class instead, the cheapest, and takes --mask-draws 0."""
    doubted_share: Annotated[float, Within(0, 1, "(]")] = 0.1
    """Share of every class that counts as doubted."""
    mask_draws: Annotated[int, Within(0)] = 16
    """Draws of noise for the maps from which object masks are learnt; 0 leaves masks out."""
    mask_area: Annotated[float, Within(0, 1, "[)")] = 0.4
    """Share of every image that its object mask takes; 0 for wherever the object is more likely
    than not."""
    target_share: Annotated[float, Within(0, 1)] = 0.1
    """Share of every class that gets class evidence targets; 0 leaves them out."""
    target_rivals: Annotated[int, Within(1)] | None = None
    """Other classes that each target is of, drawn at random for each image; all without any, which
    is too much to keep of hundreds."""
    target_sigma: Annotated[float, Within(0, ends="(]")] = 0.5
    """Noise level of the targets."""
    target_draws: Annotated[int, Within(1)] = 2
    """Draws of noise that a target is the mean of."""
    seed: Seed = 0
    """Of every draw of noise, of the choice of images and of what learns the masks."""
    batch_size: Annotated[int, Within(1)] = 200
    """Images that go through the teacher at once; figures may change in their last digits."""


_OF_ERRORS = ("sigmas", "draws", "rivals", "doubted_share", "seed")
_SETTINGS: dict[Part, tuple[str, ...]] = {
    "errors": _OF_ERRORS,
    "masks": (*_OF_ERRORS, "mask_draws", "mask_area"),
    "targets": ("target_share", "target_rivals", "target_sigma", "target_draws", "seed"),
}
"""From which settings each part follows; from `batch_size`, but for last digits, none does."""


OPTIONAL: dict[Part, tuple[str, str]] = {
    "masks": ("mask_draws", "object masks"),
    "targets": ("target_share", "class evidence"),
}
"""Part -> the setting that leaves it out where it is 0, and what it is in words."""


def setting_of(config: AuditConfig, parts: Collection[Part] = PARTS) -> dict[str, Any]:
    """Return what parts of an audit follow from of its configuration, as it is recorded."""
    names = {name for part in parts for name in _SETTINGS[part]}
    return {name: value for name, value in recorded(config).items() if name in names}
