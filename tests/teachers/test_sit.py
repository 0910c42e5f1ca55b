"""SiT against diffusers' DiT, whose blocks have the same maths, and against Gaussian flows."""

import argparse
import json
from dataclasses import replace
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
from clarep.sampling.ode import decode, invert
from clarep.teachers.checkpoint_files import Checkpoint
from clarep.teachers.families.sit import SiT, SiTShape, sit_shape
from clarep.teachers.families.sit import load as load_sit
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import Flow
from clarep.teachers.zoo import load_teacher
from compiled_law import assert_compiled_as_eager

diffusers = pytest.importorskip("diffusers")
DEPTH, WIDTH, CLASSES = 3, 16, 5


def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.2
            value.copy_(scale * torch.randn(value.shape, generator=generator))
    return module.eval()


def diffusers_dit(channels=4, out_channels=8):
    """A DiT of random weights, its time waves as in the papers' code."""
    dit = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=WIDTH // 2,
        in_channels=channels,
        out_channels=out_channels,
        num_layers=DEPTH,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=CLASSES,
        norm_eps=1e-6,
    )
    randomise(dit)
    first = dit.transformer_blocks[0].norm1.emb
    for block in dit.transformer_blocks:  # each has a copy of what SiT has once
        block.norm1.emb.load_state_dict(first.state_dict())
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # 10^(-4 i / 128), not / 127
    return dit


def sit_weights(dit):
    """Return the weights of a diffusers' DiT under SiT's names."""
    state, weights = dit.state_dict(), {"pos_embed": dit.pos_embed.pos_embed.float()}

    def move(new, old):
        for kind in ("weight", "bias"):
            weights[f"{new}.{kind}"] = state[f"{old}.{kind}"]

    first = "transformer_blocks.0.norm1.emb"
    table = "embedding_table.weight"
    weights[f"y_embedder.{table}"] = state[f"{first}.class_embedder.{table}"]
    move("x_embedder.proj", "pos_embed.proj")
    move("t_embedder.mlp.0", f"{first}.timestep_embedder.linear_1")
    move("t_embedder.mlp.2", f"{first}.timestep_embedder.linear_2")
    for i in range(DEPTH):
        new, old = f"blocks.{i}", f"transformer_blocks.{i}"
        move(f"{new}.adaLN_modulation.1", f"{old}.norm1.linear")
        move(f"{new}.attn.proj", f"{old}.attn1.to_out.0")
        move(f"{new}.mlp.fc1", f"{old}.ff.net.0.proj")
        move(f"{new}.mlp.fc2", f"{old}.ff.net.2")
        for kind in ("weight", "bias"):
            parts = [state[f"{old}.attn1.to_{p}.{kind}"] for p in "qkv"]
            weights[f"{new}.attn.qkv.{kind}"] = torch.cat(parts)
    move("final_layer.adaLN_modulation.1", "proj_out_1")
    move("final_layer.linear", "proj_out_2")
    return {name: value.contiguous().clone() for name, value in weights.items()}


