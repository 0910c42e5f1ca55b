"""What holds of every teacher that CLARID is given: closed forms, functions, a U-Net."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.clarid.clarid import Clarid
from clarep.clarid.class_directions import sparing
from clarep.geometry.jacobian import probe_engine
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher
from compiled_law import assert_compiled_as_eager
from mixture import MixtureTeacher

K = 5


def linear(**settings) -> Teacher:
    path = Path(__file__).parent / "conftest.py"
    spec = importlib.util.spec_from_file_location("linear", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LinearTeacher(**settings)


def of_functions() -> Teacher:
    mixture = MixtureTeacher()
    return Teacher.from_callable(
        mixture.denoise,
        mixture.features,
        latent_shape=mixture.latent_shape,
        class_names=mixture.class_names,
        sigma_min=mixture.sigma_min,
        sigma_max=mixture.sigma_max,
        taps=mixture.taps(),
        fingerprint=mixture.fingerprint,
        dtype=mixture.dtype,
    )


TEACHERS = {
    "linear": linear,
    "linear, text": lambda: linear(text=True),
    "mixture": MixtureTeacher,
    "mixture, grey": lambda: MixtureTeacher((1, 4, 4)),
    "mixture, many parts": lambda: MixtureTeacher(classes=5, components=4, seed=1),
    "functions": of_functions,
    "U-Net": None,
}


@pytest.fixture(params=TEACHERS)
def any_teacher(request, tiny_teacher_path):
    make = TEACHERS[request.param]
    return load_teacher(tiny_teacher_path) if make is None else make()


@pytest.fixture
def given(any_teacher):
    """Latents at noise level 1, the level of each, and labels with the null label among them."""
    shape = any_teacher.latent_shape
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)).to(any_teacher.dtype)
    labels = torch.tensor([0, 2, 1, any_teacher.null_label])
    return x, x.new_tensor([1.0, 0.3, 1.0, 4.0]), labels


def images_of(teacher, count=3):
    shape = (count, *teacher.image_shape)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(teacher.dtype)


def test_an_image_alone_is_as_in_a_batch(any_teacher, given):
    x, sigma, labels = given
    cond = any_teacher.condition(labels)
    for name in ("denoise", *any_teacher.taps()):

        def work(*some, name=name):
            if name == "denoise":
                return any_teacher.denoise(*some)
            return any_teacher.features(*some, name)

        together = work(x, sigma, cond)
        for i in range(4):
            one = slice(i, i + 1)
            alone = work(x[one], sigma[one], any_teacher.condition(labels[one]))
            assert torch.allclose(alone, together[one], rtol=1e-4, atol=1e-5)


def test_taps_tell_the_channels_of_their_features(any_teacher, given):
    for tap, (channels, _) in any_teacher.taps().items():
        features = any_teacher.features(*given[:2], any_teacher.condition(given[2]), tap)
        assert features.shape[:2] == (4, channels)
    assert any_teacher.default_tap in any_teacher.taps()


def test_the_noise_level_rises_with_t(any_teacher):
    levels = [any_teacher.sigma_from_t(t) for t in (0.1, 0.3, 0.5, 0.7, 0.85, 0.95)]
    assert levels == sorted(set(levels))
    assert any_teacher.sigma_min < levels[0] < levels[-1] <= any_teacher.sigma_max


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guidance_is_a_line_from_none_to_the_class(any_teacher, given, guidance):
    x, sigma, labels = given[0][:3], given[1][:3], given[2][:3]
    under = {
        name: any_teacher.denoise(x, sigma, any_teacher.condition(which))
        for name, which in (
            ("null", torch.full_like(labels, any_teacher.null_label)),
            ("class", labels),
        )
    }
    expected = under["null"] + guidance * (under["class"] - under["null"])
    found = any_teacher.denoiser(labels, guidance)(x, sigma)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert float((under["class"] - under["null"]).abs().max()) > 1e-3


def test_forward_mode_passes_the_adjoint_test_at_every_tap(any_teacher, given):
    x, sigma, labels = given
    cond = any_teacher.condition(labels)
    for tap in any_teacher.taps():
        engine, _ = probe_engine(lambda y, tap=tap: any_teacher.features(y, sigma, cond, tap), x)
        assert engine == "forward"


def test_compiled_products_are_the_eager_ones(any_teacher):
    assert_compiled_as_eager(any_teacher)


@pytest.mark.parametrize("kind", ["top", "contrast", "mask", "centre", "middle", "bottom"])
def test_directions_are_those_of_a_dense_svd(any_teacher, given, kind):
    """The Jacobian that is formed by products, through numpy."""
    x, labels = given[0][:2], given[2][:2]
    clarid = Clarid(any_teacher, sigma=1.0, k=K, kind=kind, tolerance=1e-3)
    dense = clarid.jacobian(x, labels).dense().double().numpy()
    V = clarid.directions(x, labels).V.double().numpy()
    if kind in ("contrast", "mask", "centre"):
        across, _ = sparing(any_teacher, x, labels, 1.0, kind=kind)
        each = torch.eye(any_teacher.latent_dim, dtype=x.dtype).reshape(-1, 1, *x.shape[1:])
        kept = torch.stack([across(step.expand_as(x)).flatten(1) for step in each], 1)
        dense = dense @ kept.double().numpy()
    captured = np.square(dense @ V).sum((1, 2))
    squares = np.zeros((2, any_teacher.latent_dim))
    found = np.square(np.linalg.svd(dense, compute_uv=False))
    squares[:, : found.shape[1]] = found
    first = {
        "top": 0,
        "contrast": 0,
        "mask": 0,
        "centre": 0,
        "middle": (found.shape[1] - K) // 2,
        "bottom": any_teacher.latent_dim - K,
    }[kind]
    expected = squares[:, first : first + K].sum(1)
    assert np.allclose(captured, expected, rtol=2e-3, atol=1e-7 * squares[:, :1].max())


def test_without_guidance_and_projection_the_image_comes_back(any_teacher):
    images = images_of(any_teacher)
    labels = torch.tensor([0, 2, 1])
    clarid = Clarid(any_teacher, sigma=1.0, kind="none", guidance=1.0, steps=80)
    reps = clarid(images, labels)
    assert float(reps.round_trip_psnr.min()) > 30  # noise, which no mixture drew, is worst


def test_what_is_projected_out_is_gone_and_nothing_else_is(any_teacher):
    images = images_of(any_teacher)
    labels = torch.tensor([0, 2, 1])
    clarid = Clarid(any_teacher, sigma=1.0, k=K, steps=3)
    reps = clarid(images, labels)
    V = clarid.directions(reps.x_te, labels).V.double()
    latent, x_te = (x.double().flatten(1)[:, :, None] for x in (reps.latent, reps.x_te))
    scale = float(x_te.norm(dim=1).max())
    assert float((V.mT @ latent).abs().max()) < 1e-5 * scale
    removed = x_te - latent
    assert float((removed - V @ (V.mT @ removed)).abs().max()) < 1e-5 * scale
    assert float(removed.abs().max()) > 1e-3 * scale
