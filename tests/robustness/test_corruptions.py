"""Every corruption against a naive version of one image at a time, and what holds for all."""

import colorsys
import io
import math
import zlib
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import skimage
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from clarep.errors import UserError
from clarep.robustness.corruptions.by_name import COMMON, CORRUPTIONS, EXTRA, corrupt
from clarep.robustness.corruptions.constants import setting_of
from clarep.robustness.corruptions.filters import (
    clipped_zoom,
    correlate,
    disc,
    plasma,
    sample,
    streak,
)
from clarep.robustness.corruptions.weather import _equalised, _rim_distance, frost_texture

Array = NDArray[Any]
UNRANDOM = {
    "defocus_blur",
    "zoom_blur",
    "gaussian_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "saturate",
}


def photographs(side: int) -> Tensor:
    pictures = [
        skimage.data.astronaut()[:300, 80:380],
        skimage.data.chelsea()[:300, 80:380],
        skimage.data.coffee()[:400, 100:500],
        load_sample_image("china.jpg")[:427, 100:527],
        load_sample_image("flower.jpg")[:427, 100:527],
    ]
    small = [Image.fromarray(p).resize((side, side), Image.Resampling.BOX) for p in pictures]
    return torch.from_numpy(np.stack([np.asarray(p) for p in small])).permute(0, 3, 1, 2)


PHOTOS = photographs(32)
PIXELS = PHOTOS.permute(0, 2, 3, 1).numpy()


def stream(name: str, severity: int, index: int, seed: int = 3) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), severity, index])


def corrupted(name: str, severity: int) -> Array:
    return corrupt(PHOTOS, name, severity, seed=3).permute(0, 2, 3, 1).numpy()


def cut(x: Array) -> Array:
    return np.uint8(np.clip(x, 0, 1) * 255)


def assert_cut(found: Array, expected: Array, tolerance: float = 1e-6) -> None:
    """The expected floats in [0, 1] as bytes, whose fraction is cut off."""
    assert found.dtype == np.uint8
    assert (found >= cut(expected - tolerance)).all()
    assert (found <= cut(expected + tolerance)).all()


def assert_near(found: Array, expected: Array) -> None:
    """Equal but for a fraction that float rounding put on the other side of a whole number."""
    assert found.dtype == expected.dtype == np.uint8
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002


# what holds for all


def test_the_fifteen_and_the_four():
    assert len(COMMON) == 15
    assert EXTRA == ("speckle_noise", "gaussian_blur", "spatter", "saturate")


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_bytes_depend_on_the_seed_and_the_place_but_not_on_the_batch(name: str):
    for severity in (1, 5):
        whole = corrupt(PHOTOS, name, severity, seed=7, first_index=10)
        assert whole.shape == PHOTOS.shape
        assert whole.dtype == torch.uint8
        assert not torch.equal(whole, PHOTOS)
        parts = [
            corrupt(PHOTOS[:1], name, severity, seed=7, first_index=10),
            corrupt(PHOTOS[1:4], name, severity, seed=7, first_index=11),
            corrupt(PHOTOS[4:], name, severity, seed=7, first_index=14),
        ]
        assert torch.equal(torch.cat(parts), whole)
        other_seed = corrupt(PHOTOS, name, severity, seed=8, first_index=10)
        other_place = corrupt(PHOTOS, name, severity, seed=7, first_index=11)
        assert torch.equal(other_seed, whole) == (name in UNRANDOM)
        assert torch.equal(other_place, whole) == (name in UNRANDOM)


def test_images_that_are_cut_into_parts_inside_are_the_same(monkeypatch: pytest.MonkeyPatch):
    whole = corrupt(PHOTOS, "elastic_transform", 3, seed=0)
    monkeypatch.setattr("clarep.robustness.corruptions.by_name._PIXELS_AT_ONCE", 2 * 32 * 32)
    assert torch.equal(corrupt(PHOTOS, "elastic_transform", 3, seed=0), whole)


def test_two_images_of_a_batch_do_not_share_their_noise():
    grey = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    first, second = corrupt(grey, "gaussian_noise", 5, seed=0).float() - 128
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.1


