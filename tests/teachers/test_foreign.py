"""`ForeignTeacher` around a tiny network of the tests' own."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clarep.clarid.clarid import Clarid
from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import DDPM
from compiled_law import assert_compiled_as_eager

NAMES = ("cat", "dog")


class TinyNet(nn.Module):
    """Two convolutions down, attention over tokens, one up; time and label as a shift."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 8)
        self.conv_in = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.tokens = Attention()
        self.unused = nn.Conv2d(8, 8, 1)
        self.pair = Pair()
        self.out = nn.ConvTranspose2d(16, 3, 2, stride=2)

    def forward(self, x, time, labels):
        shift = self.embed(labels) + torch.sin(time / 100)[:, None]
        h = F.gelu(self.conv_in(x) + shift[:, :, None, None])
        h = F.gelu(self.down(h))
        tokens = torch.cat([h.mean((2, 3))[:, None], h.flatten(2).mT], dim=1)  # one ahead
        tokens = self.tokens(tokens)
        h, _ = self.pair(tokens[:, 1:].mT.unflatten(2, h.shape[2:]))
        return self.out(h)


class Attention(nn.Module):
    """Attention with two heads and dropout, as a transformer's block."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(16), nn.Linear(16, 48)
        self.drop = nn.Dropout(0.5)

    def forward(self, tokens):
        heads = self.qkv(self.norm(tokens)).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads)  # (B, 2, N, 8)
        return tokens + self.drop(mixed.transpose(1, 2).flatten(2))


class Pair(nn.Module):
    """Returns a tuple, as blocks of diffusers do."""

    def forward(self, h):
        return 2 * h, None


class TinyTeacher(ForeignTeacher):
    token_grid = (4, 4)

    def run(self, x, time, cond):
        return self.network(x, time, cond)


TAPS = ("embed", "conv_in", "down", "tokens", "unused", "pair")


def schedule(prediction="epsilon"):
    return DDPM(torch.linspace(0.999, 0.005, 50), prediction)


def make(**options):
    torch.manual_seed(0)
    net = TinyNet().half()  # as checkpoints are stored
    modules = {name: getattr(net, name) for name in TAPS}
    return TinyTeacher(
        net,
        schedule(),
        TeacherOptions(**options),
        latent_shape=(3, 8, 8),
        class_names=NAMES,
        default_tap="down",
        tap_modules=modules,
    )


@pytest.fixture
def teacher():
    return make()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 8, 8, generator=generator)
    return x, torch.tensor([0.5, 1.0, 3.0]), torch.tensor([0, 1, 2])


def test_it_is_frozen_in_float32_and_evaluation(teacher):
    assert not teacher.network.training
    parameters = list(teacher.network.parameters())
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in parameters)
    assert (teacher.null_label, teacher.image_shape) == (2, (3, 8, 8))


def test_taps_by_what_they_give(teacher):
    # Tokens are laid out as a map; of a tuple the first counts; what does not run is left out.
    # What is flat stands for the whole latent.
    assert teacher.taps() == {
        "embed": (8, 8),
        "conv_in": (8, 1),
        "down": (16, 2),
        "tokens": (16, 2),
        "pair": (16, 2),
    }
    with pytest.raises(UserError, match="unknown tap 'unused'"):
        teacher.features(torch.zeros(1, 3, 8, 8), torch.ones(1), torch.tensor([0]), "unused")


def hooked(net, name, x, time, labels):
    """What a plain forward hook sees on the untouched network."""
    seen = []
    handle = getattr(net, name).register_forward_hook(lambda _m, _i, output: seen.append(output))
    net(x, time, labels)
    handle.remove()
    return seen[0]


@torch.no_grad()
@pytest.mark.parametrize("tap", ["embed", "conv_in", "down", "tokens", "pair"])
def test_features_are_those_of_a_hook(teacher, batch, tap):
    x, sigma, labels = batch
    scaled, time = teacher.parametrisation.network_input(x, sigma)
    seen = hooked(copy.deepcopy(teacher.network), tap, scaled, time, labels)
    seen = seen[0] if isinstance(seen, tuple) else seen
    if tap == "tokens":  # the one ahead is dropped, the others are rows of a map
        seen = seen[:, 1:].reshape(3, 4, 4, 16).permute(0, 3, 1, 2)
    features = teacher.features(x, sigma, teacher.condition(labels), tap)
    assert features.shape[1] == teacher.taps()[tap][0]
    assert torch.allclose(features, seen, atol=1e-6)
    assert float(features.std()) > 0.01


@pytest.mark.parametrize(("tap", "after"), [("conv_in", "down"), ("down", "tokens")])
def test_the_pass_stops_at_the_tap(teacher, batch, tap, after):
    x, sigma, labels = batch
    teacher.taps()

    def fail(*_):
        raise AssertionError(f"{after} ran")

    getattr(teacher.network, after).register_forward_pre_hook(fail)
    teacher.features(x, sigma, labels, tap)
    with pytest.raises(AssertionError, match="ran"):
        teacher.denoise(x, sigma, labels)


def test_no_hook_is_left_behind(teacher, batch):
    x, sigma, labels = batch
    teacher.taps()
    teacher.features(x, sigma, labels, "down")
    assert not any(module._forward_hooks for module in teacher.network.modules())


@torch.no_grad()
def test_the_denoiser_is_x_minus_sigma_eps(teacher, batch):
    x, sigma, labels = batch
    s = sigma[:, None, None, None]
    log_sigmas = torch.sqrt(1 / torch.linspace(0.999, 0.005, 50).double() - 1).log()
    steps = torch.stack([(log_sigmas - one.double().log()).abs().argmin() for one in sigma])
    # At noise levels of whole timesteps, so that nothing needs interpolation.
    sigma = log_sigmas[steps].exp().float()
    s = sigma[:, None, None, None]
    eps = teacher.network(x / torch.sqrt(1 + s**2), steps.float(), labels)
    assert torch.allclose(teacher.denoise(x, sigma, labels), x - s * eps, atol=1e-4)


@torch.no_grad()
def test_bf16_is_of_the_denoiser_alone(teacher, batch):
    x, sigma, labels = batch
    fast = make(bf16=True)
    exact, rounded = (one.denoise(x, sigma, labels) for one in (teacher, fast))
    assert exact.dtype == rounded.dtype == torch.float32
    gap = (exact - rounded).abs()
    assert 1e-5 < float(gap.max()) < 0.2
    for tap in ("down", "tokens"):
        features = fast.features(x, sigma, labels, tap)
        assert features.dtype == torch.float32
        assert torch.equal(features, teacher.features(x, sigma, labels, tap))


def test_another_schedule_is_another_teacher(teacher):
    changed = TinyTeacher(
        teacher.network,
        schedule("v_prediction"),
        TeacherOptions(),
        latent_shape=(3, 8, 8),
        class_names=NAMES,
        default_tap="down",
        tap_modules={"down": teacher.network.down},
    )
    assert changed.fingerprint != teacher.fingerprint


def test_the_fingerprint_is_of_weights_and_of_options_that_count(teacher):
    assert make().fingerprint == teacher.fingerprint
    assert make(offload=True, vae_slicing=True).fingerprint == teacher.fingerprint
    assert make(bf16=True).fingerprint != teacher.fingerprint
    with torch.no_grad():
        teacher.network.out.bias[0] += 1
    changed = TinyTeacher(
        teacher.network,
        schedule(),
        TeacherOptions(),
        latent_shape=(3, 8, 8),
        class_names=NAMES,
        default_tap="down",
        tap_modules={"down": teacher.network.down},
    )
    assert changed.fingerprint != make().fingerprint


def test_compiled_products_are_the_eager_ones(teacher):
    assert_compiled_as_eager(teacher)


@pytest.mark.parametrize("tap", ["down", "tokens"])
def test_forward_ad_and_finite_differences(teacher, batch, tap):
    x, sigma, labels = batch

    def features(y):
        return teacher.features(y, sigma, labels, tap)

    engine, findings = probe_engine(features, x)
    assert engine == "forward", findings
    v = torch.randn(3, 192, 2, generator=torch.Generator().manual_seed(2))
    exact = Jacobian(features, x).matmat(v)
    differences = Jacobian(features, x, "finite_difference").matmat(v)
    assert torch.allclose(exact, differences, atol=2e-2 * float(exact.abs().max()))


def test_clarid_end_to_end(teacher):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    reps = Clarid(teacher, t=0.6, k=4, steps=2)(images, torch.tensor([0, 1]))
    assert reps.sample.shape == (2, 3, 8, 8)
    assert reps.tap == "down" and reps.features.shape == (2, 16, 4, 4)
    assert bool((reps.singular_values > 0).all())


def test_t_is_a_share_of_the_timesteps(teacher):
    log_sigmas = torch.sqrt(1 / torch.linspace(0.999, 0.005, 50).double() - 1).log()
    assert teacher.sigma_from_t(10 / 49) == pytest.approx(float(log_sigmas[10].exp()))
    with pytest.raises(UserError, match="t 0 is outside"):
        teacher.sigma_from_t(0.0)


def test_options_are_kept_with_the_teacher():
    options = TeacherOptions(bf16=True)
    assert make(bf16=True).options == options
    assert replace(options, bf16=False) == TeacherOptions()
