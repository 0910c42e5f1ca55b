"""`edm:FILE` as a teacher: sampler, features, Jacobian, CLARID, command line, refusals."""

import json
import math
from pathlib import Path

import pytest
import torch

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.cli.main import main
from clarep.engine.tensors import save_tensors
from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.sampling.ode import decode, integrate, karras_sigmas
from clarep.teachers.families.edm import build_network, metadata_of, read_spec
from clarep.teachers.families.edm_net import EDMUNet
from clarep.teachers.options import TeacherOptions
from clarep.teachers.zoo import load_teacher
from compiled_law import assert_compiled_as_eager

TINY = dict(img_resolution=8, img_channels=3, label_dim=3, channel_mult=[1, 2], num_blocks=1)
DROPPED = dict(label_dropout=0.1)  # without it there is no null class
SONG = dict(model_type="SongUNet", model_channels=8, attn_resolutions=[4], decoder_type="standard")
TRAINED = dict(dropout=0.13, use_fp16=False, augment_dim=9)
KWARGS = {
    "ddpmpp": TINY
    | DROPPED
    | SONG
    | TRAINED
    | dict(embedding_type="positional", encoder_type="standard"),
    "ncsnpp": TINY
    | DROPPED
    | SONG
    | TRAINED
    | dict(embedding_type="fourier", encoder_type="residual", channel_mult_noise=2)
    | dict(resample_filter=[1, 3, 3, 1]),
    # 64 channels at the coarsest level: ADM has a head for every 64 channels
    "adm": TINY
    | DROPPED
    | dict(model_type="DhariwalUNet", model_channels=32, attn_resolutions=[4]),
}
NOWHERE = Path("nowhere.safetensors")


def random_weights(kwargs, class_name="EDMPrecond"):
    """Weights by the original's names, none of them zero, of an activation of about 1."""
    generator = torch.Generator().manual_seed(0)
    shape = read_spec(class_name, kwargs, NOWHERE).shape
    network = EDMUNet(shape)
    weights = {}
    for name, value in network.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("resample_filter"):
            noise = value
        elif value.ndim > 1:
            noise = noise / math.sqrt(value[0].numel())
        elif not name.endswith("freqs"):
            noise = value + 0.3 * noise if "norm" in name else 0.3 * noise
        weights[f"model.{name}"] = noise
    if kwargs.get("augment_dim"):
        weights["model.map_augment.weight"] = torch.randn(8, 9, generator=generator)
    return weights


def write(path, kwargs, class_name="EDMPrecond", change=lambda _: None):
    weights = random_weights(kwargs, class_name)
    change(weights)
    save_tensors(path, weights, metadata_of(class_name, kwargs))
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edm")
    return {name: write(folder / f"{name}.safetensors", kwargs) for name, kwargs in KWARGS.items()}


@pytest.fixture(params=list(KWARGS))
def name(request):
    return request.param


@pytest.fixture
def teacher(files, name):
    return load_teacher(f"edm:{files[name]}")


def noisy(batch=2, dtype=torch.float32):
    x = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return x, torch.linspace(0.3, 3.0, batch, dtype=dtype), torch.arange(batch) % 3


def test_the_denoiser_is_the_preconditioned_network(teacher):
    """Equation 7, written out around the raw network, which test_edm_net.py tests."""
    x, sigma, labels = noisy(3)
    s = sigma[:, None, None, None]
    classes = torch.eye(3)[labels]
    total = s**2 + 0.5**2
    raw = teacher.network(x / total.sqrt(), sigma.log() / 4, classes)
    expected = 0.5**2 / total * x + s * 0.5 / total.sqrt() * raw
    found = teacher.denoise(x, sigma, teacher.condition(labels))
    assert float(raw.std()) > 0.3
    assert torch.allclose(found, expected, atol=1e-5)


def test_sigma_from_t_runs_along_the_papers_schedule(files):
    teacher = load_teacher(f"edm:{files['ddpmpp']}")
    assert (teacher.sigma_min, teacher.sigma_max) == (0.002, 80.0)
    levels = karras_sigmas(8, 0.002, 80.0)
    for i in range(1, 8):
        assert teacher.sigma_from_t(1 - i / 8) == pytest.approx(float(levels[i]))
    with pytest.raises(UserError, match=r"t 1 is outside \(0, 1\)"):
        teacher.sigma_from_t(1.0)


