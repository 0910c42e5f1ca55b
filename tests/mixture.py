"""A teacher whose classes are mixtures of Gaussians: all that CLARID asks of it in closed form.

`from mixture import MixtureTeacher` works in every test (`pythonpath` in pyproject.toml). All is
float64 and differentiable, by forward mode too. A label is a class, or `null_label`, which is all
classes in equal parts.
"""

import math

import numpy as np
import torch

from clarep.data.labelled import LabelledImages
from clarep.teachers.teacher import Teacher

_TAP_WIDTH = 24


class MixtureTeacher(Teacher):
    """Class c is a mixture of `components` Gaussians N(mean, F F^T + noise^2 I), F of low rank.

    Some directions vary alike in all components ("background"), two more in each its own way. The
    class centres and the components' offsets from them lie across the background.

    Taps: `estimate` is a linear map of the denoiser's estimate, (B, 24), of falling singular
    values, which knows the label; `densities` is the log density at sigma of every component of
    every class, (B, classes * components), which does not.

    Args:
        shape: (C, H, W), a few pixels.
        separation: distance of each class's centre from 0; 0 makes classes of components alone.
        background: standard deviation along each of the shared directions, 4 or n / 4.
        noise: standard deviation of all the rest.
    """

    null_label: int
    sigma_min, sigma_max = 0.01, 80.0
    default_tap = "estimate"
    dtype = torch.float64

    def __init__(
        self,
        shape=(3, 4, 4),
        classes=3,
        components=2,
        *,
        separation=1.7,
        background=0.6,
        noise=0.1,
        seed=0,
    ):
        rng = np.random.default_rng(seed)
        n, parts = math.prod(shape), classes * components
        self.latent_shape = self.image_shape = shape
        self.class_names = tuple(f"class {i}" for i in range(classes))
        self.null_label = classes
        described = (shape, classes, components, separation, background, noise, seed)
        self.fingerprint = f"mixture {described}"
        self.separation, self.denoised = separation, 0
        self.class_of = torch.arange(classes).repeat_interleave(components)  # (P,)
        shared = np.linalg.qr(rng.normal(size=(n, min(4, n // 4))))[0]
        across = np.eye(n) - shared @ shared.T

        def directions(count):
            drawn = rng.normal(size=(count, n)) @ across
            return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

        centres = separation * directions(classes)
        means = np.repeat(centres, components, 0) + 0.5 * directions(parts)
        own = 0.3 * directions(2 * parts).reshape(parts, 2, n)
        covariances = (
            background**2 * shared @ shared.T + noise**2 * np.eye(n) + own.transpose(0, 2, 1) @ own
        )
        values, vectors = np.linalg.eigh(covariances)
        self.shared = torch.from_numpy(shared)  # (n, 4) or fewer
        self.means = torch.from_numpy(means)  # (P, n)
        self.covariances = torch.from_numpy(covariances)  # (P, n, n)
        self.values, self.vectors = torch.from_numpy(values), torch.from_numpy(vectors)
        weights = rng.dirichlet(np.full(components, 5.0), classes).flatten()
        self.weights = torch.from_numpy(weights)  # (P,), 1 in each class
        own_class = self.class_of == torch.arange(classes)[:, None]
        given_class = torch.where(own_class, self.weights, 0)
        given_none = self.weights[None] / classes
        self.log_weights = torch.cat([given_class, given_none]).log()  # (classes + 1, P)
        left, _ = np.linalg.qr(rng.normal(size=(_TAP_WIDTH, _TAP_WIDTH)))
        right, _ = np.linalg.qr(rng.normal(size=(n, n)))
        rank = min(_TAP_WIDTH, n)
        falling = left[:, :rank] * 0.9 ** np.arange(rank) @ right[:, :rank].T
        self.tap_map = torch.from_numpy(falling)  # (24, n)

    def taps(self):
        return {"densities": (len(self.weights), 4), "estimate": (_TAP_WIDTH, 4)}

    def condition(self, labels):
        return labels

    def denoise(self, x, sigma, cond):
        self.denoised += len(x)
        return self._estimate(x, sigma, cond).reshape(x.shape)

    def features(self, x, sigma, cond, tap):
        self.check_tap(tap)
        if tap == "densities":
            return self._components(x, sigma)[0]
        return self._estimate(x, sigma, cond) @ self.tap_map.mT

    def sigma_from_t(self, t):
        self.check_t(t)
        sigma = math.tan(math.pi * t / 2)
        self.check_sigma(sigma)
        return sigma

    def _estimate(self, x, sigma, cond):
        logs, each, _ = self._components(x, sigma)
        return torch.einsum("bp,bpn->bn", (logs + self.log_weights[cond]).softmax(1), each)

    def _components(self, x, sigma):
        """Log density (B, P), E[x_0 | x] (B, P, n) and score (B, P, n) of each component."""
        level = sigma.double().square().reshape(-1, 1, 1)
        from_mean = x.flatten(1).double()[:, None] - self.means
        along = torch.einsum("bpn,pnk->bpk", from_mean, self.vectors)
        total = self.values + level  # (B, P, n), eigenvalues of the noisy covariance
        logs = -(along.square() / total + (2 * math.pi * total).log()).sum(2) / 2
        each = self.means + torch.einsum("bpk,pnk->bpn", along * self.values / total, self.vectors)
        score = -torch.einsum("bpk,pnk->bpn", along / total, self.vectors)
        return logs, each, score

    # What is known: for sigma a number or (B,), labels (B,) with null_label allowed.

    def log_density(self, x, sigma, labels):
        """log p_sigma(x | label), (B,)."""
        logs = self._components(x, _levels(x, sigma))[0]
        return (logs + self.log_weights[labels]).logsumexp(1)

    def log_posterior(self, x, sigma):
        """log p(class | x) at noise level sigma, (B, classes); all classes equally likely."""
        logs = self._components(x, _levels(x, sigma))[0]
        joint = logs[:, None] + self.log_weights[: self.null_label]  # (B, classes, P)
        return joint.logsumexp(2).log_softmax(1)

    def nats(self, x, sigma, labels):
        """log p(label | x) less log of chance, (B,): the class evidence of x at sigma."""
        own = self.log_posterior(x, sigma).gather(1, labels[:, None])[:, 0]
        return own + math.log(self.num_classes)

    def jacobian(self, x, sigma, labels, tap="estimate"):
        """The dense Jacobian of the features at a tap, (B, m, n), without automatic derivatives.

        That of E[x_0 | x] is Cov[x_0 | x] / sigma^2.
        """
        level = _levels(x, sigma)
        logs, each, score = self._components(x, level)
        if tap == "densities":
            return score
        share = (logs + self.log_weights[labels]).softmax(1)
        square = level.square()[:, None, None]
        left = self.values * square / (self.values + square)  # (B, P, n)
        within = torch.einsum("bp,pnk,bpk,pmk->bnm", share, self.vectors, left, self.vectors)
        mean = torch.einsum("bp,bpn->bn", share, each)
        apart = each - mean[:, None]
        between = torch.einsum("bp,bpn,bpm->bnm", share, apart, apart)
        return self.tap_map @ ((within + between) / square)

    def right_vectors(self, x, sigma, labels, tap="estimate"):
        """numpy's singular values (B, min(m, n)) and all right singular vectors (B, n, n)."""
        dense = self.jacobian(x, sigma, labels, tap).numpy()
        _, values, rows = np.linalg.svd(dense, full_matrices=True)
        return torch.from_numpy(values), torch.from_numpy(rows).mT

    def canonical(self, x, sigma, labels, k, tap="estimate"):
        """x without the top k right singular vectors of the Jacobian there: the CLARep."""
        top = self.right_vectors(x, sigma, labels, tap)[1][:, :, :k]
        flat = x.flatten(1)[:, :, None]
        return x - (top @ top.mT @ flat).reshape(x.shape)

    def judge(self, images):
        """The best classifier of clean images in [-1, 1], as logits: a `Scorer`."""
        return self.log_posterior(images.double(), self.sigma_min)

    def sample(self, labels, seed=0, sigma=0.0):
        """Draws of x at noise level sigma, clean by default, of the labels' classes (null too)."""
        rng = np.random.default_rng(seed)
        chances = self.log_weights[labels].exp().numpy()
        part = [rng.choice(len(chance), p=chance / chance.sum()) for chance in chances]
        spread = (self.values + sigma**2).sqrt()[part]
        drawn = torch.from_numpy(rng.normal(size=spread.shape))
        # By the symmetric root: single eigenvectors of equal eigenvalues differ between machines.
        vectors = self.vectors[part]
        along = torch.einsum("bn,bnk->bk", drawn, vectors) * spread
        flat = self.means[part] + torch.einsum("bk,bnk->bn", along, vectors)
        return flat.reshape(-1, *self.latent_shape)

    def data(self, labels, seed=0):
        """RGB images of the classes, rounded to pixels, as a data set."""
        labels = np.array(labels, np.int64)
        x0 = self.sample(torch.from_numpy(labels), seed).numpy()
        pixels = ((x0 + 1) * 127.5).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        sources = [f"image {i}" for i in range(len(labels))]
        return LabelledImages("mixture", labels, self.class_names, sources, pixels.__getitem__)


def _levels(x, sigma):
    return torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))