@pytest.mark.parametrize("side", [32, 224])
def test_severity_is_a_larger_distance_from_the_clean_image(side: int):
    """Not so by the official constants: glass, frost, elastic, spatter, saturate."""
    rising = set(CORRUPTIONS) - {
        "glass_blur",
        "frost",
        "elastic_transform",
        "spatter",
        "saturate",
    }
    if side == 224:
        rising -= {"fog"}  # two clouds differ more than the last severities do
    photos = PHOTOS if side == 32 else photographs(side)[:2]
    for name in sorted(rising):
        distances = [
            (corrupt(photos, name, s, seed=0).float() - photos.float()).square().mean().item()
            for s in (1, 2, 3, 4, 5)
        ]
        assert distances == sorted(distances), name
        assert distances[0] > 0, name


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("level", [0, 255])
def test_images_of_one_colour_stay_images(name: str, level: int):
    flat = torch.full((2, 3, 32, 32), level, dtype=torch.uint8)
    assert corrupt(flat, name, 5, seed=0).shape == flat.shape


def test_images_need_not_be_square():
    wide = PHOTOS[:2, :, :24]
    for name in CORRUPTIONS:
        assert corrupt(wide, name, 5, seed=0).shape == wide.shape, name


def test_large_images_get_the_constants_of_imagenet_c():
    grey = torch.full((1, 3, 65, 65), 128, dtype=torch.uint8)
    deviation = corrupt(grey, "gaussian_noise", 1, seed=0).float().std().item() / 255
    assert deviation == pytest.approx(0.08, rel=0.05)
    small = corrupt(grey[..., :64, :64], "gaussian_noise", 1, seed=0).float().std().item() / 255
    assert small == pytest.approx(0.04, rel=0.05)


def test_faults_are_told_in_one_sentence():
    with pytest.raises(UserError, match=r"unknown corruption 'fogg': did you mean fog"):
        corrupt(PHOTOS, "fogg", 1, seed=0)
    with pytest.raises(UserError, match=r"severity 6 is outside 1 to 5"):
        corrupt(PHOTOS, "fog", 6, seed=0)
    with pytest.raises(UserError, match=r"seed -1"):
        corrupt(PHOTOS, "fog", 1, seed=-1)
    with pytest.raises(UserError, match=r"first_index=-1"):
        corrupt(PHOTOS, "fog", 1, seed=0, first_index=-1)
    with pytest.raises(UserError, match=r"8x8 are too small"):
        corrupt(PHOTOS[..., :8, :8], "fog", 1, seed=0)


# constants


@pytest.mark.parametrize(
    ("name", "severity", "small", "large"),
    [
        ("gaussian_noise", 4, (0.09,), (0.26,)),
        ("shot_noise", 1, (500,), (60,)),
        ("glass_blur", 5, (0.4, 1, 2), (1.5, 4, 2)),
        ("motion_blur", 4, (8, 2), (15, 12)),
        ("fog", 5, (1.5, 1.75), (3, 1.4)),
        ("saturate", 5, (2.5, 0.2), (20, 0.2)),
        ("jpeg_compression", 2, (65,), (18,)),
        ("snow", 3, (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), (0.55, 0.3, 4, 0.9, 12, 8, 0.7)),
        ("elastic_transform", 2, (1.6, 6.4, 2.24), (488, 19.52, 48.8)),
    ],
)
def test_constants_are_the_official_ones(
    name: str, severity: int, small: tuple[float, ...], large: tuple[float, ...]
):
    assert setting_of(name, severity, 32, 32) == pytest.approx(small)
    assert setting_of(name, severity, 64, 64) == pytest.approx(small)
    assert setting_of(name, severity, 224, 224) == pytest.approx(large)
    assert setting_of(name, severity, 32, 65) == pytest.approx(large)


# noise


def test_noise_is_that_of_the_image_s_own_stream():
    for name in ("gaussian_noise", "speckle_noise", "shot_noise"):
        (c,) = setting_of(name, 4, 32, 32)
        for i, found in enumerate(corrupted(name, 4)):
            x, rng = PIXELS[i] / 255, stream(name, 4, i)
            if name == "shot_noise":
                expected = rng.poisson(x * c) / c
            else:
                scale = c * x if name == "speckle_noise" else c
                expected = x + rng.normal(size=x.shape) * scale
            assert_cut(found, expected)