@pytest.fixture(scope="module")
def dit():
    return diffusers_dit()


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
        scaling_factor=0.5,
    )
    path = tmp_path_factory.mktemp("vae")
    randomise(vae).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def sit_path(dit, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sit") / "sit.safetensors"
    save_file(sit_weights(dit), path, {"heads": "2"})
    return path


@pytest.fixture(scope="module")
def teacher(sit_path, vae_path):
    return load_teacher(f"sit:{sit_path}?vae={vae_path}")


def noisy(batch=3, dtype=torch.float32, shape=(4, 8, 8)):
    generator = torch.Generator().manual_seed(1)
    sigma = torch.tensor([0.2, 1.0, 6.0], dtype=dtype)[:batch]
    x = torch.randn(batch, *shape, generator=generator, dtype=dtype)
    return x * (1 + sigma**2).sqrt()[:, None, None, None], sigma, torch.tensor([0, 4, 5])[:batch]


def run_dit(dit, x, time, labels):
    with torch.no_grad():
        return dit(x, timestep=time, class_labels=labels).sample


def as_map(tokens, side):
    """Return tokens (B, N, C) row by row as (B, C, side, side)."""
    laid = tokens.new_zeros(len(tokens), tokens.shape[2], side, side)
    for n in range(tokens.shape[1]):
        laid[:, :, n // side, n % side] = tokens[:, n]
    return laid


# The network and its translation.


def test_the_network_is_dits(teacher, dit):
    x, _, labels = noisy()
    time = torch.tensor([0.0, 0.31, 1.0])
    with torch.no_grad():
        ours = teacher.network(x, time, labels)
    theirs = run_dit(dit, x, time, labels)
    assert ours.shape == (3, 4, 8, 8)
    assert torch.allclose(ours, theirs[:, :4], atol=1e-5)  # the other four are the variance
    assert float(theirs.std()) > 0.1


@pytest.mark.parametrize("data_at", [0, 1])
def test_denoiser_against_the_velocity(dit, sit_path, vae_path, data_at):
    teacher = load_teacher(f"sit:{sit_path}?vae={vae_path}&data_at={data_at}")
    x, sigma, labels = noisy()
    share = sigma / (1 + sigma)  # of noise in x_s = (1 - s) x_0 + s eps
    x_s = x / (1 + sigma)[:, None, None, None]
    velocity = run_dit(dit, x_s, 1 - share if data_at else share, labels)[:, :4]
    sign = 1 if data_at else -1  # towards the data, or away
    expected = x_s + sign * share[:, None, None, None] * velocity
    found = teacher.denoise(x, sigma, teacher.condition(labels))
    assert torch.allclose(found, expected, atol=1e-5)


def test_time_and_sigma(teacher):
    assert teacher.sigma_from_t(0.5) == pytest.approx(1.0)
    assert teacher.sigma_from_t(0.85) == pytest.approx(0.85 / 0.15, rel=0.01)
    assert (teacher.sigma_min, teacher.sigma_max) == pytest.approx((0.001, 999), rel=0.01)


class GaussianFlow(nn.Module):
    """The best velocity for data N(mean of the label, cov): E[x_0 - eps | x_s]."""

    def __init__(self, means, cov, data_at):
        super().__init__()
        self.means, self.cov = nn.Parameter(means), nn.Parameter(cov)
        self.data_at = data_at

    def forward(self, x, time, labels):
        out, eye = torch.empty_like(x), torch.eye(len(self.cov), dtype=x.dtype)
        for i in range(len(x)):
            d = time[i] if self.data_at == 1 else 1 - time[i]  # share of data
            mean = self.means[labels[i]]
            gain = (d * self.cov - (1 - d) * eye) @ torch.linalg.inv(
                d**2 * self.cov + (1 - d) ** 2 * eye
            )
            velocity = mean + gain @ (x[i].flatten() - d * mean)
            out[i] = (velocity if self.data_at == 1 else -velocity).reshape(x[i].shape)
        return out


@pytest.fixture(params=[0, 1])
def gaussian(request):
    """A teacher of two Gaussians and their null class; their means and covariance."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64) / 3
    cov = root @ root.T
    network = GaussianFlow(means, cov, request.param)
    teacher = ForeignTeacher(
        network,
        Flow(request.param),
        TeacherOptions(),
        latent_shape=(3, 2, 2),
        class_names=("a", "b"),
        tap_modules={},
        default_tap="",
    )
    network.double()
    network.means.data, network.cov.data = means, cov  # as they were before float32
    return teacher, means, cov


def test_denoiser_is_the_posterior_mean_of_a_gaussian(gaussian):
    teacher, means, cov = gaussian
    x, sigma, _ = noisy(dtype=torch.float64, shape=(3, 2, 2))
    labels = torch.tensor([0, 1, 2])
    found = teacher.denoise(x, sigma, teacher.condition(labels)).flatten(1)
    for i in range(3):
        noise = sigma[i] ** 2 * torch.eye(12, dtype=torch.float64)
        gain = cov @ torch.linalg.inv(cov + noise)
        expected = means[labels[i]] + gain @ (x[i].flatten() - means[labels[i]])
        assert torch.allclose(found[i], expected, atol=1e-9)


def test_the_ode_is_walked_as_it_is_solved_for_a_gaussian(gaussian):
    """Along each eigenvector of the covariance, x - mean goes as sqrt(eigenvalue + sigma^2)."""
    teacher, means, cov = gaussian
    values, vectors = torch.linalg.eigh(cov)
    labels, high, low = torch.tensor([0, 1]), 5.0, 0.05
    x = 5 * noisy(2, torch.float64, (3, 2, 2))[0]
    scale = ((values.clamp_min(0) + low**2) / (values.clamp_min(0) + high**2)).sqrt()
    walk = vectors @ torch.diag(scale) @ vectors.T
    expected = means[:2] + (x.flatten(1) - means[:2]) @ walk
    denoise = teacher.denoiser(labels)
    down = decode(denoise, x, high, low, 100, solver="heun", to_sigma_min=True)
    error = (down.flatten(1) - expected).norm() / (x.flatten(1) - expected).norm()
    assert float(error) < 1e-4
    up = invert(denoise, expected.reshape(x.shape), high, low, 100, solver="heun")
    assert float((up - x).norm() / x.norm()) < 1e-3


def test_bfloat16_stays_near(sit_path, vae_path, teacher):
    coarse = load_teacher(f"sit:{sit_path}?vae={vae_path}", TeacherOptions(bf16=True))
    x, sigma, labels = noisy()
    expected, found = (t.denoise(x, sigma, labels) for t in (teacher, coarse))
    assert 1e-5 < float((found - expected).norm() / expected.norm()) < 0.05


# Features and their Jacobian.


def test_features_are_what_a_hook_sees_and_the_pass_stops_there(teacher, dit):
    assert teacher.taps() == {f"blocks.{i}": (WIDTH, 2) for i in range(DEPTH)}
    assert teacher.default_tap == "blocks.1"
    x, sigma, labels = noisy()
    cond, share = teacher.condition(labels), sigma / (1 + sigma)
    for i in range(DEPTH):
        seen, later = [], []
        handle = dit.transformer_blocks[i].register_forward_hook(lambda *a, s=seen: s.append(a[2]))
        run_dit(dit, x / (1 + sigma)[:, None, None, None], 1 - share, labels)
        handle.remove()
        after = [*teacher.network.blocks[i + 1 :], teacher.network.final_layer]
        handles = [m.register_forward_hook(lambda *_, s=later: s.append(1)) for m in after]
        found = teacher.features(x, sigma, cond, f"blocks.{i}")
        [handle.remove() for handle in handles]
        assert torch.allclose(found, as_map(seen[0], 4), atol=1e-5)
        assert found.shape == (3, WIDTH, 4, 4) and not later


def test_compiled_products_are_the_eager_ones(teacher):
    assert_compiled_as_eager(teacher)


def test_jacobian_against_finite_differences(teacher):
    x, sigma, labels = noisy(2)
    cond = teacher.condition(labels)

    def features(y):
        return teacher.features(y, sigma.to(y), cond, "blocks.1")

    assert probe_engine(features, x)[0] == "forward"
    teacher.network.double()
    try:
        x = x.double()
        v = torch.randn(2, x[0].numel(), 3, generator=torch.Generator().manual_seed(2)).double()
        found = Jacobian(features, x, "forward").matmat(v)
        for j in range(3):
            step = 1e-5 * v[:, :, j].reshape(x.shape)
            with torch.no_grad():
                slope = (features(x + step) - features(x - step)).flatten(1) / 2e-5
            assert torch.allclose(found[:, :, j], slope, atol=1e-7)
            assert float(slope.abs().max()) > 0.1
    finally:
        teacher.network.float()


# From photographs to canonical samples.


def test_clarid_end_to_end(teacher, photographs):
    data = load_data(DataConfig(data=str(photographs("ab")), image_size=16))
    images = data.images([0, 2])
    clarid = Clarid(teacher, k=4, steps=2)
    reps = clarid(images, torch.tensor([0, 1]))
    assert clarid.tap == "blocks.1"
    assert clarid.sigma_te == pytest.approx(5.64, abs=0.02)
    for rep in reps:
        assert rep.sample.shape == (1, *teacher.image_shape) == (1, 3, 16, 16)
        assert rep.latent.shape == (1, 4, 8, 8) and rep.features.shape == (1, WIDTH, 4, 4)
        assert torch.isfinite(rep.sample).all()
        assert float((rep.latent - rep.x_te).norm()) > 0.01 * float(rep.x_te.norm())


def test_identify_on_photographs(sit_path, vae_path, photographs, tmp_path, capsys):
    out = tmp_path / "out"
    spec = f"sit:{sit_path}?vae={vae_path}"
    options = "--image-size 16 --fraction 1 --steps 2 --k 4 --control-images 0"
    command = ["identify", "--teacher", spec, "--data", str(photographs("ab")), "--out", str(out)]
    assert main([*command, *options.split()]) == 0, capsys.readouterr().err
    canonical = CanonicalSet.load(out / "canon")
    assert canonical.tensors["label"].tolist() == [0, 0, 1, 1]
    assert canonical.tensors["sample"].shape == (4, 3, 16, 16)
    assert canonical.manifest["config"]["tap"] == "blocks.1"


def test_doctor(sit_path, vae_path, examined):
    answer = examined(f"sit:{sit_path}?vae={vae_path}", "--sigma", "2")
    assert answer["teacher"]["family"] == "sit"
    assert answer["noise"]["sigma_te"] == 2
    assert answer["differentiation"]["features"] == [WIDTH, 4, 4]
    assert answer["clarid"]["guidance"] == 3


def test_latents_are_those_of_the_vae(teacher, vae_path):
    vae = diffusers.AutoencoderKL.from_pretrained(vae_path).eval()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = vae.encode(images).latent_dist.mode() * 0.5
        assert torch.allclose(teacher.encode(images), expected, atol=1e-6)
        assert torch.allclose(
            teacher.decode(expected), vae.decode(expected / 0.5).sample, atol=1e-5
        )


# Files: what is read off them, and what is refused.


def test_training_checkpoints_give_their_ema(dit, sit_path, vae_path, teacher, tmp_path):
    weights = sit_weights(dit)
    other = {name: value + 1 for name, value in weights.items()}
    args = argparse.Namespace(model="SiT-S/2")
    torch.save({"model": other, "ema": weights, "opt": {}, "args": args}, tmp_path / "sit.pt")
    loaded = load_teacher(f"sit:{tmp_path}/sit.pt?vae={vae_path}&heads=2")
    x, sigma, labels = noisy()
    assert torch.equal(loaded.denoise(x, sigma, labels), teacher.denoise(x, sigma, labels))
    assert loaded.fingerprint == teacher.fingerprint


def test_the_fingerprint_holds_what_the_shapes_do_not_say(sit_path, vae_path, teacher):
    spec = f"{sit_path}?vae={vae_path}"
    prints = {
        load_sit(f"{spec}{more}", TeacherOptions()).fingerprint
        for more in ("", "&heads=4", "&data_at=0")
    }
    assert len(prints) == 3 and teacher.fingerprint in prints


def test_repas_checkpoints_are_told_by_their_projectors(dit, vae_path, tmp_path):
    weights = sit_weights(dit) | {"projectors.0.0.weight": torch.ones(3, WIDTH)}
    torch.save(weights, tmp_path / "repa.pt")
    place = f"{tmp_path}/repa.pt?vae={vae_path}&heads=2"
    assert load_sit(place, TeacherOptions()).parametrisation.data_at == 0
    assert load_sit(f"{place}&data_at=1", TeacherOptions()).parametrisation.data_at == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path_type": "Linear", "prediction": "velocity"}, None),  # SiT's
        (
            {"path_type": "linear", "prediction": "v", "num_classes": 7, "vae": "ema"},
            None,
        ),  # REPA's
        ({"path_type": "GVP", "prediction": "velocity"}, "path_type GVP: .* takes Linear or"),
        ({"path_type": "cosine", "prediction": "v"}, "path_type cosine: .* the straight path"),
        ({"path_type": "Linear", "prediction": "score"}, "prediction score: .* takes velocity or"),
    ],
)
def test_arguments_of_the_training_are_heeded(dit, vae_path, tmp_path, arguments, words):
    args = argparse.Namespace(**arguments)
    torch.save({"ema": sit_weights(dit), "args": args}, tmp_path / "sit.pt")
    place = f"sit:{tmp_path}/sit.pt?vae={vae_path}&heads=2"
    if words is None:
        assert load_teacher(place).num_classes == CLASSES
        return
    with pytest.raises(UserError, match=rf"sit\.pt was trained with {words}") as refused:
        load_teacher(place)
    assert "\n" not in str(refused.value)


def test_repas_older_checkpoints(dit, vae_path, tmp_path):
    """There the blocks behind the projectors' one count anew, as decoder_blocks."""

    def renamed(name):
        for i in (1, 2):
            name = name.replace(f"blocks.{i}.", f"decoder_blocks.{i - 1}.")
        return name

    older = {renamed(name): value for name, value in sit_weights(dit).items()}
    assert "decoder_blocks.1.mlp.fc1.weight" in older and "blocks.1.mlp.fc1.weight" not in older
    torch.save(older, tmp_path / "repa.pt")
    torch.save(sit_weights(dit), tmp_path / "sit.pt")
    spec = f"?vae={vae_path}&heads=2"
    found = load_sit(f"{tmp_path}/repa.pt{spec}", TeacherOptions())
    assert found.parametrisation.data_at == 0
    same = load_sit(f"{tmp_path}/sit.pt{spec}&data_at=0", TeacherOptions())
    assert found.fingerprint == same.fingerprint


def test_a_model_of_pixels(tmp_path):
    weights = sit_weights(diffusers_dit(channels=3, out_channels=3))
    torch.save(weights, tmp_path / "sit.pt")
    teacher = load_teacher(f"sit:{tmp_path}/sit.pt?heads=2")
    assert teacher.image_shape == teacher.latent_shape == (3, 8, 8)
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(teacher.decode(teacher.encode(images)), images)
    with pytest.raises(UserError, match="`offload=True` means nothing to a sit: teacher"):
        load_teacher(f"sit:{tmp_path}/sit.pt?heads=2", TeacherOptions(offload=True))


def test_class_names(sit_path, vae_path, tmp_path, teacher):
    assert teacher.class_names == ("0", "1", "2", "3", "4") and teacher.null_label == 5
    names = tmp_path / "names.txt"
    spec = f"sit:{sit_path}?vae={vae_path}"
    names.write_text("a\nb\nc\nd\ne\n")
    assert load_teacher(spec, TeacherOptions(class_names=names)).class_names == tuple("abcde")
    names.write_text("a\nb\nc\nd\ne\nf\n")
    assert not load_teacher(spec, TeacherOptions(class_names=names)).has_null
    with pytest.raises(UserError, match="6 class names are given and the checkpoint has 5 classes"):
        load_teacher(f"{spec}&num_classes=5", TeacherOptions(class_names=names))
    names.write_text("a\nb\nc\n")
    with pytest.raises(UserError, match="no class 'a': give the class's number, 0 to 4"):
        load_teacher(spec, TeacherOptions(class_names=names))


def test_a_few_classes_by_number(sit_path, vae_path, tmp_path, teacher):
    names = tmp_path / "names.txt"
    names.write_text("4\n0\n")
    few = load_teacher(f"sit:{sit_path}?vae={vae_path}", TeacherOptions(class_names=names))
    assert few.class_names == ("4", "0") and few.null_label == 2
    assert few.condition(torch.tensor([0, 1, 2])).tolist() == [4, 0, 5]
    assert few.fingerprint != teacher.fingerprint
    x, sigma, _ = noisy()
    ours, theirs = torch.tensor([0, 1, 2]), torch.tensor([4, 0, 5])
    expected = teacher.denoise(x, sigma, teacher.condition(theirs))
    assert torch.equal(few.denoise(x, sigma, few.condition(ours)), expected)


def test_without_a_null_class_there_is_no_guidance(sit_path, vae_path):
    teacher = load_teacher(f"sit:{sit_path}?vae={vae_path}&num_classes=6")
    assert teacher.num_classes == 6
    x, sigma, labels = noisy()
    teacher.denoiser(labels, 1.0)(x, sigma)
    with pytest.raises(
        UserError, match=r"has no null class.*its 6 label embeddings are taken.*`guidance=1`"
    ):
        teacher.denoiser(labels, 3.0)


XL = SiTShape(
    channels=4,
    grid=16,
    patch=2,
    width=1152,
    depth=28,
    heads=16,
    label_rows=1001,
    out_channels=8,
    hidden=4608,
)


def test_the_published_xl_is_read_off_its_shapes():
    """Names and shapes of SiT-XL-2-256x256.pt as its authors' code makes them."""
    w = 1152
    expected = {
        "pos_embed": (1, 256, w),
        "x_embedder.proj.weight": (w, 4, 2, 2),
        "x_embedder.proj.bias": (w,),
        "t_embedder.mlp.0.weight": (w, 256),
        "t_embedder.mlp.0.bias": (w,),
        "t_embedder.mlp.2.weight": (w, w),
        "t_embedder.mlp.2.bias": (w,),
        "y_embedder.embedding_table.weight": (1001, w),
        "final_layer.linear.weight": (32, w),
        "final_layer.linear.bias": (32,),
        "final_layer.adaLN_modulation.1.weight": (2 * w, w),
        "final_layer.adaLN_modulation.1.bias": (2 * w,),
    }
    linears = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    linears["adaLN_modulation.1"] = (6, 1)
    for i in range(28):
        for name, (rows, columns) in linears.items():
            expected[f"blocks.{i}.{name}.weight"] = (rows * w, columns * w)
            expected[f"blocks.{i}.{name}.bias"] = (rows * w,)
    with torch.device("meta"):
        state = SiT(XL).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == expected
    assert sit_shape(Checkpoint(Path("sit.pt"), state, {})) == XL
    small = replace(XL, width=384, depth=12, heads=6, hidden=1536, out_channels=4)
    with torch.device("meta"):
        state = SiT(small).state_dict()
    assert sit_shape(Checkpoint(Path("sit.pt"), state, {})) == small


def changed(**tensors):
    def change(weights):
        for name, value in tensors.items():
            weights[name.replace("__", ".")] = value

    return change


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        (lambda w: w.clear() or w.update({"conv.weight": torch.ones(1)}), "", "first is conv"),
        (lambda w: w.pop("blocks.1.mlp.fc2.bias"), "", r"it lacks blocks\.1\.mlp\.fc2\.bias"),
        (lambda w: w.pop("y_embedder.embedding_table.weight"), "", "it has no y_embedder"),
        (changed(blocks__0__attn__q_norm__weight=torch.ones(8)), "", r"a SiT has not, .*q_norm"),
        (changed(pos_embed=torch.ones(1, 15, 16)), "", "its 15 patches make no square"),
        (changed(final_layer__linear__weight=torch.ones(12, 16)), "", "12 outputs a patch"),
        (changed(pos_embed=torch.ones(1, 16, 8)), "", r"its pos_embed is \(1, 16, 8\)"),
        (lambda _: None, "&heads=3", "heads 3 does not divide the width 16"),
        (lambda _: None, "&data_at=2", "data_at 2 is no end of the time axis: give 0 or 1"),
        (lambda _: None, "&num_classes=9", "6 rows, and num_classes 9 is given"),
        (lambda _: None, "&schedule=vp", "unknown setting of .*'schedule'"),
    ],
)
def test_files_of_another_kind(vae_path, tmp_path, change, more, words):
    weights = sit_weights(diffusers_dit())
    change(weights)
    save_file(weights, tmp_path / "sit.safetensors", {"heads": "2"})
    with pytest.raises(UserError, match=words) as refused:
        load_teacher(f"sit:{tmp_path}/sit.safetensors?vae={vae_path}{more}")
    assert "\n" not in str(refused.value)


