"""What several corruptions are made of, for a batch of images at once.

Every function works on each image alone and without BLAS or FFT, so that an image's bytes do
not depend on the batch that it is in. Images are float (N, H, W, C), channels last.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Images = NDArray[np.uint8]
"""uint8 RGB, (N, H, W, 3)."""
Rngs = Sequence[np.random.Generator]
"""One stream of random numbers for each image."""

_NO_WEIGHT = 1e-9


def to_float(images: Images) -> Floats:
    """Map uint8 to float64 in [0, 1]."""
    return images / 255.0


def to_bytes(x: Floats) -> Images:
    """Map [0, 1] to uint8; what lies outside saturates, and fractions are cut off.

    Cut off, not rounded, because the official sets are made so.
    """
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def gaussian(x: Floats, sigma: float) -> Floats:
    """Blur within each image, with the border repeated; (N, H, W) or (N, H, W, C)."""
    sigmas = (0, sigma, sigma) + (0,) * (x.ndim - 3)
    blurred: Floats = scipy.ndimage.gaussian_filter(x, sigmas, mode="nearest", truncate=4)
    return blurred


def disc(radius: float, rim_sigma: float) -> Floats:
    """Return the point spread of a lens out of focus: a disc with a softened rim, sum 1."""
    reach, half = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    line = np.arange(-reach, reach + 1)
    hard = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float64)
    taps = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * rim_sigma**2))
    soft: Floats = hard / hard.sum()
    for axis in range(2):
        soft = scipy.ndimage.correlate1d(soft, taps / taps.sum(), axis, mode="mirror")
    return soft


def correlate(x: Floats, kernel: Floats) -> Floats:
    """Correlate with an odd square kernel, the border mirrored without repeating it."""
    taps = np.where(kernel > _NO_WEIGHT, kernel, 0)
    found: Floats = scipy.ndimage.correlate(x, taps[None, :, :, None], mode="mirror")
    return found


def streak(x: Floats, radius: float, sigma: float, degrees: Floats) -> Floats:
    """Blur each image along its own direction, to one side, as ImageMagick's motion blur does.

    Args:
        x: images (N, H, W, C); the border is repeated.
        radius: the streak is 2 ceil(radius) + 1 pixels long.
        sigma: the weight of a pixel at distance i is exp(-i² / 2σ²), up to the sum of 1.
        degrees: direction of each image, (N,); 0 is to the right, 90 is down.
    """
    count, height, width = x.shape[:3]
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    image = np.arange(count)[:, None, None]
    out = np.zeros_like(x)
    for i, weight in zip(steps, weights, strict=True):
        down = np.ceil(i * sine - 0.5).astype(np.int64)[:, None]
        right = np.ceil(i * cosine - 0.5).astype(np.int64)[:, None]
        rows = np.clip(np.arange(height) + down, 0, height - 1)  # (N, H)
        columns = np.clip(np.arange(width) + right, 0, width - 1)  # (N, W)
        out += x.dtype.type(weight) * x[image, rows[:, :, None], columns[:, None, :]]
    return out


def clipped_zoom(x: Floats, factor: float) -> Floats:
    """Enlarge the middle of images (N, H, W, C) bilinearly, to their own size."""
    for axis in (1, 2):
        side = x.shape[axis]
        kept = math.ceil(side / factor)
        enlarged = round(kept * factor)
        first = (side - kept) // 2
        trimmed = (enlarged - side) // 2
        places = first + (np.arange(side) + trimmed) * ((kept - 1) / max(enlarged - 1, 1))
        low = np.floor(places).astype(np.int64)
        high = np.minimum(low + 1, first + kept - 1)
        share = (places - low).astype(x.dtype)
        share = share.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def sample(x: Floats, rows: Floats, columns: Floats, repeats_border: bool) -> Floats:
    """Read images (N, H, W, C) bilinearly at places (N, H', W'), mirrored beyond the border.

    `repeats_border` tells whether the mirror shows the outermost pixel again (SciPy's
    "reflect") or not ("mirror").
    """
    count, height, width = x.shape[:3]
    pixels = x.reshape(count * height * width, -1)
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down = (rows - top).astype(x.dtype)[..., None]
    right = (columns - left).astype(x.dtype)[..., None]
    image = np.arange(count)[:, None, None] * height

    def read(row: NDArray[np.int64], column: NDArray[np.int64]) -> Floats:
        row = _mirrored(row, height, repeats_border)
        column = _mirrored(column, width, repeats_border)
        found: Floats = pixels[(image + row) * width + column]
        return found

    upper = read(top, left) * (1 - right) + read(top, left + 1) * right
    lower = read(top + 1, left) * (1 - right) + read(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def _mirrored(places: NDArray[np.int64], side: int, repeats_border: bool) -> NDArray[np.int64]:
    period = 2 * side if repeats_border else 2 * side - 2
    folded = places % period
    return np.where(folded < side, folded, period - folded - int(repeats_border))


def plasma(rngs: Rngs, height: int, width: int, decay: float) -> Floats:
    """Return a cloud of each stream, (N, H, W) in [0, 1], by the diamond-square algorithm.

    Midpoints are the mean of their four neighbours plus a uniform offset that is divided by
    `decay`² from each scale to the next finer one. The cloud is cut from a square whose side
    is a power of two, and which wraps around.
    """
    side = 2 ** math.ceil(math.log2(max(height, width)))
    draws = np.stack([rng.uniform(-1, 1, side * side) for rng in rngs])
    cloud = np.zeros((len(rngs), side, side))
    used = 0

    def displaced(total: Floats) -> Floats:
        nonlocal used
        size = total[0].size
        offset = draws[:, used : used + size].reshape(total.shape)
        used += size
        return total / 4 + amplitude * offset

    step, amplitude = side, 100.0**2
    while step >= 2:
        half = step // 2
        corners = cloud[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        cloud[:, half::step, half::step] = displaced(pairs + np.roll(pairs, -1, axis=2))
        centres = cloud[:, half::step, half::step]
        beside = corners + np.roll(corners, -1, axis=2)
        cloud[:, ::step, half::step] = displaced(centres + np.roll(centres, 1, axis=1) + beside)
        above = corners + np.roll(corners, -1, axis=1)
        cloud[:, half::step, ::step] = displaced(centres + np.roll(centres, 1, axis=2) + above)
        step, amplitude = half, amplitude / decay**2
    cloud -= cloud.min(axis=(1, 2), keepdims=True)
    cloud /= cloud.max(axis=(1, 2), keepdims=True)
    return cloud[:, :height, :width]