def test_impulses_are_as_many_as_they_should_be_and_half_of_them_white():
    grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    found = corrupt(grey, "impulse_noise", 5, seed=0)
    assert set(found.unique().tolist()) == {0, 128, 255}
    assert (found == 0).double().mean().item() == pytest.approx(0.035, abs=0.002)
    assert (found == 255).double().mean().item() == pytest.approx(0.035, abs=0.002)


# blur


def naive_disc(radius: float, rim_sigma: float) -> Array:
    reach, half = (8, 1) if radius <= 8 else (int(radius), 2)
    hard = np.array(
        [
            [float(x * x + y * y <= radius * radius) for x in range(-reach, reach + 1)]
            for y in range(-reach, reach + 1)
        ]
    )
    rim = np.array(
        [
            [math.exp(-(x * x + y * y) / (2 * rim_sigma**2)) for x in range(-half, half + 1)]
            for y in range(-half, half + 1)
        ]
    )
    return scipy.ndimage.convolve(hard / hard.sum(), rim / rim.sum(), mode="mirror")


@pytest.mark.parametrize("setting", [(0.3, 0.4), (1.5, 0.1), (4.0, 0.5), (8.0, 0.5), (10.0, 0.5)])
def test_the_disc_is_the_naive_one(setting: tuple[float, float]):
    np.testing.assert_allclose(disc(*setting), naive_disc(*setting), atol=1e-12)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_defocus_is_scipy_s_convolution_of_each_channel(severity: int):
    kernel = naive_disc(*setting_of("defocus_blur", severity, 32, 32))
    found = corrupted("defocus_blur", severity)
    for i, x in enumerate(PIXELS / 255):
        channels = [scipy.ndimage.convolve(x[..., c], kernel, mode="mirror") for c in range(3)]
        assert_cut(found[i], np.stack(channels, -1))


def test_correlation_of_a_lopsided_kernel_is_scipy_s():
    x, kernel = np.random.default_rng(0).random((2, 9, 12, 3)), np.zeros((5, 5))
    kernel[0, 3], kernel[2, 2], kernel[4, 1] = 0.2, 0.3, 0.5
    expected = scipy.ndimage.correlate(x, kernel[None, :, :, None], mode="mirror")
    np.testing.assert_allclose(correlate(x, kernel), expected, atol=1e-12)


def test_gaussian_blur_is_skimage_s():
    (sigma,) = setting_of("gaussian_blur", 5, 32, 32)
    for found, x in zip(corrupted("gaussian_blur", 5), PIXELS / 255, strict=True):
        assert_cut(found, skimage.filters.gaussian(x, sigma, channel_axis=-1))


@pytest.mark.parametrize("severity", [2, 5])
def test_glass_blur_is_the_official_loop_of_one_image(severity: int):
    sigma, reach, rounds = setting_of("glass_blur", severity, 32, 32)
    reach, rounds = int(reach), int(rounds)
    found = corrupted("glass_blur", severity)
    for i in range(len(PIXELS)):
        x = cut(skimage.filters.gaussian(PIXELS[i] / 255, sigma, channel_axis=-1))
        side = 32 - 2 * reach
        moves = stream("glass_blur", severity, i).integers(-reach, reach, (rounds, side, side, 2))
        for of_round in moves:
            for a, h in enumerate(range(32 - reach, reach, -1)):
                for b, w in enumerate(range(32 - reach, reach, -1)):
                    dx, dy = of_round[a, b]
                    x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]  # views: a copy
        assert_near(found[i], cut(skimage.filters.gaussian(x / 255, sigma, channel_axis=-1)))