def test_a_range_that_the_file_states_is_kept_inside_the_papers(tmp_path):
    narrow = KWARGS["ddpmpp"] | dict(sigma_min=0.01, sigma_max=100)
    teacher = load_teacher(f"edm:{write(tmp_path / 'narrow.safetensors', narrow)}")
    assert (teacher.sigma_min, teacher.sigma_max) == (0.01, 80.0)


def double(teacher):
    teacher.taps()  # found once, in float32
    teacher.network.double()
    return teacher


def algorithm_1(denoise, x, num_steps, *, rho=7.0, low=0.002, high=80.0):
    """The paper's deterministic sampler (Algorithm 1, t = sigma), line by line."""
    levels = []
    for i in range(num_steps):
        share = i / (num_steps - 1)
        levels.append((high ** (1 / rho) + share * (low ** (1 / rho) - high ** (1 / rho))) ** rho)
    levels.append(0.0)
    for i in range(num_steps):
        d = (x - denoise(x, levels[i])) / levels[i]
        ahead = x + (levels[i + 1] - levels[i]) * d
        if levels[i + 1] != 0:
            d_ahead = (ahead - denoise(ahead, levels[i + 1])) / levels[i + 1]
            ahead = x + (levels[i + 1] - levels[i]) * (d / 2 + d_ahead / 2)
        x = ahead
    return x


def test_heun_is_the_papers_sampler(teacher):
    teacher = double(teacher)
    x, _, labels = noisy(dtype=torch.float64)
    denoise = teacher.denoiser(labels)
    with torch.no_grad():
        expected = algorithm_1(
            lambda y, s: denoise(y, torch.full((2,), s, dtype=y.dtype)), 80 * x, 7
        )
        found = decode(denoise, 80 * x, 80.0, 0.002, 6, solver="heun")
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_a_network_of_zeros_is_the_gaussian_denoiser(tmp_path):
    """F = 0 is exact for data N(0, sigma_data^2), whose ODE has a closed form."""

    def silence(weights):
        for name in ("weight", "bias"):
            weights[f"model.dec.8x8_aux_conv.{name}"].zero_()

    path = write(tmp_path / "silent.safetensors", KWARGS["ddpmpp"], change=silence)
    teacher = double(load_teacher(f"edm:{path}"))
    x, _, labels = noisy(dtype=torch.float64)
    with torch.no_grad():
        found = integrate(teacher.denoiser(labels), 5 * x, karras_sigmas(40, 0.01, 5.0), "heun")
    expected = 5 * x * math.sqrt((0.5**2 + 0.01**2) / (0.5**2 + 5.0**2))
    assert torch.allclose(found, expected, rtol=4e-3)


def test_the_condition_is_one_hot_and_the_null_label_all_zeros(teacher):
    cond = teacher.condition(torch.tensor([2, 0, 3]))
    assert cond.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert (teacher.null_label, teacher.num_classes) == (3, 3)
    assert teacher.class_names == ("0", "1", "2")


def test_a_network_trained_without_dropping_labels_has_no_null_class(tmp_path):
    silent = {name: value for name, value in KWARGS["ddpmpp"].items() if name not in DROPPED}
    for i, kwargs in enumerate((KWARGS["adm"] | dict(label_dropout=0), silent)):
        teacher = load_teacher(f"edm:{write(tmp_path / f'{i}.safetensors', kwargs)}")
        assert not teacher.has_null
        assert teacher.condition(torch.tensor([2])).tolist() == [[0, 0, 1]]
        words = r"no null class.*trained without dropping labels.*`guidance=1`"
        for asked in (lambda one=teacher: one.condition(torch.tensor([3])), teacher.check_null):
            with pytest.raises(UserError, match=words):
                asked()
        with pytest.raises(UserError, match=words):
            Clarid(teacher, k=4, steps=2)
        images = torch.zeros(1, 3, 8, 8)
        assert len(Clarid(teacher, k=4, steps=2, guidance=1.0)(images, torch.tensor([2]))) == 1


