"""CLARID on mixtures of Gaussians: latents, directions and guidance beside closed forms."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from clarep.clarid.clarid import Clarid
from clarep.clarid.diffusion_classifier import denoising_errors, recognise
from clarep.sampling.ode import decode
from mixture import MixtureTeacher

LABELS = torch.tensor([0, 1, 2, 1])


@pytest.fixture
def teacher():
    return MixtureTeacher()


def clarid_of(teacher, **settings):
    return Clarid(teacher, **({"sigma": 1.0, "steps": 6, "k": 4} | settings))


def images_of(teacher, labels=LABELS, seed=0):
    return (teacher.sample(labels, seed).clamp(-1, 1) + 1) / 2


@pytest.mark.parametrize("tap", ["estimate", "densities"])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_the_clarep_is_the_closed_form(teacher, tap, sigma):
    clarid = clarid_of(teacher, tap=tap, sigma=sigma, measure="angle", tolerance=1e-6)
    reps = clarid(images_of(teacher), LABELS)
    expected = teacher.canonical(reps.x_te, sigma, LABELS, 4, tap)
    assert torch.allclose(reps.latent, expected, atol=1e-5)
    values = teacher.right_vectors(reps.x_te, sigma, LABELS, tap)[0][:, :4]
    assert torch.allclose(reps.singular_values, values, rtol=1e-5)
    assert float((reps.x_te - expected).abs().max()) > 0.1


def test_the_null_branch_is_the_mixture_of_all_classes(teacher):
    clarid = clarid_of(teacher, branch="null", measure="angle", tolerance=1e-6)
    reps = clarid(images_of(teacher), LABELS)
    null = torch.full_like(LABELS, teacher.null_label)
    expected = teacher.canonical(reps.x_te, 1.0, null, 4)
    assert torch.allclose(reps.latent, expected, atol=1e-5)
    assert not torch.allclose(expected, teacher.canonical(reps.x_te, 1.0, LABELS, 4), atol=0.05)


def test_top_directions_are_what_all_classes_share(teacher):
    """Planted: four directions vary widely and alike everywhere, and the class is across them."""
    labels = torch.arange(30) % 3
    clarid = clarid_of(teacher)
    x_te = teacher.sample(labels, seed=1, sigma=1.0)
    V = clarid.directions(x_te, labels).V
    share = (teacher.shared.mT @ V).square().sum((1, 2)) / 4
    assert float(share.mean()) > 0.9 and float(share.min()) > 0.7
    before = teacher.log_posterior(x_te, 1.0).argmax(1)
    kept = teacher.log_posterior(teacher.canonical(x_te, 1.0, labels, 4), 1.0).argmax(1)
    assert float((before == kept).double().mean()) > 0.8
    gone = teacher.canonical(x_te, 1.0, labels, 24)  # all that the tap sees
    assert float(teacher.nats(gone, 1.0, labels).mean()) < 0.5 * float(
        teacher.nats(x_te, 1.0, labels).mean()
    )


@pytest.mark.parametrize("label", [0, 1])
def test_inversion_keeps_the_quantile(label):
    """In one dimension the flow moves x so that the mass below it stays: an exact solution."""
    teacher = MixtureTeacher((1, 1, 1), separation=0.4, noise=0.2)
    images = torch.linspace(0.02, 0.98, 9, dtype=torch.float64).reshape(-1, 1, 1, 1)
    labels = torch.full((9,), label)
    x_te, _ = clarid_of(teacher, k=1, steps=200, sigma=2.0).invert(images, labels)

    def mass_below(x, sigma):
        own = teacher.class_of == label
        spread = (teacher.covariances[own, 0, 0] + sigma**2).sqrt()
        parts = norm.cdf(x.reshape(-1, 1), teacher.means[own, 0], spread)
        return parts @ teacher.weights[own].numpy()

    before = mass_below((images * 2 - 1).numpy(), teacher.sigma_min)
    assert np.allclose(mass_below(x_te.numpy(), 2.0), before, atol=2e-4)
    assert before.max() - before.min() > 0.5


@pytest.mark.parametrize("guidance", [0.0, 2.0, 5.0])
def test_guidance_sharpens_the_class_by_its_power(teacher, guidance):
    """The guided estimate follows log p(x) + g (log p(x | c) - log p(x)), Ho & Salimans 2022."""
    x = teacher.sample(LABELS, seed=2, sigma=1.0).requires_grad_()
    null = torch.full_like(LABELS, teacher.null_label)
    none, given = (teacher.log_density(x, 1.0, which) for which in (null, LABELS))
    (score,) = torch.autograd.grad((none + guidance * (given - none)).sum(), x)
    found = teacher.denoiser(LABELS, guidance)(x, x.new_ones(4))
    assert torch.allclose(found, x + score, atol=1e-8)


def test_decoding_under_no_class_gives_each_class_its_share(teacher):
    """What is drawn at sigma 80 and decoded comes from all classes alike."""
    null = torch.full((300,), teacher.null_label)
    clarid = clarid_of(teacher, sigma=80.0, steps=20, guidance=1.0)
    x = 80 * torch.randn(300, *teacher.latent_shape, generator=torch.Generator().manual_seed(0))
    denoise = teacher.denoiser(null)
    samples = decode(denoise, x.double(), 80.0, teacher.sigma_min, 20, solver="heun")
    said = teacher.judge(samples).argmax(1).bincount(minlength=3) / 300
    assert bool(((said - 1 / 3).abs() < 0.1).all())
    own = torch.arange(300) % 3
    guided = clarid.sample(x.double(), own)
    assert bool((teacher.judge(guided).argmax(1) == own).all())


def test_weighted_errors_are_the_log_posterior():
    """The sum over equal steps of log sigma of errors / sigma^2 is -log p(x_0 | class)."""
    teacher = MixtureTeacher((1, 2, 2), separation=0.4, noise=0.2)
    x0 = teacher.sample(LABELS, seed=3)
    labels = torch.arange(3).expand(4, -1)
    sigmas = torch.logspace(-2, 1.9, 40, dtype=torch.float64)
    errors = denoising_errors(teacher, x0, labels, sigmas.tolist(), draws=150, batch_size=1800)
    step = float((sigmas[1] / sigmas[0]).log())
    found = (-(errors / sigmas.square()[:, None, None]).sum(0) * step).log_softmax(1)
    expected = teacher.log_posterior(x0, 0.01)
    assert torch.allclose(found.exp(), expected.exp(), atol=0.08)
    assert float(expected.exp().max(1).values.min()) < 0.95  # else any sign would do


def test_its_data_are_recognised(teacher):
    data = teacher.data([0, 1, 2] * 6)
    found = recognise(teacher, data, np.arange(18))
    assert found is not None and found.verdict == "known"
