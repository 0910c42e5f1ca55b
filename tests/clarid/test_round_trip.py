"""A round trip is held against what the autoencoder alone gives."""

import math

import numpy as np
import pytest
import torch

from clarep.clarid.clarid import Clarid
from clarep.clarid.identify import identify
from clarep.clarid.round_trip import POOR_PSNR, RoundTrip, autoencoder_psnr, median_round_trip
from clarep.data.labelled import LabelledImages
from clarep.sampling.ode import psnr
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


def coarse():
    """A latent teacher, whose code is the mean of four pixels."""
    return Teacher.from_callable(
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
        has_null=False,
    )


def test_the_floor_is_of_images_encoded_and_decoded(teacher):
    given = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = given * 2 - 1
    assert autoencoder_psnr(teacher, given).isinf().all()
    assert str(RoundTrip(30.0)) == "30.0 dB"
    latent = coarse()
    means = images.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    expected = psnr(means.repeat_interleave(2, 2).repeat_interleave(2, 3), images)
    assert torch.allclose(autoencoder_psnr(latent, given), expected)
    assert str(RoundTrip(9.0, 12.0)) == "9.0 dB (the autoencoder alone 12.0 dB)"


def test_a_stored_set_tells_its_floor(tmp_path):
    """The walk by a denoiser that changes nothing is exact: the round trip is the floor itself."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3)).astype(np.uint8)
    labels = np.array([0, 1, 0, 1, 1, 1, 0], np.int64)
    data = LabelledImages("made", labels, ("a", "b"), list("abcdefg"), pixels.__getitem__)
    clarid = Clarid(coarse(), k=1, kind="none", guidance=1.0, batch_size=3, steps=2)
    canonical = identify(clarid, data, tmp_path, shard_size=4)
    trip = median_round_trip(canonical)
    expected = autoencoder_psnr(coarse(), data.images(np.arange(7))).quantile(0.5)
    assert trip.autoencoder == pytest.approx(float(expected))
    assert trip.psnr == pytest.approx(trip.autoencoder, abs=1e-3)
    assert trip.psnr < POOR_PSNR and not trip.poor
    assert canonical.manifest["findings"]["recognition"]["verdict"] == "near chance"