def test_heads_that_no_shape_tells(dit, tmp_path):
    torch.save(sit_weights(dit), tmp_path / "sit.pt")
    with pytest.raises(UserError, match=r"width 16, which no published one has .*\?heads=N"):
        load_teacher(f"sit:{tmp_path}/sit.pt")


def test_vaes_that_do_not_fit(sit_path, vae_path, tmp_path):
    def refused(place, words):
        with pytest.raises(UserError, match=words) as error:
            load_teacher(f"sit:{sit_path}{place}")
        assert "\n" not in str(error.value)

    refused("", r"works on 4 channels, the latents of an autoencoder.*\?vae=")
    refused(f"?vae={tmp_path}/none", "there is no folder")
    refused(f"?vae={tmp_path}", "there is no .*config.json: give a folder")
    config = json.loads((vae_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"_class_name": "VQModel"}))
    refused(f"?vae={tmp_path}", "is of class VQModel: give the folder of an AutoencoderKL")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "diffusion_pytorch_model.bin").touch()
    refused(f"?vae={tmp_path}", "only pickles, which clarep never opens")
    weights = (vae_path / "diffusion_pytorch_model.safetensors").read_bytes()
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused(f"?vae={tmp_path}", "cannot load class AutoencoderKL")


def test_a_vae_of_other_latents(vae_path, tmp_path):
    weights = sit_weights(diffusers_dit(channels=3, out_channels=3))
    torch.save(weights, tmp_path / "sit.pt")
    with pytest.raises(UserError, match="latents have 4 channels and the network takes 3"):
        load_teacher(f"sit:{tmp_path}/sit.pt?heads=2&vae={vae_path}")


def test_the_vae_may_be_a_part_of_a_pipeline(sit_path, vae_path, tmp_path, teacher):
    (tmp_path / "vae").symlink_to(vae_path)
    found = load_teacher(f"sit:{sit_path}?vae={tmp_path}")
    assert found.fingerprint == teacher.fingerprint