def naive_streak(x: Array, radius: float, sigma: float, degrees: float) -> Array:
    steps = range(2 * math.ceil(radius) + 1)
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in steps]
    angle = math.radians(degrees)
    out = np.zeros(x.shape)
    height, width = x.shape[:2]
    for row in range(height):
        for column in range(width):
            for i, weight in zip(steps, weights, strict=True):
                r = min(max(row + math.ceil(i * math.sin(angle) - 0.5), 0), height - 1)
                c = min(max(column + math.ceil(i * math.cos(angle) - 0.5), 0), width - 1)
                out[row, column] += weight / sum(weights) * x[r, c]
    return out


def test_a_streak_is_the_naive_one_of_each_image():
    x = np.random.default_rng(0).random((3, 12, 10, 3))
    degrees = np.array([0.0, 37.0, -100.0])
    found = streak(x, 4.0, 2.5, degrees)
    for i in range(3):
        np.testing.assert_allclose(found[i], naive_streak(x[i], 4, 2.5, degrees[i]), atol=1e-12)


def test_motion_blur_goes_within_45_degrees_of_the_horizontal():
    radius, sigma = setting_of("motion_blur", 5, 32, 32)
    found = corrupted("motion_blur", 5)
    for i in (0, 3):
        degrees = stream("motion_blur", 5, i).uniform(-45, 45)
        expected = np.rint(naive_streak(PIXELS[i].astype(float), radius, sigma, degrees))
        assert_near(found[i], expected.astype(np.uint8))


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.13, 1.75, 2.25, 3.0])
@pytest.mark.parametrize("side", [32, 35])
def test_clipped_zoom_is_scipy_s(factor: float, side: int):
    x = np.random.default_rng(0).random((2, side, side, 3))
    kept = math.ceil(side / factor)
    first = (side - kept) // 2
    for found, image in zip(clipped_zoom(x, factor), x, strict=True):
        middle = image[first : first + kept, first : first + kept]
        large = scipy.ndimage.zoom(middle, (factor, factor, 1), order=1)
        trim = (len(large) - side) // 2
        expected = large[trim : trim + side, trim : trim + side]
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_zoom_blur_is_the_mean_over_zooms_and_the_image():
    factors = setting_of("zoom_blur", 3, 32, 32)
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(1.15)
    x = (PIXELS / 255).astype(np.float32)
    zoomed = [clipped_zoom(x, factor).astype(float) for factor in factors]
    assert_cut(corrupted("zoom_blur", 3), np.mean([x, *zoomed], axis=0), 1e-5)


# weather


def naive_plasma(rng: np.random.Generator, side: int, decay: float) -> Array:
    """Diamond-square, one point at a time; the map wraps around."""
    draws = iter(rng.uniform(-1, 1, side * side))
    cloud = np.zeros((side, side))
    step, amplitude = side, 100.0**2

    def mean(points: list[tuple[int, int]]) -> float:
        return sum(cloud[r % side, c % side] for r, c in points) / 4

    while step >= 2:
        half = step // 2
        for r in range(half, side, step):
            for c in range(half, side, step):
                around = [(r + a, c + b) for a in (-half, half) for b in (-half, half)]
                cloud[r, c] = mean(around) + amplitude * next(draws)
        for first_row, first_column in ((0, half), (half, 0)):
            for r in range(first_row, side, step):
                for c in range(first_column, side, step):
                    around = [(r - half, c), (r + half, c), (r, c - half), (r, c + half)]
                    cloud[r, c] = mean(around) + amplitude * next(draws)
        step, amplitude = half, amplitude / decay**2
    return (cloud - cloud.min()) / (cloud.max() - cloud.min())


def test_plasma_is_diamond_square():
    clouds = plasma([np.random.default_rng(i) for i in range(2)], 16, 13, 1.75)
    for i in range(2):
        expected = naive_plasma(np.random.default_rng(i), 16, 1.75)[:, :13]
        np.testing.assert_allclose(clouds[i], expected, atol=1e-12)


def test_fog_is_a_cloud_before_the_image():
    strength, decay = setting_of("fog", 4, 32, 32)
    for i, found in enumerate(corrupted("fog", 4)):
        x = PIXELS[i] / 255
        cloud = naive_plasma(stream("fog", 4, i), 32, decay)[..., None]
        assert_cut(found, (x + strength * cloud) * x.max() / (x.max() + strength))


