"""Corruptions by weather: snow, frost, fog, spatter."""

import math

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from clarep.robustness.corruptions.constants import Setting
from clarep.robustness.corruptions.filters import (
    Floats,
    Images,
    Rngs,
    clipped_zoom,
    gaussian,
    plasma,
    streak,
    to_bytes,
    to_float,
)

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_PALE_TURQUOISE = np.array([175, 238, 238]) / 255
_BLUE_WHITE = np.array([0.88, 0.95, 1.0])
_MUD = np.array([63, 42, 20]) / 255
_FAR = 20  # pixels; water is as deep from here on


def snow(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Falling flakes in two opposite directions, before an image that is whitened."""
    mean, deviation, zoom, threshold, radius, sigma, kept = setting
    flakes = _normal_layer(images, rngs, mean, deviation)
    degrees = np.array([rng.uniform(-135, -45) for rng in rngs])
    layer = clipped_zoom(flakes[..., None], zoom)
    layer = to_bytes(np.where(layer < threshold, 0, layer)).astype(np.float32)
    falling = np.rint(streak(layer, radius, sigma, degrees)) / 255  # (N, H, W, 1)
    x = to_float(images)
    grey = _grey(x)[..., None]
    whitened = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
    return to_bytes(whitened + falling + np.rot90(falling, 2, axes=(1, 2)))


def frost(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """A frozen window: the image mixed with `frost_texture`."""
    kept, strength = setting
    height, width = images.shape[1:3]
    return to_bytes(kept * to_float(images) + strength * frost_texture(rngs, height, width))


def fog(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """A cloud before the image."""
    strength, decay = setting
    x = to_float(images)
    cloud = plasma(rngs, images.shape[1], images.shape[2], decay)[..., None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    # an image of zeros stays black
    return to_bytes((x + strength * cloud) * brightest / (brightest + strength))


def spatter(images: Images, setting: Setting, rngs: Rngs) -> Images:
    """Drops of water or of mud on the lens."""
    mean, deviation, smoothing, threshold, strength, is_mud = setting
    x = to_float(images)
    liquid = gaussian(_normal_layer(images, rngs, mean, deviation), smoothing)
    if is_mud:
        cover = gaussian((liquid > threshold).astype(np.float64), strength)
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return to_bytes(x * (1 - cover) + _MUD * cover)
    drops = (np.where(liquid < threshold, 0, np.clip(liquid, 0, 1)) * 255).astype(np.uint8)
    shine = np.stack([_shine(of_image) for of_image in drops])
    return to_bytes(x + strength * shine[..., None] * _PALE_TURQUOISE)


def frost_texture(rngs: Rngs, height: int, width: int) -> Floats:
    """Return frost of our own making, (N, H, W, 3) in [0, 1]: see docs/corruptions.md.

    The official sets cut frost from six photographs. Here, needles of ice (sparse seeds drawn
    out in three directions, 60 degrees apart) grow where a cloud is dense, over a film of ice
    that another cloud makes uneven, tinted blue-white.
    """
    dense, film = plasma(rngs, height, width, 2.0), plasma(rngs, height, width, 1.6)
    turns = np.array([rng.uniform(0, 360) for rng in rngs])
    reach = math.ceil(max(height, width) / 8)
    pad = 2 * reach  # a needle is as long; seeds at a border would be repeated beyond it
    needles: Floats = np.zeros((len(rngs), height, width))
    for spoke in (0, 60, 120):
        draws = np.stack([rng.random((height + 2 * pad, width + 2 * pad)) for rng in rngs])
        seeds = (draws < 1 / (3 * reach)).astype(np.float64)
        grown = streak(seeds[..., None], float(reach), float(reach), turns + spoke)
        needles = np.maximum(needles, grown[:, pad : pad + height, pad : pad + width, 0])
    needles = gaussian(needles, max(height, width) / 280)
    needles = needles / (needles.max(axis=(1, 2), keepdims=True) + 1e-9)  # without a seed: 0
    ice = 0.15 + 0.7 * film * np.sqrt(dense) + 1.1 * needles * dense
    tinted: Floats = np.clip(ice[..., None] * _BLUE_WHITE, 0, 1)
    return tinted


def _normal_layer(images: Images, rngs: Rngs, mean: float, deviation: float) -> Floats:
    return np.stack([rng.normal(mean, deviation, images.shape[1:3]) for rng in rngs])


def _grey(x: Floats) -> Floats:
    """Return the luma of RGB, (N, H, W); no matrix product, see `filters`."""
    red, green, blue = _LUMA
    grey: Floats = red * x[..., 0] + green * x[..., 1] + blue * x[..., 2]
    return grey


def _shine(drops: NDArray[np.uint8]) -> Floats:
    """Return how much light drops (H, W) add, in [0, 1]: relief lit from the upper left."""
    depth = scipy.ndimage.uniform_filter(_rim_distance(drops > 0), 3, mode="mirror")
    relief = _equalised(depth.astype(np.uint8)).astype(np.float64)
    lamp = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = np.clip(scipy.ndimage.correlate(relief, lamp, mode="mirror"), 0, 255)
    shine: Floats = drops * np.rint(scipy.ndimage.uniform_filter(lit, 3, mode="mirror"))
    brightest = shine.max()
    return shine / brightest if brightest else shine


def _rim_distance(is_wet: NDArray[np.bool_]) -> Floats:
    """Return each pixel's distance to the rim of a drop, at most `_FAR`."""
    inside = scipy.ndimage.binary_erosion(is_wet, np.ones((3, 3)), border_value=1)
    rim = is_wet & ~inside
    if not rim.any():
        return np.full(is_wet.shape, float(_FAR))
    distance: Floats = scipy.ndimage.distance_transform_edt(~rim)
    return np.minimum(distance, _FAR)


def _equalised(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Equalise a histogram as OpenCV does: the darkest value becomes 0."""
    counts = np.bincount(grey.ravel(), minlength=256)
    darkest = int(np.flatnonzero(counts)[0])
    others = grey.size - counts[darkest]
    if not others:
        return grey
    counts[darkest] = 0
    table = np.rint(np.cumsum(counts) * (255 / others)).astype(np.uint8)
    equalised: NDArray[np.uint8] = table[grey]
    return equalised
