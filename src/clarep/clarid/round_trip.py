"""What a round trip's PSNR says: beside what a latent teacher's autoencoder alone loses."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.labelled import to_unit_range
from clarep.engine.arrays import Images
from clarep.sampling.ode import psnr
from clarep.teachers.teacher import Teacher

POOR_PSNR = 20.0
"""Below so many dB a walk up and down did not bring the image back."""
_BELOW_FLOOR = 1.0  # dB that a walk may lose beside an autoencoder which is that poor itself


@torch.no_grad()
def autoencoder_psnr(teacher: Teacher, given: Images) -> Float[Tensor, " batch"]:
    """Return the PSNR in dB of images, as `Clarid` takes them, encoded and decoded.

    No round trip can be asked for more; infinite for a pixel teacher.
    """
    images = teacher.accept_images(to_unit_range(given))
    back = teacher.decode(teacher.encode(images.to(teacher.device)))
    return psnr(back.cpu(), images.cpu())


@dataclass(frozen=True)
class RoundTrip:
    """How well images come back that were inverted and decoded."""

    psnr: float
    """In dB."""
    autoencoder: float = math.inf
    """What the autoencoder alone gives of the same images, in dB; infinite for a pixel teacher."""

    @property
    def poor(self) -> bool:
        """Whether they do not come back, and not for the autoencoder's sake."""
        return self.psnr < min(POOR_PSNR, self.autoencoder - _BELOW_FLOOR)

    def __str__(self) -> str:
        if math.isinf(self.autoencoder):
            return f"{self.psnr:.1f} dB"
        return f"{self.psnr:.1f} dB (the autoencoder alone {self.autoencoder:.1f} dB)"


def median_round_trip(canonical: CanonicalSet) -> RoundTrip:
    """Return the median of a stored set, beside its autoencoder's."""
    median = float(canonical.round_trip_psnr.quantile(0.5))
    alone = canonical.manifest.get("findings", {}).get("autoencoder_psnr_median")
    return RoundTrip(median) if alone is None else RoundTrip(median, float(alone))
