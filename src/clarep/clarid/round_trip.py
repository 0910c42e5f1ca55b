"""What a round trip's PSNR says: beside what a latent teacher's autoencoder alone loses."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.sampling.decode import psnr
from clarep.teachers.teacher import Teacher

POOR_PSNR = 20.0
"""Below so many dB a walk up and down did not bring the image back."""
_BELOW_FLOOR = 1.0  # dB that a walk may lose beside an autoencoder which is that poor itself


@torch.no_grad()
def autoencoder_psnr(
    teacher: Teacher, images: Float[Tensor, "batch c h w"]
) -> Float[Tensor, " batch"]:
    """Return the PSNR in dB of images in [-1, 1] against themselves encoded and decoded.

    No round trip can be asked for more; infinite for a pixel teacher.
    """
    images = teacher.accept_images(images)
    back = teacher.decode(teacher.encode(images.to(teacher.device)))
    return psnr(back.cpu(), images.cpu())


def is_poor(trip: float, autoencoder: float) -> bool:
    """Say whether a round trip of so many dB is poor, and not for the autoencoder's sake."""
    return trip < min(POOR_PSNR, autoencoder - _BELOW_FLOOR)


def told(trip: float, autoencoder: float) -> str:
    """Return the round trip in dB, beside what the autoencoder alone gives where there is one."""
    floor = f" (the autoencoder alone {autoencoder:.1f} dB)" if math.isfinite(autoencoder) else ""
    return f"{trip:.1f} dB{floor}"