def test_snow_is_the_naive_one():
    mean, deviation, zoom, threshold, radius, sigma, kept = setting_of("snow", 3, 32, 32)
    found = corrupted("snow", 3)
    for i in (0, 2):
        rng = stream("snow", 3, i)
        flakes = rng.normal(mean, deviation, (32, 32))
        layer = clipped_zoom(flakes[None, ..., None], zoom)[0]
        layer[layer < threshold] = 0
        fall = np.rint(naive_streak(cut(layer), radius, sigma, rng.uniform(-135, -45))) / 255
        x = PIXELS[i] / 255
        grey = (x @ [0.299, 0.587, 0.114])[..., None]
        white = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
        assert_cut(found[i], white + fall + fall[::-1, ::-1])


def test_frost_mixes_the_image_with_the_texture():
    kept, strength = setting_of("frost", 5, 32, 32)
    texture = frost_texture([stream("frost", 5, i) for i in range(5)], 32, 32)
    assert_cut(corrupted("frost", 5), kept * PIXELS / 255 + strength * texture)


def test_frost_is_bright_uneven_bluish_and_each_image_s_own():
    texture = frost_texture([np.random.default_rng(i) for i in range(30)], 32, 32)
    assert texture.min() >= 0
    assert texture.max() <= 1
    assert 0.4 < texture.mean() < 0.65
    assert texture.std(axis=(1, 2)).min() > 0.05
    assert (texture[..., 2] >= texture[..., 0]).all()
    assert np.abs(texture[0] - texture[1]).mean() > 0.05


def test_water_brightens_and_mud_covers_with_its_colour():
    for severity, is_mud in ((3, False), (5, True)):
        grey = torch.full((20, 3, 32, 32), 120, dtype=torch.uint8)
        found = corrupt(grey, "spatter", severity, seed=0).int()
        hit = (found != 120).any(1)
        assert 0.002 < hit.double().mean() < 0.6
        if is_mud:
            assert (found <= 120).all()
            darkest = found.amin((0, 2, 3)).tolist()
            assert darkest == pytest.approx([63, 42, 20], abs=8)
        else:
            assert (found >= 120).all()
            assert found.amax((0, 2, 3)).tolist() == pytest.approx(
                [120 + 87, 120 + 119, 120 + 119], abs=1
            )


def test_the_distance_to_the_rim_is_the_shortest():
    is_wet = np.zeros((24, 24), bool)
    is_wet[3:9, 4:12] = True
    is_wet[5:7, 6:9] = False
    rim = [
        (r, c)
        for r in range(24)
        for c in range(24)
        if is_wet[r, c] and not is_wet[r - 1 : r + 2, c - 1 : c + 2].all()
    ]
    expected = [
        [min(20, *(math.hypot(r - a, c - b) for a, b in rim)) for c in range(24)] for r in range(24)
    ]
    np.testing.assert_allclose(_rim_distance(is_wet), expected)
    assert (_rim_distance(np.zeros((5, 5), bool)) == 20).all()


def test_equalising_spreads_the_cumulative_histogram():
    grey = np.random.default_rng(0).integers(40, 60, (12, 12)).astype(np.uint8)
    values = grey.ravel().tolist()
    others = [v for v in values if v != min(values)]
    expected = [round(255 * sum(o <= v for o in others) / len(others)) for v in values]
    assert _equalised(grey).ravel().tolist() == pytest.approx(expected, abs=0)
    assert (_equalised(np.full((4, 4), 7, np.uint8)) == 7).all()


# digital


@pytest.mark.parametrize("name", ["brightness", "saturate"])
@pytest.mark.parametrize("severity", [1, 5])
def test_hsv_is_python_s_own(name: str, severity: int):
    setting = setting_of(name, severity, 32, 32)
    found = corrupted(name, severity)[0]
    expected = np.empty((32, 32, 3))
    for row in range(32):
        for column in range(32):
            hue, saturation, value = colorsys.rgb_to_hsv(*(PIXELS[0, row, column] / 255))
            if name == "brightness":
                value = min(value + setting[0], 1)
            else:
                saturation = min(saturation * setting[0] + setting[1], 1)
            expected[row, column] = colorsys.hsv_to_rgb(hue, saturation, value)
    assert_cut(found, expected)


