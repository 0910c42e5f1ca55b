"""A teacher whose classes are Gaussians, so that its denoising errors are known in closed form."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clarep.data.labelled import LabelledImages
from clarep.teachers.teacher import Teacher

SHAPE = (3, 4, 4)
N = 48
SPREAD = 0.1
"""Standard deviation of each class."""
CLASSES = 4


def means_of(classes: int = CLASSES) -> torch.Tensor:
    return torch.rand(classes, *SHAPE, generator=torch.Generator().manual_seed(0)) - 0.5


def gaussian(means: torch.Tensor, **settings) -> Teacher:
    """It counts what it denoises, and how many at once at most."""
    seen: list[int] = []

    def denoise(x, sigma, labels):
        seen.append(len(x))
        mean = means[labels.clamp_max(len(means) - 1)]
        return mean + (x - mean) * (SPREAD**2 / (SPREAD**2 + sigma**2))[:, None, None, None]

    given = {
        "latent_shape": SHAPE,
        "class_names": [f"class {i}" for i in range(len(means))],
        "sigma_min": 0.01,
        "sigma_max": 80.0,
        "taps": {"x": (3, 1)},
        "fingerprint": "gaussian",
    }
    teacher = Teacher.from_callable(denoise, lambda x, *_: x, **given | settings)
    teacher.seen = seen  # type: ignore[attr-defined]
    return teacher


def data_of(means: torch.Tensor, labels, shown=None, names=None) -> LabelledImages:
    """Images that look like the classes `shown`, by default like those of their labels."""
    labels = np.array(labels, np.int64)
    rng = np.random.default_rng(0)
    looks = labels if shown is None else np.array(shown, np.int64)
    floats = means.numpy()[looks] + SPREAD * rng.normal(size=(len(labels), *SHAPE))
    pixels = ((floats + 1) * 127.5).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    names = names or tuple(f"class {i}" for i in range(len(means)))
    sources = [f"image {i}" for i in range(len(labels))]
    return LabelledImages("made", labels, names, sources, pixels.__getitem__)


@pytest.fixture
def teacher() -> Teacher:
    return gaussian(means_of())


@pytest.fixture
def data() -> LabelledImages:
    return data_of(means_of(), [i % CLASSES for i in range(24)])


@pytest.fixture
def make_teacher() -> Callable[..., Teacher]:
    return lambda classes=CLASSES, **settings: gaussian(means_of(classes), **settings)


@pytest.fixture
def make_data() -> Callable[..., LabelledImages]:
    return lambda labels, shown=None, classes=CLASSES, **named: data_of(
        means_of(classes), labels, shown, **named
    )
