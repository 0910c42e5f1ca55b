"""U-ViT against a deliberately naive one in float64, and its noise schedules."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.cli.main import main
from clarep.data.load import DataConfig, load_data
from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.sampling.ode import decode
from clarep.teachers.checkpoint_files import Checkpoint
from clarep.teachers.families.uvit import (
    UViT,
    UViTShape,
    parametrisation,
    schedule_of,
    uvit_shape,
)
from clarep.teachers.families.uvit import load as load_uvit
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import VP
from clarep.teachers.zoo import load_teacher
from compiled_law import assert_compiled_as_eager

diffusers = pytest.importorskip("diffusers")
TINY = UViTShape(
    channels=3,
    grid=4,
    patch=2,
    width=16,
    half_depth=2,
    heads=2,
    label_rows=4,
    hidden=32,
    qkv_bias=False,
    time_mlp=False,
    final_conv=True,
)
OTHER = UViTShape(
    channels=4,
    grid=2,
    patch=4,
    width=12,
    half_depth=1,
    heads=3,
    label_rows=3,
    hidden=20,
    qkv_bias=True,
    time_mlp=True,
    final_conv=False,
)


def random_weights(shape, seed=0):
    """Return weights none of which is zero or one, float32."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        state = UViT(shape).state_dict()
    weights = {}
    for name, value in state.items():
        scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.3
        noise = scale * torch.randn(value.shape, generator=generator)
        is_gain = "norm" in name and name.endswith("weight")
        weights[name] = noise + 1 if is_gain else noise
    return weights


# A second implementation: one image, one token, one head at a time.


def naive_linear(weights, name, v):
    out = weights[f"{name}.weight"] @ v
    bias = weights.get(f"{name}.bias")
    return out if bias is None else out + bias