def test_taps_bear_the_networks_own_names(teacher):
    names = "enc.8x8_block0 enc.4x4_down enc.4x4_block0 dec.4x4_in0 dec.4x4_in1 dec.4x4_block0 "
    names += "dec.4x4_block1 dec.8x8_up dec.8x8_block0 dec.8x8_block1"
    assert list(teacher.taps()) == names.split()
    assert teacher.default_tap == "dec.4x4_in1"
    for tap, (channels, stride) in teacher.taps().items():
        assert stride == (1 if "8x8" in tap else 2)
        module = teacher.network.get_submodule(tap)
        assert module.conv1.out_channels == channels


def test_features_are_what_a_hook_sees_and_the_pass_stops_there(teacher, files, name):
    untouched = load_teacher(f"edm:{files[name]}")
    x, sigma, labels = noisy()
    cond = teacher.condition(labels)
    order, seen, ran = list(teacher.taps()), {}, []
    for tap in order:
        untouched.network.get_submodule(tap).register_forward_hook(
            lambda _m, _i, out, tap=tap: seen.update({tap: out})
        )
        teacher.network.get_submodule(tap).register_forward_hook(
            lambda _m, _i, _o, tap=tap: ran.append(tap)
        )
    untouched.denoise(x, sigma, cond)
    for i, (tap, (channels, stride)) in enumerate(teacher.taps().items()):
        ran.clear()
        features = teacher.features(x, sigma, cond, tap)
        assert torch.allclose(features, seen[tap], atol=1e-6)
        assert features.shape == (2, channels, 8 // stride, 8 // stride)
        assert ran == order[: i + 1]  # no later one


def test_compiled_products_are_the_eager_ones(teacher):
    assert_compiled_as_eager(teacher)


def test_the_jacobian_is_that_of_finite_differences(teacher):
    teacher = double(teacher)
    x, sigma, labels = noisy(dtype=torch.float64)
    cond = teacher.condition(labels)

    def features(y):
        return teacher.features(y, sigma, cond, teacher.default_tap)

    engine, findings = probe_engine(features, x)
    assert engine == "forward", findings
    V = torch.randn(2, 192, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = Jacobian(features, x).matmat(V)
    step = 1e-5
    for i in range(3):
        v = V[:, :, i].reshape(x.shape)
        with torch.no_grad():
            rise = (features(x + step * v) - features(x - step * v)) / (2 * step)
        assert torch.allclose(found[:, :, i], rise.flatten(1), rtol=1e-5, atol=1e-7)
    assert float(found.abs().mean()) > 1e-3


def test_float32_takes_forward_mode_too(teacher):
    x, sigma, labels = noisy()
    cond = teacher.condition(labels)
    engine, findings = probe_engine(
        lambda y: teacher.features(y, sigma, cond, teacher.default_tap), x
    )
    assert engine == "forward", findings


def test_clarid_from_images_to_canonical_samples(teacher):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    found = Clarid(teacher, k=4, steps=2)(images, torch.tensor([0, 2]))
    for clarep in found:
        assert clarep.sample.shape[1:] == teacher.image_shape == (3, 8, 8)
        assert clarep.tap == "dec.4x4_in1"
        assert torch.isfinite(clarep.sample).all()
        removed = clarep.x_te - clarep.latent
        assert 0 < float(removed.norm()) < float(clarep.x_te.norm())


def test_loading_spends_no_random_numbers_and_the_fingerprint_tells_weights_apart(files):
    before = torch.get_rng_state()
    prints = [load_teacher(f"edm:{files[name]}").fingerprint for name in (*files, "adm")]
    assert torch.equal(before, torch.get_rng_state())
    assert prints[2] == prints[3]
    assert len(set(prints)) == 3


def test_half_precision_weights_compute_in_float32(tmp_path):
    def halve(weights):
        weights.update({name: value.half() for name, value in weights.items()})

    teacher = load_teacher(f"edm:{write(tmp_path / 'h.safetensors', KWARGS['adm'], change=halve)}")
    assert {p.dtype for p in teacher.network.parameters()} == {torch.float32}


def test_identify_on_photographs(files, photographs, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("class0\nclass1\nclass2\n")
    arguments = ["identify", "--teacher", f"edm:{files['ddpmpp']}", "--data"]
    arguments += [str(photographs(["class0", "class1", "class2"]))]
    arguments += ["--image-size", "8", "--fraction", "0.5", "--steps", "2", "--k", "4"]
    arguments += ["--class-names", str(names), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0, capsys.readouterr().err
    canonical = CanonicalSet.load(tmp_path / "out" / "canon")
    assert len(canonical) == 3
    assert canonical.manifest["config"]["tap"] == "dec.4x4_in1"
    assert canonical.tensors["sample"].shape == (3, 3, 8, 8)
    assert "are not named as" not in capsys.readouterr().err


def test_doctor_without_a_null_class_and_with_one(files, tmp_path, examined):
    with_null = examined(f"edm:{files['adm']}")
    kwargs = KWARGS["adm"] | dict(label_dropout=0)
    without = examined(f"edm:{write(tmp_path / 'published.safetensors', kwargs)}")
    for answer, has_null, guidance in ((with_null, True, 3), (without, False, 1)):
        assert answer["teacher"]["family"] == "edm"
        assert answer["teacher"]["has_null"] is has_null
        assert answer["clarid"]["guidance"] == guidance
        assert answer["differentiation"]["tap"] == "dec.4x4_in1"


# ---- what is refused

REFUSED = {
    "iDDPM": ("iDDPMPrecond", {}, "unknown preconditioning 'iDDPMPrecond'"),
    "another model": ("EDMPrecond", dict(model_type="UViT"), "unknown model_type 'UViT'"),
    "skip encoder": ("EDMPrecond", dict(encoder_type="skip"), "has encoder_type skip: give"),
    "filter": ("EDMPrecond", dict(resample_filter=[1, 2, 1]), "has resample_filter [1, 2, 1]"),
    "no classes": ("EDMPrecond", dict(label_dim=0), "without classes (label_dim 0): give a cond"),
    "unknown argument": ("EDMPrecond", dict(depth=3), "has an argument 'depth', which clarep does"),
    "a baseline": ("VEPrecond", {}, "unknown preconditioning 'VEPrecond'"),
    "type": ("EDMPrecond", dict(num_blocks="4"), "num_blocks 4 is no whole number from 1 up"),
    "no list": ("EDMPrecond", dict(channel_mult=2), "channel_mult 2 is no list"),
    "sizes": ("EDMPrecond", dict(channel_mult=[1] * 5), "8 cannot be halved 4 times"),
    "too narrow": ("EDMPrecond", dict(model_channels=3), "describes no network that clarep"),
    "range": ("EDMPrecond", dict(sigma_min=2, sigma_max=1), "sigma_min 2 and sigma_max 1 are no"),
    "dropout": ("EDMPrecond", dict(label_dropout="0.1"), "label_dropout 0.1 is no number"),
    "sigma_data": ("EDMPrecond", dict(sigma_data=0), "sigma_data 0 is no finite number above 0"),
    "number": ("EDMPrecond", dict(sigma_data="1"), "sigma_data 1 is no number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_that_is_not_supported(case, tmp_path):
    class_name, changed, words = REFUSED[case]
    kwargs = KWARGS["ddpmpp"] | changed
    path = tmp_path / "file.safetensors"
    save_tensors(path, random_weights(KWARGS["ddpmpp"]), metadata_of(class_name, kwargs))
    with pytest.raises(UserError) as refused:
        load_teacher(f"edm:{path}")
    assert words in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_argument_that_lacks():
    without = {key: value for key, value in KWARGS["adm"].items() if key != "img_resolution"}
    with pytest.raises(UserError, match="img_resolution"):
        read_spec("EDMPrecond", without, NOWHERE)


FITTING = {
    "lacks": (lambda w: w.pop("model.enc.4x4_down.norm0.bias"), "lacks model.enc.4x4_down.norm0"),
    "surplus": (lambda w: w.update({"model.x": torch.zeros(1)}), "network has not, model.x first"),
    "unnamed": (
        lambda w: [w.update({k.removeprefix("model."): w.pop(k)}) for k in list(w)],
        "it lacks model.",
    ),
    "shape": (
        lambda w: w.update({"model.map_layer0.bias": torch.zeros(5)}),
        "its model.map_layer0.bias is (5,), where (32,) is asked for",
    ),
}


@pytest.mark.parametrize("bad", [torch.zeros(32, dtype=torch.int64), torch.full((32,), torch.nan)])
def test_weights_that_cannot_be_computed_with(bad, tmp_path):
    def change(weights):
        weights["model.map_layer0.bias"] = bad

    path = write(tmp_path / "file.safetensors", KWARGS["ddpmpp"], change=change)
    with pytest.raises(UserError, match=r"map_layer0\.bias of .*(int64|hold NaN)"):
        load_teacher(f"edm:{path}")


@pytest.mark.parametrize("case", FITTING)
def test_weights_that_do_not_fit(case, tmp_path):
    change, words = FITTING[case]
    path = write(tmp_path / "file.safetensors", KWARGS["ddpmpp"], change=change)
    with pytest.raises(UserError, match="give a whole checkpoint of one") as refused:
        load_teacher(f"edm:{path}")
    assert words in str(refused.value)


def test_a_file_that_is_none(files, tmp_path):
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(files["adm"].read_bytes()[:-1000])
    plain = tmp_path / "plain.safetensors"
    save_tensors(plain, {"model.x": torch.zeros(1)})
    broken = tmp_path / "broken.safetensors"
    save_tensors(broken, {"x": torch.zeros(1)}, {"edm": json.dumps({"init_kwargs": {}})})
    pickled = tmp_path / "edm-cifar10-32x32-cond-vp.pkl"
    pickled.write_bytes(b"\x80\x04}.")
    for path, words in {
        truncated: f"cannot read weights from {truncated}",
        plain: f"{plain} holds no EDM network (no 'edm' with",
        broken: "with class_name and init_kwargs in its metadata",
        pickled: f"make a .safetensors of it with clarep convert edm {pickled}",
        tmp_path: f"{tmp_path} is a folder: give the weights' file in it",
        tmp_path / "none.safetensors": "there is no file",
    }.items():
        with pytest.raises(UserError) as refused:
            load_teacher(f"edm:{path}")
        assert words in str(refused.value)


def test_class_names_and_options(files, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    with pytest.raises(UserError, match="no class 'cat': give the class's number, 0 to 2"):
        load_teacher(f"edm:{files['adm']}", TeacherOptions(class_names=names))
    names.write_text("a\nb\nc\nd\n")
    with pytest.raises(UserError, match="4 class names are given and the checkpoint has 3 classes"):
        load_teacher(f"edm:{files['adm']}", TeacherOptions(class_names=names))
    names.write_text("2\n1\n")
    few = load_teacher(f"edm:{files['adm']}", TeacherOptions(class_names=names))
    assert few.class_names == ("2", "1") and few.null_label == 2
    cond = few.condition(torch.tensor([0, 1, 2]))
    assert cond.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
    names.write_text("cat\ndog\nowl\n")
    teacher = load_teacher(f"edm:{files['adm']}", TeacherOptions(class_names=names))
    assert teacher.class_names == ("cat", "dog", "owl")
    with pytest.raises(UserError, match=r"`template=a \{name\}` means nothing to a edm: teacher"):
        load_teacher(f"edm:{files['adm']}", TeacherOptions(template="a {name}"))


def test_bf16_denoises_coarsely_and_leaves_features_alone(files):
    exact = load_teacher(f"edm:{files['adm']}")
    coarse = load_teacher(f"edm:{files['adm']}", TeacherOptions(bf16=True))
    x, sigma, labels = noisy()
    cond = exact.condition(labels)
    near, same = coarse.denoise(x, sigma, cond), exact.denoise(x, sigma, cond)
    assert near.dtype == torch.float32
    assert 1e-5 < float((near - same).abs().max()) < 0.1
    tap = exact.default_tap
    assert torch.equal(coarse.features(x, sigma, cond, tap), exact.features(x, sigma, cond, tap))


def test_build_network_ignores_the_augmentation_labels():
    weights = random_weights(KWARGS["ddpmpp"])
    spec = read_spec("EDMPrecond", KWARGS["ddpmpp"], NOWHERE)
    assert "model.map_augment.weight" in weights
    assert "map_augment" not in dict(build_network(spec, weights, NOWHERE).named_modules())
