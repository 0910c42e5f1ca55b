"""`AuditConfig`: what a teacher is asked of a data set."""

from dataclasses import dataclass
from typing import Annotated

from clarep.engine.bounds import Seed, Within


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
    target_sigma: Annotated[float, Within(0, ends="(]")] = 0.5
    """Noise level of the targets."""
    target_draws: Annotated[int, Within(1)] = 2
    """Draws of noise that a target is the mean of."""
    seed: Seed = 0
    """Of every draw of noise, of the choice of images and of what learns the masks."""
    batch_size: Annotated[int, Within(1)] = 200
    """Images that go through the teacher at once; figures may change in their last digits."""