def naive_norm(weights, name, v):
    centred = v - v.mean()
    scaled = centred / math.sqrt(float((centred**2).mean()) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def naive_gelu(v):
    values = [a * (1 + math.erf(a / math.sqrt(2))) / 2 for a in v.tolist()]
    return torch.tensor(values, dtype=torch.float64)


def naive_attention(weights, name, tokens, heads):
    width = len(tokens[0])
    size = width // heads
    rows = [naive_linear(weights, f"{name}.qkv", token) for token in tokens]
    mixed = [torch.zeros(width).double() for _ in tokens]
    for head in range(heads):
        span = slice(head * size, (head + 1) * size)
        q, k, v = ([row[p * width : (p + 1) * width][span] for row in rows] for p in range(3))
        for i in range(len(tokens)):
            powers = [math.exp(float(q[i] @ k[j]) / math.sqrt(size)) for j in range(len(tokens))]
            for j, power in enumerate(powers):
                mixed[i][span] += power / sum(powers) * v[j]
    return [naive_linear(weights, f"{name}.proj", token) for token in mixed]


def naive_block(weights, name, tokens, heads, skip=None):
    if skip is not None:
        pairs = zip(tokens, skip, strict=True)
        tokens = [naive_linear(weights, f"{name}.skip_linear", torch.cat(p)) for p in pairs]
    normed = [naive_norm(weights, f"{name}.norm1", token) for token in tokens]
    attended = naive_attention(weights, f"{name}.attn", normed, heads)
    tokens = [token + more for token, more in zip(tokens, attended, strict=True)]
    out = []
    for token in tokens:
        hidden = naive_linear(
            weights, f"{name}.mlp.fc1", naive_norm(weights, f"{name}.norm2", token)
        )
        out.append(token + naive_linear(weights, f"{name}.mlp.fc2", naive_gelu(hidden)))
    return out


def naive_embedding(weights, time, width):
    frequencies = [10_000 ** (-i / (width // 2)) for i in range(width // 2)]
    angles = [time * f for f in frequencies]
    values = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    waves = torch.tensor(values, dtype=torch.float64)
    if "time_embed.0.weight" not in weights:
        return waves
    hidden = naive_linear(weights, "time_embed.0", waves)
    return naive_linear(weights, "time_embed.2", hidden / (1 + (-hidden).exp()))


def naive_conv(weights, image):
    """A 3x3 convolution, zeros around."""
    kernel, bias = weights["final_layer.weight"], weights["final_layer.bias"]
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for o in range(channels):
        for y in range(height):
            for x in range(width):
                out[o, y, x] = bias[o]
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        if 0 <= y + dy < height and 0 <= x + dx < width:
                            part = kernel[o, :, dy + 1, dx + 1]
                            out[o, y, x] += part @ image[:, y + dy, x + dx]
    return out


def naive_uvit(weights, shape, image, time, label):
    """Return noise of one image (C, H, W), and block name -> tokens (N, width) without extras."""
    weights = {name: value.double() for name, value in weights.items()}
    p, grid, extras, seen = shape.patch, shape.grid, 2, {}
    tokens = [weights["label_emb.weight"][label], naive_embedding(weights, time, shape.width)]
    kernel = weights["patch_embed.proj.weight"].flatten(1)
    for y in range(grid):
        for x in range(grid):
            patch = image[:, y * p : (y + 1) * p, x * p : (x + 1) * p].flatten()
            tokens.append(kernel @ patch + weights["patch_embed.proj.bias"])
    tokens = [token + place for token, place in zip(tokens, weights["pos_embed"][0], strict=True)]
    skips = []

    def run(name, skip=None):
        nonlocal tokens
        tokens = naive_block(weights, name, tokens, shape.heads, skip)
        seen[name] = torch.stack(tokens[extras:])

    for i in range(shape.half_depth):
        run(f"in_blocks.{i}")
        skips.append(tokens)
    run("mid_block")
    for i in range(shape.half_depth):
        run(f"out_blocks.{i}", skips.pop())
    out = torch.zeros_like(image)
    for n, token in enumerate(tokens[extras:]):
        flat = naive_linear(weights, "decoder_pred", naive_norm(weights, "norm", token))
        y, x = p * (n // grid), p * (n % grid)
        for i, value in enumerate(flat):
            dy, dx, c = i // (p * shape.channels), i // shape.channels % p, i % shape.channels
            out[c, y + dy, x + dx] = value
    return (naive_conv(weights, out) if shape.final_conv else out), seen


@pytest.fixture(scope="module")
def uvit_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("uvit") / "uvit.pth"
    torch.save(random_weights(TINY), path)
    return path


@pytest.fixture
def teacher(uvit_path):
    return load_teacher(f"uvit:{uvit_path}?heads=2&num_classes=3")


def noisy(batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    sigma = torch.tensor([0.3, 4.0], dtype=dtype)[:batch]
    x = torch.randn(batch, 3, 8, 8, generator=generator, dtype=dtype)
    return x * (1 + sigma**2).sqrt()[:, None, None, None], sigma, torch.tensor([0, 3])[:batch]


# The network.


@pytest.mark.parametrize("shape", [TINY, OTHER])
def test_the_network_is_the_naive_one(shape):
    network, weights = UViT(shape).double(), random_weights(shape)
    network.load_state_dict({name: value.double() for name, value in weights.items()})
    side = shape.grid * shape.patch
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, shape.channels, side, side, generator=generator).double()
    time, labels = torch.tensor([0.7, 431.5]).double(), torch.tensor([2, 0])
    with torch.no_grad():
        found = network(x, time, labels)
    for b in range(2):
        expected, _ = naive_uvit(weights, shape, x[b], float(time[b]), int(labels[b]))
        assert torch.allclose(found[b], expected, rtol=0, atol=1e-10)
        assert float(expected.std()) > 0.1


def published(name):
    """Return a published configuration's shape: heads and hidden width follow the paper."""
    channels, size, patch, width, depth, heads, rows, conv = {
        "cifar10-S/2": (3, 32, 2, 512, 12, 8, 10, True),  # as class-conditional
        "imagenet64-M/4": (3, 64, 4, 768, 16, 12, 1000, True),
        "imagenet64-L/4": (3, 64, 4, 1024, 20, 16, 1000, True),
        "imagenet256-L/2": (4, 32, 2, 1024, 20, 16, 1001, True),
        "imagenet256-H/2": (4, 32, 2, 1152, 28, 16, 1001, False),
        "imagenet512-H/4": (4, 64, 4, 1152, 28, 16, 1001, False),
    }[name]
    return UViTShape(
        channels=channels,
        grid=size // patch,
        patch=patch,
        width=width,
        half_depth=depth // 2,
        heads=heads,
        label_rows=rows,
        hidden=4 * width,
        qkv_bias=False,
        time_mlp=False,
        final_conv=conv,
    )


def key_map(shape):
    """Return names and shapes as the authors' code makes them."""
    w, c, half = shape.width, shape.channels, shape.half_depth
    outputs = shape.patch**2 * c
    keys = {
        "pos_embed": (1, 2 + shape.grid**2, w),
        "patch_embed.proj.weight": (w, c, shape.patch, shape.patch),
        "patch_embed.proj.bias": (w,),
        "label_emb.weight": (shape.label_rows, w),
        "norm.weight": (w,),
        "norm.bias": (w,),
        "decoder_pred.weight": (outputs, w),
        "decoder_pred.bias": (outputs,),
    }
    if shape.final_conv:
        keys |= {"final_layer.weight": (c, c, 3, 3), "final_layer.bias": (c,)}
    blocks = [f"{side}_blocks.{i}" for side in ("in", "out") for i in range(half)]
    for block in (*blocks, "mid_block"):
        linears = {"attn.proj": (w, w), "mlp.fc1": (4 * w, w), "mlp.fc2": (w, 4 * w)}
        if block.startswith("out"):
            linears["skip_linear"] = (w, 2 * w)
        for name, size in linears.items():
            keys[f"{block}.{name}.weight"] = size
            keys[f"{block}.{name}.bias"] = size[:1]
        keys[f"{block}.attn.qkv.weight"] = (3 * w, w)
        for norm in ("norm1", "norm2"):
            keys |= {f"{block}.{norm}.weight": (w,), f"{block}.{norm}.bias": (w,)}
    return keys


@pytest.mark.parametrize(
    ("name", "millions"),  # parameters as the paper's tables have them
    [
        ("cifar10-S/2", 44),
        ("imagenet64-M/4", 131),
        ("imagenet64-L/4", 287),
        ("imagenet256-L/2", 287),
        ("imagenet256-H/2", 501),
        ("imagenet512-H/4", 501),
    ],
)
def test_published_models_are_read_off_their_shapes(name, millions):
    shape = published(name)
    with torch.device("meta"):
        state = UViT(shape).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == key_map(shape)
    assert uvit_shape(Checkpoint(Path("uvit.pth"), state, {})) == shape
    assert round(sum(value.numel() for value in state.values()) / 1e6) == millions


# Noise levels.


def beta_integral(time, steps=20_000):
    """Return the integral of beta(t) = 0.1 + 19.9 t by the midpoint rule."""
    return sum(0.1 + 19.9 * (i + 0.5) / steps * time for i in range(steps)) / steps * time


def test_continuous_time_is_that_of_the_sde():
    vp = VP(time_scale=999.0)
    assert (vp.sigma_min, vp.sigma_max) == pytest.approx(
        tuple(math.sqrt(math.exp(beta_integral(t)) - 1) for t in (1e-3, 1)), rel=1e-6
    )
    x = torch.ones(4, 2)
    times = torch.tensor([1e-3, 0.04, 0.5, 1.0], dtype=torch.float64)
    alpha_bar = torch.tensor(
        [math.exp(-beta_integral(float(t))) for t in times], dtype=torch.float64
    )
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    scaled, time = vp.network_input(x, sigma.float())
    assert time.tolist() == pytest.approx((999 * times).tolist(), rel=1e-5)
    assert scaled[:, 0].tolist() == pytest.approx(alpha_bar.sqrt().tolist(), rel=1e-5)
    share = (0.5 - 1e-3) / (1 - 1e-3)
    assert vp.sigma_from_t(share) == pytest.approx(float(sigma[2]), rel=1e-5)


def test_discrete_time_is_stable_diffusions_and_counts_from_one():
    scheduler = diffusers.DDPMScheduler(
        1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    alpha_bar = scheduler.alphas_cumprod.double()
    levels = ((1 - alpha_bar) / alpha_bar).sqrt()
    seen = []

    class Spy(nn.Module):
        def forward(self, x, time, labels):
            seen.append((x, time))
            return torch.zeros_like(x)

    spied = make(Spy(), parametrisation("sd"))
    steps = [0, 1, 500, 999]
    x = torch.ones(4, 3, 8, 8)
    spied.denoise(x, levels[steps].float(), torch.zeros(4, dtype=torch.int64))
    (scaled, time), expected = seen[0], alpha_bar[steps].sqrt()
    assert time.tolist() == [1, 2, 501, 1000]  # the authors' n, of betas[n - 1]
    assert scaled[:, 0, 0, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert spied.sigma_max == pytest.approx(float(levels[-1]), rel=1e-4)


def make(network, schedule):
    return ForeignTeacher(
        network,
        schedule,
        TeacherOptions(),
        latent_shape=(3, 8, 8),
        class_names=("a", "b"),
        tap_modules={},
        default_tap="",
    )


class GaussianNoise(nn.Module):
    """The best guess of eps for data N(mean, variance) in every pixel, from x_t and 999 t."""

    def forward(self, x, time, labels):
        a = torch.exp(-(0.1 * (time / 999) + 9.95 * (time / 999) ** 2))[:, None, None, None]
        mean, variance = 0.3, 0.25
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * variance + 1 - a)


def test_denoiser_is_the_posterior_mean_of_a_gaussian():
    teacher = make(GaussianNoise(), parametrisation("vp"))
    x, sigma, _ = noisy(dtype=torch.float64)
    labels = torch.tensor([0, 2])
    found = teacher.denoise(x, sigma, labels)
    s = sigma[:, None, None, None]
    assert torch.allclose(found, 0.3 + 0.25 / (0.25 + s**2) * (x - 0.3), atol=1e-9)
    down = decode(teacher.denoiser(labels), x, 4.0, 0.02, 100, solver="heun", to_sigma_min=True)
    shrunk = math.sqrt((0.25 + 0.02**2) / (0.25 + 4.0**2))
    assert torch.allclose(down, 0.3 + shrunk * (x - 0.3), atol=1e-3)


def test_denoiser_against_the_noise_of_the_naive_one(teacher):
    x, sigma, labels = noisy()
    found = teacher.denoise(x, sigma, teacher.condition(labels))
    for b in range(2):
        s = float(sigma[b])
        # sigma^2 = exp(0.1 t + 9.95 t^2) - 1, solved for t
        time = (-0.1 + math.sqrt(0.01 + 39.8 * math.log1p(s**2))) / 19.9
        scaled = x[b].double() / math.sqrt(1 + s**2)
        noise, _ = naive_uvit(random_weights(TINY), TINY, scaled, 999 * time, int(labels[b]))
        assert torch.allclose(found[b].double(), x[b] - s * noise, atol=2e-4 * (1 + s))


def test_bfloat16_stays_near(uvit_path, teacher):
    coarse = load_teacher(f"uvit:{uvit_path}?heads=2&num_classes=3", TeacherOptions(bf16=True))
    x, sigma, labels = noisy()
    expected, found = (t.denoise(x, sigma, labels) for t in (teacher, coarse))
    assert 1e-5 < float((found - expected).norm() / expected.norm()) < 0.05


# Features and their Jacobian.


def test_features_are_the_naive_ones_and_the_pass_stops_there(teacher):
    assert teacher.default_tap == "mid_block"
    names = ["in_blocks.0", "in_blocks.1", "mid_block", "out_blocks.0", "out_blocks.1"]
    assert list(teacher.taps()) == names
    assert set(teacher.taps().values()) == {(16, 2)}
    x, sigma, labels = noisy(1)
    scaled, time = teacher.parametrisation.network_input(x, sigma)
    _, seen = naive_uvit(random_weights(TINY), TINY, scaled[0].double(), float(time[0]), 0)
    for i, name in enumerate(names):
        later = [*names[i + 1 :], "norm", "final_layer"]
        ran = []
        handles = [
            teacher.network.get_submodule(module).register_forward_hook(
                lambda *_, ran=ran: ran.append(1)
            )
            for module in later
        ]
        found = teacher.features(x, sigma, teacher.condition(labels), name)
        [handle.remove() for handle in handles]
        assert found.shape == (1, 16, 4, 4) and not ran
        for n in range(16):
            expected = seen[name][n].float()
            assert torch.allclose(found[0, :, n // 4, n % 4], expected, atol=1e-4)


def test_compiled_products_are_the_eager_ones(teacher):
    assert_compiled_as_eager(teacher)


def test_jacobian_against_finite_differences(teacher):
    x, sigma, labels = noisy()

    def features(y):
        return teacher.features(y, sigma.to(y), labels, "mid_block")

    assert probe_engine(features, x)[0] == "forward"
    teacher.network.double()
    x = x.double()
    v = torch.randn(2, x[0].numel(), 3, generator=torch.Generator().manual_seed(2)).double()
    found = Jacobian(features, x, "forward").matmat(v)
    for j in range(3):
        step = 1e-5 * v[:, :, j].reshape(x.shape)
        with torch.no_grad():
            slope = (features(x + step) - features(x - step)).flatten(1) / 2e-5
        assert torch.allclose(found[:, :, j], slope, atol=1e-7)
        assert float(slope.abs().max()) > 0.1


# From photographs to canonical samples.


def test_clarid_end_to_end(teacher, photographs):
    clarid = Clarid(teacher, k=4, steps=2)
    data = load_data(DataConfig(data=str(photographs("ab")), image_size=8))
    reps = clarid(data.images([0, 2]), torch.tensor([0, 1]))
    assert clarid.tap == "mid_block"
    for rep in reps:
        assert rep.sample.shape == (1, *teacher.image_shape) == (1, 3, 8, 8)
        assert rep.features.shape == (1, 16, 4, 4)
        assert torch.isfinite(rep.sample).all()
        assert float((rep.latent - rep.x_te).norm()) > 0.01 * float(rep.x_te.norm())


def test_identify_on_photographs(uvit_path, photographs, tmp_path, capsys):
    out = tmp_path / "out"
    spec = f"uvit:{uvit_path}?heads=2&num_classes=3"
    options = "--image-size 8 --fraction 1 --steps 2 --k 4 --control-images 0"
    command = ["identify", "--teacher", spec, "--data", str(photographs("ab")), "--out", str(out)]
    assert main([*command, *options.split()]) == 0, capsys.readouterr().err
    canonical = CanonicalSet.load(out / "canon")
    assert canonical.tensors["label"].tolist() == [0, 0, 1, 1]
    assert canonical.tensors["sample"].shape == (4, 3, 8, 8)


@pytest.mark.parametrize(("count", "guidance"), [(3, 3), (4, 1)])
def test_doctor(uvit_path, examined, count, guidance):
    answer = examined(f"uvit:{uvit_path}?heads=2&num_classes={count}")
    assert answer["teacher"]["family"] == "uvit"
    assert answer["teacher"]["has_null"] is (count == 3)
    assert answer["differentiation"]["tap"] == "mid_block"
    assert answer["clarid"]["guidance"] == guidance


# Classes, schedules, and what is refused.


def test_without_a_null_class_there_is_no_guidance(uvit_path):
    """The published models of pixels have none: labels were never dropped."""
    teacher = load_teacher(f"uvit:{uvit_path}?heads=2&num_classes=4")
    words = r"no null class, which guidance.*all its 4 label embeddings.*`guidance=1`"
    with pytest.raises(UserError, match=words):
        Clarid(teacher, k=4, steps=1)
    with pytest.raises(UserError, match=words):
        Clarid(teacher, k=4, steps=1, guidance=1.0, branch="null")
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert len(Clarid(teacher, k=4, steps=1, guidance=1.0)(images, torch.tensor([0, 3]))) == 2


@pytest.mark.parametrize(
    ("rows", "classes", "has_null"),
    [(10, 10, False), (11, 10, True), (1000, 1000, False), (1001, 1000, True)],
)
def test_cifars_and_imagenets_classes_are_known(tmp_path, rows, classes, has_null):
    weights = random_weights(TINY)
    weights["label_emb.weight"] = torch.ones(rows, 16)
    torch.save(weights, tmp_path / "uvit.pth")
    teacher = load_teacher(f"uvit:{tmp_path}/uvit.pth?heads=2")
    assert teacher.num_classes == teacher.null_label == classes
    null = torch.tensor([classes])
    if has_null:
        assert teacher.condition(null).tolist() == [classes]
    else:
        with pytest.raises(UserError, match="no null class"):
            teacher.condition(null)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("imagenet256-L/2", "vp"), ("imagenet256-H/2", "sd"), ("imagenet512-H/4", "sd")],
)
def test_the_schedule_of_published_latent_models(name, schedule):
    checkpoint = Checkpoint(Path("uvit.pth"), {}, {"vae": "somewhere"})
    assert schedule_of(checkpoint, published(name)) == schedule


@pytest.fixture(scope="module")
def vae_path(tmp_path_factory) -> Path:
    """A tiny autoencoder of 16-pixel images and 8-pixel latents."""
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    path = tmp_path_factory.mktemp("vae")
    vae.save_pretrained(path)
    return path


def test_a_model_of_latents(vae_path, tmp_path):
    weights = random_weights(OTHER)
    save_file(weights, tmp_path / "uvit.safetensors", {"heads": "3", "num_classes": "2"})
    place = f"{tmp_path}/uvit.safetensors"
    with pytest.raises(UserError, match=r"works on 4 channels, the latents of an autoencoder"):
        load_teacher(f"uvit:{place}")
    with pytest.raises(UserError, match=r"latents of width 12, which no published.*schedule=sd"):
        load_teacher(f"uvit:{place}?vae={vae_path}")
    with pytest.raises(UserError, match=r"unknown schedule 'ddpm': .*valid are vp, sd"):
        load_teacher(f"uvit:{place}?vae={vae_path}&schedule=ddpm")
    sd = load_teacher(f"uvit:{place}?vae={vae_path}&schedule=sd")
    vp = load_teacher(f"uvit:{place}?vae={vae_path}&schedule=vp")
    assert sd.image_shape == (3, 16, 16) and sd.latent_shape == (4, 8, 8)
    assert sd.sigma_max == pytest.approx(14.6, abs=0.1)
    assert vp.sigma_max == pytest.approx(152, abs=1)
    assert sd.fingerprint != vp.fingerprint


def changed(**tensors):
    def change(weights):
        for name, value in tensors.items():
            weights[name.replace("__", ".")] = value

    return change


@pytest.mark.parametrize(
    ("change", "query", "words"),
    [
        (
            lambda w: w.pop("label_emb.weight"),
            "",
            "no label_emb, so it was trained without classes",
        ),
        (
            lambda w: (
                w.pop("label_emb.weight"),
                w.update({"context_embed.weight": torch.ones(1)}),
            ),
            "",
            r"it is conditioned on text \(context_embed\)",
        ),
        (lambda w: w.pop("patch_embed.proj.weight"), "", r"it has no patch_embed\.proj\.weight"),
        (lambda w: w.pop("norm.bias"), "", r"no class-conditional U-ViT .*it lacks norm\.bias"),
        (changed(pos_embed=torch.ones(1, 17, 16)), "", "its 15 patches make no square"),
        (changed(blocks__0__attn__qkv__weight=torch.ones(1)), "", r"has not, blocks\.0\.attn"),
        (lambda _: None, "?num_classes=3", "width 16, which no published one has"),
        (lambda _: None, "?heads=2", r"label table of 4 rows and does not say.*num_classes=3"),
        (lambda _: None, "?heads=5&num_classes=3", "heads 5 does not divide the width 16"),
        (lambda _: None, "?heads=2&num_classes=2", "4 rows, and num_classes 2 is given"),
        (lambda _: None, "?heads=2&data_at=1", "unknown setting of .*'data_at'"),
    ],
)
def test_files_of_another_kind(tmp_path, change, query, words):
    weights = random_weights(TINY)
    change(weights)
    torch.save(weights, tmp_path / "uvit.pth")
    query = query or "?heads=2&num_classes=3"
    with pytest.raises(UserError, match=words) as refused:
        load_uvit(f"{tmp_path}/uvit.pth{query}", TeacherOptions())
    assert "\n" not in str(refused.value)


def test_a_few_classes_by_number_or_by_the_side_files_names(uvit_path, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("2\n0\n")
    given = TeacherOptions(class_names=names)
    place = f"uvit:{uvit_path}?heads=2"
    with pytest.raises(UserError, match=r"label table of 4 rows and does not say.*num_classes=3"):
        load_teacher(place, given)  # two names do not tell how many classes there are
    for count, null in ((3, True), (4, False)):
        teacher = load_teacher(f"{place}&num_classes={count}", given)
        assert teacher.class_names == ("2", "0") and teacher.has_null == null
        assert teacher.condition(torch.tensor([0, 1, 1])).tolist() == [2, 0, 0]
        if null:
            assert teacher.condition(torch.tensor([2])).tolist() == [3]
    path = tmp_path / "uvit.pth"
    path.write_bytes(uvit_path.read_bytes())
    (tmp_path / "uvit.pth.json").write_text('{"heads": 2, "class_names": ["cat", "dog", "owl"]}')
    names.write_text("owl\ncat\n")
    teacher = load_teacher(f"uvit:{path}", given)
    assert teacher.condition(torch.arange(3)).tolist() == [2, 0, 3]
    names.write_text("owl\nbear\n")
    with pytest.raises(UserError, match=r"no class 'bear': .*a name that it knows, or the class's"):
        load_teacher(f"uvit:{path}", given)


def test_the_side_files_names_say_whether_the_last_row_is_a_class(uvit_path, tmp_path):
    path, side, names = tmp_path / "uvit.pth", tmp_path / "uvit.pth.json", tmp_path / "names.txt"
    path.write_bytes(uvit_path.read_bytes())
    side.write_text('{"heads": 2, "class_names": ["cat", "dog", "owl"]}')
    names.write_text("a\nb\nc\nd\n")
    given = TeacherOptions(class_names=names)
    with pytest.raises(UserError, match="4 class names are given and the checkpoint has 3 classes"):
        load_teacher(f"uvit:{path}", given)
    side.write_text('{"heads": 2, "class_names": ["cat", "dog", "owl", "hen"]}')
    teacher = load_teacher(f"uvit:{path}", given)
    assert teacher.class_names == tuple("abcd") and not teacher.has_null
    names.write_text("owl\nhen\ncat\n")
    teacher = load_teacher(f"uvit:{path}", given)
    assert teacher.condition(torch.arange(3)).tolist() == [2, 3, 0] and not teacher.has_null


def test_class_names_in_the_side_file(uvit_path, tmp_path):
    path = tmp_path / "uvit.pth"
    path.write_bytes(uvit_path.read_bytes())
    side = tmp_path / "uvit.pth.json"
    side.write_text('{"heads": 2, "class_names": ["cat", "dog", "owl"]}')
    teacher = load_teacher(f"uvit:{path}")
    assert teacher.class_names == ("cat", "dog", "owl") and teacher.null_label == 3
    with pytest.raises(UserError, match="3 class names and num_classes 4 are given"):
        load_teacher(f"uvit:{path}?num_classes=4")
