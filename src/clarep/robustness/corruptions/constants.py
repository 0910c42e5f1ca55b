"""How severe the five severities are, for small and for large images, side by side.

The figures are those of Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations" (arXiv 1903.12261). Lengths are in pixels, grey values and
noise are shares of 255.
"""

import numpy as np

from clarep.errors import UserError, unknown_name

SMALL_SIDE = 64
"""Images whose longer side is at most this, in pixels, count as small."""
REFERENCE_SIDES = {"small": 32, "large": 224}
"""Sides that the two sets of figures were made for, in pixels."""

Setting = tuple[int | float, ...]
_Figures = tuple[int | float | Setting, ...]  # of the five severities


def _zooms(*stops_and_steps: tuple[float, float]) -> _Figures:
    """Zoom factors from 1 up to a stop (left out), in steps."""
    return tuple(tuple(np.arange(1, stop, step).tolist()) for stop, step in stops_and_steps)


def _sides(side: int, *shares: Setting) -> _Figures:
    """Lengths in pixels that were given as shares of a side."""
    return tuple(tuple(side * share for share in setting) for setting in shares)


def _side_by_side(*rows: tuple[Setting, Setting]) -> tuple[_Figures, _Figures]:
    """Figures for small and for large images, a severity a row."""
    return tuple(small for small, _ in rows), tuple(large for _, large in rows)


CONSTANTS: dict[str, tuple[_Figures, _Figures]] = {
    # standard deviation
    "gaussian_noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    # photons that white stands for
    "shot_noise": ((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    # share of values that turn 0 or 255
    "impulse_noise": ((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    # radius of the disc, sigma of its softened rim
    "defocus_blur": (
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    # sigma, farthest move of a pixel, rounds
    "glass_blur": (
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    # radius, sigma
    "motion_blur": (
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    # every zoom factor that is averaged
    "zoom_blur": (
        _zooms((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        _zooms((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    # mean and deviation of the flakes, their zoom, threshold, radius and sigma of their fall,
    # what is left of the image
    "snow": _side_by_side(
        ((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.3, 3, 0.5, 10, 4, 0.8)),
        ((0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.2, 0.3, 2, 0.5, 12, 4, 0.7)),
        ((0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), (0.55, 0.3, 4, 0.9, 12, 8, 0.7)),
        ((0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65)),
        ((0.3, 0.3, 1.25, 0.65, 14, 12, 0.8), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)),
    ),
    # weight of the image, weight of the frost
    "frost": (
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    # weight of the fog, how fast its detail fades from one scale to the next
    "fog": (
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    # added to the value of HSV
    "brightness": ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    # what is left of the distance from the mean
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    # largest displacement, sigma of its smoothing, largest move of a corner
    "elastic_transform": (
        _sides(
            32,
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ),
        # 244 is ImageNet-C's own slip for 224, kept
        _sides(
            244,
            (2, 0.7, 0.1),
            (2, 0.08, 0.2),
            (0.05, 0.01, 0.02),
            (0.07, 0.01, 0.02),
            (0.12, 0.01, 0.02),
        ),
    ),
    # share of the side that is left
    "pixelate": ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    # quality
    "jpeg_compression": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    # standard deviation, relative to the value
    "speckle_noise": ((0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6)),
    # sigma
    "gaussian_blur": ((0.4, 0.6, 0.7, 0.8, 1), (1, 2, 3, 4, 6)),
    # mean and deviation of the liquid, sigma of its smoothing, threshold, strength (of water)
    # or sigma (of mud), 0 for water and 1 for mud
    "spatter": _side_by_side(
        ((0.62, 0.1, 0.7, 0.7, 0.5, 0), (0.65, 0.3, 4, 0.69, 0.6, 0)),
        ((0.65, 0.1, 0.8, 0.7, 0.5, 0), (0.65, 0.3, 3, 0.68, 0.6, 0)),
        ((0.65, 0.3, 1, 0.69, 0.5, 0), (0.65, 0.3, 2, 0.68, 0.5, 0)),
        ((0.65, 0.1, 0.7, 0.69, 0.6, 1), (0.65, 0.3, 1, 0.65, 1.5, 1)),
        ((0.65, 0.1, 0.5, 0.68, 0.6, 1), (0.67, 0.4, 1, 0.65, 1.5, 1)),
    ),
    # factor of the saturation of HSV, what is added to it
    "saturate": (
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
}
"""Corruption -> figures for severities 1 to 5: CIFAR-10-C's for small images, then ImageNet-C's."""


def size_class(height: int, width: int) -> str:
    """Return which figures apply to images of that size: "small" or "large"."""
    return "small" if max(height, width) <= SMALL_SIDE else "large"


def setting_of(name: str, severity: int, height: int, width: int) -> Setting:
    """Return the setting of a corruption for images of that size.

    Raises UserError for an unknown corruption, or a severity outside 1 to 5.
    """
    if name not in CONSTANTS:
        raise unknown_name("corruption", name, CONSTANTS)
    if not 1 <= severity <= 5:
        raise UserError(f"severity {severity} is outside 1 to 5: give one of these")
    small, large = CONSTANTS[name]
    figures = (small if size_class(height, width) == "small" else large)[severity - 1]
    return tuple(map(float, figures if isinstance(figures, tuple) else (figures,)))