def test_contrast_shrinks_towards_each_channel_s_mean():
    (kept,) = setting_of("contrast", 5, 32, 32)
    for found, x in zip(corrupted("contrast", 5), PIXELS / 255, strict=True):
        mean = x.mean((0, 1))
        assert_cut(found, (x - mean) * kept + mean)


def test_sampling_is_scipy_s_for_both_borders():
    rng = np.random.default_rng(0)
    x = rng.random((2, 9, 7, 3))
    rows, columns = rng.uniform(-20, 30, (2, 5, 6)), rng.uniform(-20, 30, (2, 5, 6))
    for repeats_border, mode in ((True, "reflect"), (False, "mirror")):
        found = sample(x, rows, columns, repeats_border)
        for i in range(2):
            for c in range(3):
                expected = scipy.ndimage.map_coordinates(
                    x[i, ..., c], [rows[i], columns[i]], order=1, mode=mode
                )
                np.testing.assert_allclose(found[i, ..., c], expected, atol=1e-9)


@pytest.mark.parametrize("severity", [1, 2, 5])
def test_elastic_is_an_affine_map_and_a_smooth_field(severity: int):
    distance, sigma, corner_move = setting_of("elastic_transform", severity, 32, 32)
    found = corrupted("elastic_transform", severity)
    for i, pixels in enumerate(PIXELS):
        rng = stream("elastic_transform", severity, i)
        before = np.array([[26, 26], [26, 6], [6, 6]], float)  # x, y: a third around 16, 16
        after = before + rng.uniform(-corner_move, corner_move, (3, 2))
        fields = rng.uniform(-1, 1, (2, 32, 32))
        affine = skimage.transform.AffineTransform(
            np.vstack([np.linalg.solve(np.c_[after, np.ones(3)], before).T, [0, 0, 1]])
        )
        moved = skimage.transform.warp(pixels / 255, affine, order=1, mode="reflect")
        right, down = (
            distance * skimage.filters.gaussian(field, sigma, mode="reflect", truncate=3)
            for field in fields
        )
        places = np.mgrid[:32, :32] + np.stack([down, right])
        channels = [
            scipy.ndimage.map_coordinates(moved[..., c], places, order=1, mode="reflect")
            for c in range(3)
        ]
        difference = np.abs(found[i].astype(int) - cut(np.stack(channels, -1)).astype(int))
        assert (difference > 1).mean() < 0.005  # skimage's border of warp differs by a pixel
        assert np.median(difference) == 0


def test_elastic_scales_with_the_side():
    """At 64 pixels everything is moved twice as far as at 32."""
    flat = torch.arange(64, dtype=torch.uint8).mul(4).expand(1, 3, 64, 64).contiguous()
    shift = (corrupt(flat, "elastic_transform", 1, seed=0).float() - flat.float()) / 4
    half = torch.arange(32, dtype=torch.uint8).mul(4).expand(1, 3, 32, 32).contiguous()
    half_shift = (corrupt(half, "elastic_transform", 1, seed=0).float() - half.float()) / 4
    inner = shift[0, 0, 16:48:2, 16:48:2], half_shift[0, 0, 8:24, 8:24]
    assert inner[1].abs().max() > 0.5
    np.testing.assert_allclose(inner[0], 2 * inner[1], atol=0.8)


@pytest.mark.parametrize("severity", [1, 5])
def test_jpeg_and_pixelate_are_pillow_s(severity: int):
    (quality,) = setting_of("jpeg_compression", severity, 32, 32)
    (share,) = setting_of("pixelate", severity, 32, 32)
    small = (int(32 * share), int(32 * share))
    for i, pixels in enumerate(PIXELS):
        image = Image.fromarray(pixels)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(quality))
        with Image.open(stream) as opened:
            assert (corrupted("jpeg_compression", severity)[i] == np.asarray(opened)).all()
        box = Image.Resampling.BOX
        expected = np.asarray(image.resize(small, box).resize((32, 32), box))
        assert (corrupted("pixelate", severity)[i] == expected).all()
