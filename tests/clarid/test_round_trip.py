"""A round trip is held against what the autoencoder alone gives."""

import math

import pytest
import torch

from clarep.clarid.round_trip import RoundTrip, autoencoder_psnr
from clarep.sampling import psnr
from clarep.teachers.teacher import Teacher

PIXEL = math.inf


@pytest.mark.parametrize(
    ("trip", "autoencoder", "poor"),
    [
        (19.9, PIXEL, True),
        (20.1, PIXEL, False),
        (18.5, 18.7, False),  # the autoencoder itself gives no more
        (17.0, 18.7, True),
        (18.9, 35.0, True),
        (25.0, 35.0, False),
    ],
)
def test_only_what_lies_below_the_floor_is_poor(trip, autoencoder, poor):
    assert RoundTrip(trip, autoencoder).poor == poor


def test_the_floor_is_of_images_encoded_and_decoded(teacher):
    images = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert autoencoder_psnr(teacher, images).isinf().all()
    assert str(RoundTrip(30.0)) == "30.0 dB"
    latent = Teacher.from_callable(
        lambda x, *_: x,
        lambda x, *_: x,
        latent_shape=(3, 2, 2),
        image_shape=(3, 4, 4),
        encode=lambda given: torch.nn.functional.avg_pool2d(given, 2),
        decode=lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3),
        class_names=["a", "b"],
        sigma_min=0.01,
        sigma_max=80.0,
        taps={"x": (3, 1)},
        fingerprint="means of four pixels",
    )
    means = images.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    expected = psnr(means.repeat_interleave(2, 2).repeat_interleave(2, 3), images)
    assert torch.allclose(autoencoder_psnr(latent, images), expected)
    assert str(RoundTrip(9.0, 12.0)) == "9.0 dB (the autoencoder alone 12.0 dB)"
