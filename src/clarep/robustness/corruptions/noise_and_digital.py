"""Corruptions by noise, and of light, colour, shape and coding."""

import io

import numpy as np
import scipy.ndimage
from PIL import Image
from skimage.color import hsv2rgb, rgb2hsv

from clarep.robustness.corruptions.constants import REFERENCE_SIDES, Setting, size_class
from clarep.robustness.corruptions.filters import Floats, Images, Rngs, sample, to_bytes, to_float


def gaussian_noise(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Low light: normal noise of one strength."""
    (deviation,) = setting
    return to_bytes(to_float(images) + deviation * _normal(images, rngs))


def shot_noise(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Few photons: each value is Poisson."""
    (photons,) = setting
    counts = [rng.poisson(x * photons) for x, rng in zip(to_float(images), rngs, strict=True)]
    return to_bytes(np.stack(counts) / photons)


def impulse_noise(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Salt and pepper: a share of the values turns 0 or 255, either as likely."""
    (share,) = setting
    draws = np.stack([rng.random(images.shape[1:]) for rng in rngs])
    salted = np.where(draws < share, np.uint8(255), images)
    return np.where(draws < share / 2, np.uint8(0), salted)


def speckle_noise(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Noise that grows with the value."""
    (deviation,) = setting
    x = to_float(images)
    return to_bytes(x + x * deviation * _normal(images, rngs))


def brightness(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """More light: the value of HSV is raised."""
    (added,) = setting
    hsv = rgb2hsv(to_float(images))
    hsv[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
    return to_bytes(hsv2rgb(hsv))


def saturate(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Paler or gaudier colours: the saturation of HSV is scaled."""
    factor, added = setting
    hsv = rgb2hsv(to_float(images))
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + added, 0, 1)
    return to_bytes(hsv2rgb(hsv))


def contrast(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Towards the mean of each channel."""
    (kept,) = setting
    # sums of whole numbers are exact in any order, so no batch changes them
    total = images.sum(axis=(1, 2), keepdims=True, dtype=np.int64)
    mean = total / (255 * images.shape[1] * images.shape[2])
    return to_bytes((to_float(images) - mean) * kept + mean)


def elastic_transform(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Three corners are moved, then every pixel by a smooth random field."""
    height, width = images.shape[1:3]
    scale = max(height, width) / REFERENCE_SIDES[size_class(height, width)]
    distance, sigma, corner_move = (scale * length for length in setting)
    moves = np.stack([rng.uniform(-corner_move, corner_move, (3, 2)) for rng in rngs])
    fields = np.stack([rng.uniform(-1, 1, (2, height, width)) for rng in rngs])
    rows, columns = _affine_places(moves, height, width)
    x = to_float(images).astype(np.float32)
    moved = sample(x, rows, columns, repeats_border=False)
    smooth = scipy.ndimage.gaussian_filter(fields, (0, 0, sigma, sigma), mode="reflect", truncate=3)
    right, down = distance * smooth[:, 0], distance * smooth[:, 1]
    return to_bytes(
        sample(
            moved, np.arange(height)[:, None] + down, np.arange(width) + right, repeats_border=True
        )
    )


def pixelate(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Shrunk and enlarged again, both with Pillow's BOX filter."""
    (share,) = setting
    height, width = images.shape[1:3]
    small = (int(width * share), int(height * share))

    def pixelated(image: Image.Image) -> Image.Image:
        box = Image.Resampling.BOX
        return image.resize(small, box).resize((width, height), box)

    return np.stack([np.asarray(pixelated(Image.fromarray(x))) for x in images])


def jpeg_compression(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Saved as JPEG by Pillow."""
    quality = int(setting[0])

    def compressed(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return np.stack([np.asarray(compressed(Image.fromarray(x))) for x in images])


def _normal(images: Images, rngs: Rngs) -> Floats:
    return np.stack([rng.standard_normal(images.shape[1:]) for rng in rngs])


def _affine_places(moves: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """Return the row and column (N, H, W) that each pixel is read from.

    Three points, a third of the shorter side around the centre, go to where `moves` (N, 3, 2)
    in x and y takes them; the affine map that does so is undone at each pixel.
    """
    centre = np.array([width // 2, height // 2], np.float64)
    third = min(height, width) // 3
    before = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + moves  # (N, 3, 2)
    ones = np.ones((*after.shape[:2], 1))
    targets = np.broadcast_to(before, after.shape)
    inverse = np.linalg.solve(np.concatenate([after, ones], axis=2), targets)  # (N, 3, 2)
    of_x, of_y, shift = inverse[:, :, None, None].transpose(1, 0, 2, 3, 4)  # each (N, 1, 1, 2)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    places = of_x * x[..., None] + of_y * y[..., None] + shift  # (N, H, W, 2)
    return places[..., 1], places[..., 0]
