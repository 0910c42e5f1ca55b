"""A teacher of which everything is known in closed form."""

import math

import numpy as np
import pytest
import torch

from clarep.teachers.teacher import Teacher

SHAPE = (3, 4, 4)
N = 48
SCALE = 0.5  # standard deviation of each class
SIGMA_TE = 2.0  # where the tests take the Jacobian, unless they say otherwise


class LinearTeacher(Teacher):
    """Gaussian classes and linear features, float64.

    Every label has an embedding e (tokens, width); the null label's is 0. The class mean is
    linear in e; the features are g(sigma) A(e) x with A(e) = base + mean(e) * slant and
    g(sigma) = 1 + log1p(sigma), so that a wrong noise level shows. With `text` the
    condition is the embedding itself, as of a text encoder, else the label.
    """

    latent_shape = image_shape = SHAPE
    class_names = ("cat", "dog", "owl")
    null_label = 3
    sigma_min, sigma_max = 0.01, 80.0
    default_tap = "block2"
    fingerprint = "linear"
    dtype = torch.float64

    def __init__(self, text=False):
        rng = np.random.default_rng(0)
        self.text = text
        self.embedding = torch.from_numpy(rng.normal(size=(4, 2, 5)))
        self.embedding[3] = 0
        self.to_mean = torch.from_numpy(rng.normal(size=(10, N)) / 6)
        self.base = {
            "block1": decaying(rng, 60),
            "block2": decaying(rng, 20),
        }
        self.slant = {
            tap: torch.from_numpy(rng.normal(size=a.shape)) * 0.05 for tap, a in self.base.items()
        }
        self.denoised = 0

    def taps(self):
        return {"block1": (60, 1), "block2": (20, 1)}

    def condition(self, labels):
        return self.embedding[labels] if self.text else labels

    def embedded(self, cond):
        return cond if self.text else self.embedding[cond]

    def mean(self, cond):
        return (self.embedded(cond).flatten(1) @ self.to_mean).reshape(-1, *SHAPE)

    def matrix(self, cond, tap, sigma=SIGMA_TE):
        """g(sigma) A(e), (B, m, n); sigma is a number or (B,)."""
        lean = self.embedded(cond).mean(dim=(1, 2))[:, None, None]
        gain = 1 + torch.as_tensor(sigma, dtype=torch.float64).log1p()
        return gain.reshape(-1, 1, 1) * (self.base[tap] + lean * self.slant[tap])

    def denoise(self, x, sigma, cond):
        assert len(x) == len(sigma) == len(cond)
        self.denoised += len(x)
        mean = self.mean(cond)
        return mean + (x - mean) * (SCALE**2 / (SCALE**2 + sigma**2))[:, None, None, None]

    def features(self, x, sigma, cond, tap):
        self.check_tap(tap)
        assert len(x) == len(sigma) == len(cond)
        return (self.matrix(cond, tap, sigma) @ x.flatten(1)[:, :, None]).squeeze(2)

    def sigma_from_t(self, t):
        self.check_t(t)
        sigma = math.tan(math.pi * t / 2)
        self.check_sigma(sigma)
        return sigma

    def at(self, x0, labels, sigma):
        """Where the exact ODE takes images x0, which lie at sigma_min, at noise level sigma."""
        mean = self.mean(self.condition(labels))
        growth = math.sqrt((SCALE**2 + sigma**2) / (SCALE**2 + self.sigma_min**2))
        return mean + (x0 - mean) * growth

    def right_vectors(self, labels, tap="block2"):
        """numpy's singular values (B, min(m, n)) and all right singular vectors (B, n, n)."""
        matrices = self.matrix(self.condition(labels), tap).numpy()
        _, values, rows = np.linalg.svd(matrices, full_matrices=True)
        return torch.from_numpy(values), torch.from_numpy(rows).mT


def decaying(rng, m):
    """A matrix (m, N) of singular values 1, 0.8, 0.64, ..."""
    left, _ = np.linalg.qr(rng.normal(size=(m, m)))
    right, _ = np.linalg.qr(rng.normal(size=(N, N)))
    r = min(m, N)
    return torch.from_numpy(left[:, :r] * 0.8 ** np.arange(r) @ right[:, :r].T)


@pytest.fixture
def teacher():
    return LinearTeacher()


@pytest.fixture
def text_teacher():
    return LinearTeacher(text=True)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.fixture
def labels():
    return torch.tensor([0, 2, 1, 2])
