"""The mixture teacher is what it says: beside integrals, derivatives of its density, and draws."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from clarep.geometry.precision import differentiable
from mixture import MixtureTeacher

SHAPES = [(1, 2, 2), (1, 4, 4), (3, 4, 4)]
SIGMAS = [0.05, 0.5, 2.0, 20.0]


@pytest.fixture(params=SHAPES, ids=str)
def teacher(request):
    return MixtureTeacher(request.param)


def some(teacher, sigma):
    labels = torch.tensor([0, 1, 2, teacher.null_label])
    return teacher.sample(labels, seed=1, sigma=sigma), labels


@pytest.mark.parametrize("sigma", SIGMAS)
def test_densities_are_scipys(teacher, sigma):
    x, labels = some(teacher, sigma)
    n = teacher.latent_dim
    for one, label, found in zip(x, labels, teacher.log_density(x, sigma, labels), strict=True):
        parts = [
            (share, multivariate_normal(mean.numpy(), covariance.numpy() + sigma**2 * np.eye(n)))
            for share, mean, covariance, own in zip(
                teacher.weights, teacher.means, teacher.covariances, teacher.class_of, strict=True
            )
            if label in (own, teacher.null_label)
        ]
        total = sum(float(share) for share, _ in parts)
        expected = (
            sum(float(share) * part.pdf(one.flatten().numpy()) for share, part in parts) / total
        )
        assert float(found.exp()) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_denoiser_is_tweedies(teacher, sigma):
    """E[x_0 | x] = x + sigma^2 times the score (Efron 2011), the score by autograd."""
    x, labels = some(teacher, sigma)
    x.requires_grad_()
    (score,) = torch.autograd.grad(teacher.log_density(x, sigma, labels).sum(), x)
    found = teacher.denoise(x, x.new_full((4,), sigma), labels)
    assert torch.allclose(found, x + sigma**2 * score, rtol=1e-8, atol=1e-8)


def test_the_denoiser_is_the_mean_of_what_the_noise_allows():
    """Draws of x_0, weighted by how well the noise explains x: no formula of the teacher's."""
    teacher = MixtureTeacher((1, 2, 2))
    sigma, count = 1.0, 60_000
    x, _ = some(teacher, sigma)
    for label in (1, teacher.null_label):
        x0 = teacher.sample(torch.full((count,), label), seed=2)
        found = teacher.denoise(x, torch.full((4,), sigma), torch.full((4,), label))
        for one, estimate in zip(x, found, strict=True):
            fit = (-(one - x0).square().flatten(1).sum(1) / (2 * sigma**2)).softmax(0)
            expected = torch.einsum("s,schw->chw", fit, x0)
            assert torch.allclose(estimate, expected, atol=0.04)
            assert float((estimate - x0.mean(0)).abs().max()) > 0.05


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("tap", ["estimate", "densities"])
def test_the_jacobian_is_autograds(teacher, sigma, tap):
    x, labels = some(teacher, sigma)
    known = teacher.jacobian(x, sigma, labels, tap)
    for i in range(len(x)):
        label = labels[i : i + 1]

        def features(flat, label=label):  # of this turn of the loop
            one = flat.reshape(1, *teacher.latent_shape)
            return teacher.features(one, torch.tensor([sigma], dtype=x.dtype), label, tap)[0]

        for derivative in (torch.func.jacfwd, torch.func.jacrev):
            with differentiable():
                dense = derivative(features)(x[i].flatten())
            assert torch.allclose(dense, known[i], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_posteriors_are_calibrated(sigma):
    """Of noisy draws to which it gives a class with chance p, a share of p are of that class."""
    teacher = MixtureTeacher((1, 2, 2), separation=1.0)
    labels = torch.arange(6000) % 3
    x = teacher.sample(labels, seed=3, sigma=sigma)
    chances = teacher.log_posterior(x, sigma).exp()
    assert torch.allclose(chances.sum(1), torch.ones(6000).double())
    given, came = chances[:, 0], (labels == 0).double()
    for low, high in ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 1.0)):
        bin_ = (given >= low) & (given < high)
        if bin_.sum() > 100:
            spread = 4 * math.sqrt(0.25 / int(bin_.sum()))
            assert float(came[bin_].mean()) == pytest.approx(float(given[bin_].mean()), abs=spread)
    own = chances.gather(1, labels[:, None])[:, 0]
    assert torch.allclose(teacher.nats(x, sigma, labels), (own * 3).log())


def test_classes_are_told_apart_when_clean_and_not_in_noise():
    teacher = MixtureTeacher()
    labels = torch.arange(300) % 3
    clean, noisy = teacher.sample(labels), teacher.sample(labels, sigma=50.0)
    assert float((teacher.judge(clean).argmax(1) == labels).double().mean()) == 1
    assert float(teacher.nats(noisy, 50.0, labels).abs().mean()) < 0.1
    alike = MixtureTeacher(separation=0.0)
    assert float(alike.means.norm(dim=1).max()) == pytest.approx(0.5)


def test_as_a_data_set_it_is_its_own_draws():
    teacher = MixtureTeacher()
    data = teacher.data([0, 1, 2, 2, 1], seed=4)
    images = data.images([0, 1, 2, 3, 4]).double() / 127.5 - 1
    x0 = teacher.sample(torch.tensor([0, 1, 2, 2, 1]), seed=4)
    assert float((images - x0.clamp(-1, 1)).abs().max()) <= 1 / 255 + 1e-9
    assert float((x0.abs() > 1).double().mean()) < 0.02
