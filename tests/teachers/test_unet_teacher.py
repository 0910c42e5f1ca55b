import hashlib
import json

import pytest
import torch
from torch import nn

from clarep.errors import UserError
from clarep.teachers import zoo
from clarep.teachers.options import TeacherOptions
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import UNetTeacher, load_unet, save_unet
from clarep.teachers.zoo import load_teacher

CONFIG = UNetConfig(image_size=16, num_classes=3, widths=(8, 16), embed_dim=16)
NAMES = ("cat", "dog", "owl")


def random_net(config=CONFIG):
    """A network none of whose weights is zero, as its freshly made layers partly are."""
    net = UNet(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


@pytest.fixture
def teacher():
    return UNetTeacher(random_net(), NAMES, 0.01, 80.0)


def noisy(batch=2):
    x = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return x, torch.linspace(0.3, 3.0, batch), torch.arange(batch) % 3


def tapped_module(net, tap):
    if tap == "mid":
        return net.mid
    level = int(tap.removeprefix("down").removeprefix("up"))
    return net.down_blocks[level] if tap.startswith("down") else net.up_blocks[-1 - level]


class ConvCounter:
    """Counts the convolutions of a network that are run while it is open."""

    def __init__(self, net):
        self.net, self.count = net, 0

    def __enter__(self):
        def add(*_):
            self.count += 1

        convs = [module for module in self.net.modules() if isinstance(module, nn.Conv2d)]
        self.handles = [module.register_forward_hook(add) for module in convs]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


TAPS = ["down0", "down1", "mid", "up1", "up0"]


def test_taps_are_in_the_order_of_the_pass(teacher):
    assert list(teacher.taps()) == TAPS


@pytest.mark.parametrize("blocks", [1, 2])
def test_features_are_what_a_hook_sees_and_the_pass_stops_there(blocks):
    config = UNetConfig(
        image_size=16,
        num_classes=3,
        widths=(8, 16),
        embed_dim=16,
        encoder_blocks=blocks,
        decoder_blocks=blocks,
    )
    teacher = UNetTeacher(random_net(config), NAMES, 0.01, 80.0)
    x, sigma, labels = noisy()
    counts = []
    for tap, (channels, stride) in teacher.taps().items():
        seen = {}
        with ConvCounter(teacher.net) as whole:

            def keep(_module, _inputs, output, seen=seen, whole=whole):
                seen["features"], seen["convs"] = output, whole.count

            handle = tapped_module(teacher.net, tap).register_forward_hook(keep)
            teacher.denoise(x, sigma, labels)
            handle.remove()
        with ConvCounter(teacher.net) as stopped:
            features = teacher.features(x, sigma, labels, tap)
        assert torch.equal(features, seen["features"])
        assert features.shape == (2, channels, 16 // stride, 16 // stride)
        assert stopped.count == seen["convs"] < whole.count
        counts.append(stopped.count)
    assert counts == sorted(set(counts))  # each tap lies deeper than the one before


def test_features_depend_on_input_level_and_label(teacher):
    x, sigma, labels = noisy()
    base = teacher.features(x, sigma, labels, "mid")
    assert not torch.allclose(base, teacher.features(-x, sigma, labels, "mid"))
    assert not torch.allclose(base, teacher.features(x, 2 * sigma, labels, "mid"))
    assert not torch.allclose(base, teacher.features(x, sigma, labels + 1, "mid"))


def test_preconditioning_keeps_a_nearly_clean_image(teacher):
    x, _, labels = noisy()
    kept = teacher.denoise(x, torch.full((2,), 1e-4), labels)
    assert float((kept - x).abs().max()) < 1e-2
    changed = teacher.denoise(x, torch.full((2,), 5.0), labels)
    assert float((changed - x).abs().max()) > 0.5


def test_guidance_is_the_weighted_difference(teacher):
    x, sigma, labels = noisy(3)
    given = teacher.denoise(x, sigma, teacher.condition(labels))
    null = teacher.denoise(x, sigma, teacher.condition(torch.full_like(labels, 3)))
    assert not torch.allclose(given, null, atol=1e-3)
    for guidance in (0.0, 1.0, 3.0):
        guided = teacher.denoiser(labels, guidance)(x, sigma)
        assert torch.allclose(guided, null + guidance * (given - null), atol=1e-5)


def test_a_guidance_of_one_costs_one_evaluation(teacher):
    x, sigma, labels = noisy()
    sizes = []
    handle = teacher.net.stem.register_forward_hook(lambda _m, _i, out: sizes.append(len(out)))
    teacher.denoiser(labels)(x, sigma)
    teacher.denoiser(labels, 2.0)(x, sigma)
    handle.remove()
    assert sizes == [2, 4]


def test_sigma_from_t_is_the_cosine_schedule(teacher):
    assert teacher.sigma_from_t(0.5) == pytest.approx(1.0)
    for t in (0.0, 1.0, -0.2, float("nan")):
        with pytest.raises(UserError, match=r"outside \(0, 1\)"):
            teacher.sigma_from_t(t)
    for t in (0.001, 0.9999):
        with pytest.raises(UserError, match="outside the teacher's range"):
            teacher.sigma_from_t(t)


@pytest.mark.parametrize("sigma", [0.01, 0.0, -1.0, 80.1, float("nan")])
def test_sigma_outside_the_range(teacher, sigma):
    with pytest.raises(UserError, match=r"outside the teacher's range \(0\.01, 80\]"):
        teacher.check_sigma(sigma)


def test_sigma_inside_the_range(teacher):
    teacher.check_sigma(0.0101)
    teacher.check_sigma(80.0)


@pytest.mark.parametrize("label", [3, -1])
def test_labels_outside_the_classes(teacher, label):
    teacher.check_labels(torch.tensor([0, 2]))
    with pytest.raises(UserError, match=f"label {label} is outside the teacher's classes 0 to 2"):
        teacher.check_labels(torch.tensor([0, label]))


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 16, 16)])
def test_images_of_another_shape(teacher, shape):
    teacher.accept_images(torch.zeros(2, 3, 16, 16))
    with pytest.raises(UserError, match="`image_size=16`"):
        teacher.accept_images(torch.zeros(shape))


def test_unknown_tap_names_the_nearest(teacher):
    x, sigma, labels = noisy()
    with pytest.raises(UserError, match="unknown tap 'down7': did you mean down"):
        teacher.features(x, sigma, labels, "down7")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_unet(random_net(), path, NAMES, 0.01, 80.0)
    return path


def test_save_and_load(teacher, saved):
    loaded = load_unet(saved)
    weights = teacher.net.state_dict()
    for name, value in loaded.net.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[name].half().float())
    assert loaded.net.config == CONFIG
    assert (loaded.class_names, loaded.sigma_min, loaded.sigma_max) == (NAMES, 0.01, 80.0)
    assert loaded.image_shape == (3, 16, 16) and loaded.null_label == 3
    assert loaded.fingerprint == hashlib.sha256(saved.read_bytes()).hexdigest()
    x, sigma, labels = noisy()
    difference = loaded.denoise(x, sigma, labels) - teacher.denoise(x, sigma, labels)
    assert float(difference.abs().max()) < 0.02
    assert not any(p.requires_grad for p in loaded.net.parameters())


@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.999])
def test_truncated_weights(saved, kept):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match=r"cannot read a teacher from .*teacher\.safetensors"):
        load_unet(saved)


def test_weights_of_something_else(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no clarep teacher"):
        load_teacher(str(tmp_path / "other.safetensors"))


def rewrite(path, change):
    """Write a teacher's file again with its metadata and weights changed in place."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, framework="pt") as archive:
        metadata = archive.metadata()
        del metadata["data_sha256"]  # as if somebody else had written it
        weights = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    change(metadata, weights)
    save_file(weights, path, metadata)


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata, _: metadata.pop("sigma_range"),
        lambda metadata, _: metadata.pop("class_names"),
        lambda metadata, _: metadata.update(sigma_range="[0.01]"),
        lambda metadata, _: metadata.update(class_names='["cat", "dog"]'),
        lambda metadata, _: metadata.update(unet="{}"),
        lambda metadata, _: metadata.update(unet="[1]"),
        lambda metadata, _: metadata.update(unet="no JSON"),
        lambda metadata, _: metadata.update(unet='{"widths": [8, 16], "depth": 4}'),
        lambda metadata, _: metadata.update(unet='{"widths": []}'),
        lambda metadata, _: metadata.update(unet='{"widths": [8, 12]}'),
        lambda _, weights: weights.pop("stem.bias"),
        lambda _, weights: weights.update({"tail": torch.zeros(2)}),
        lambda _, weights: weights.update({"stem.bias": torch.zeros(9)}),
    ],
)
def test_a_teacher_of_another_kind(saved, change):
    rewrite(saved, change)
    with pytest.raises(UserError, match=r"holds no teacher that this clarep can build \("):
        load_unet(saved)


def test_unsaved_teachers_are_told_apart_by_their_weights():
    first, same, other = (random_net() for _ in range(3))
    with torch.no_grad():
        other.out.bias[0] += 1e-6  # less than fp16 sees
    prints = [UNetTeacher(net, NAMES, 0.01, 80.0).fingerprint for net in (first, same, other)]
    assert prints[0] == prints[1] != prints[2]
    assert all(len(bytes.fromhex(fingerprint)) == 32 for fingerprint in prints)


def test_load_by_file_or_folder(saved):
    by_file, by_folder = load_teacher(str(saved)), load_teacher(saved.parent)
    assert by_file.fingerprint == by_folder.fingerprint
    assert by_file.class_names == NAMES


def test_names_and_paths_without_a_teacher(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="unknown teacher 'backdrop': did you mean backdrops"):
        load_teacher("backdrop")
    with pytest.raises(UserError, match=r"holds no teacher\.safetensors"):
        load_teacher(str(tmp_path))
    with pytest.raises(UserError, match="there is no teacher at"):
        load_teacher(str(tmp_path / "nowhere"))
    monkeypatch.setitem(zoo.BUNDLED, "gone", "gone.safetensors")
    with pytest.raises(UserError, match="'gone' are not installed"):
        load_teacher("gone")


@pytest.mark.parametrize(
    ("name", "kind", "mend"),
    [
        ("model_index.json", "DiTPipeline", "; give dit:{}"),
        ("model_index.json", "StableDiffusionPipeline", "; give sd:{}"),
        ("model_index.json", ["pipeline", "ClarepPipeline"], "; give diffusers:{}"),
        ("model_index.json", "FluxPipeline", ": give a pipeline or model of another class"),
        ("config.json", "UNet2DModel", "; give diffusers:{}"),
    ],
)
def test_a_folder_of_diffusers_is_told_its_family(tmp_path, name, kind, mend):
    (tmp_path / name).write_text(json.dumps({"_class_name": kind}))
    label = kind if isinstance(kind, str) else kind[-1]
    for family in ("", "edm:", "sit:", "uvit:"):
        with pytest.raises(UserError, match=f"holds a {label} of diffusers") as caught:
            load_teacher(f"{family}{tmp_path}")
        assert mend.format(tmp_path) in str(caught.value)


def test_a_pipeline_of_another_family(tmp_path):
    pytest.importorskip("diffusers")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    for family, kind, other in (
        ("dit", "StableDiffusionPipeline", "sd"),
        ("sd", "DiTPipeline", "dit"),
    ):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
        options = TeacherOptions(class_names=tmp_path / "names.txt")
        with pytest.raises(UserError, match=f"class {kind}: .*; give {other}:{tmp_path}"):
            load_teacher(f"{family}:{tmp_path}", options)


def test_a_config_of_something_else_is_passed_over(tmp_path):
    for content in ('{"steps": 3}', "[1]", "{"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"holds no teacher\.safetensors"):
            load_teacher(str(tmp_path))


def test_a_checkpoint_and_an_empty_file(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match=f"training's checkpoint.*: give its folder {tmp_path}"):
        load_teacher(str(tmp_path / "checkpoint.pt"))
    (tmp_path / "w.safetensors").touch()
    for family in ("", "edm:", "sit:"):
        with pytest.raises(
            UserError, match=r"cannot read .*\(it is empty, zero bytes\): give a wh"
        ):
            load_teacher(f"{family}{tmp_path / 'w.safetensors'}")


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (torch.full((8,), float("nan")), "hold NaN"),
        (torch.ones(8, dtype=torch.int32), "quantised"),
        (torch.full((8,), float("inf"), dtype=torch.float16), "hold NaN or infinity"),
    ],
)
def test_weights_that_cannot_be_computed_with(saved, bad, word):
    rewrite(saved, lambda _, weights: weights.update({"stem.bias": bad}))
    with pytest.raises(UserError, match=rf"stem\.bias of .*{word}"):
        load_unet(saved)


@pytest.mark.parametrize("name", ["teacher", "mine"])
def test_a_file_that_its_card_does_not_tell_of(saved, name):
    card = saved.with_name("card.json" if name == "teacher" else "mine.json")
    path = saved.rename(saved.with_name(f"{name}.safetensors"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    card.write_text(json.dumps({"weights": {"sha256": sha256}}))
    load_unet(path)
    save_unet(random_net(), path, NAMES, 0.02, 80.0)  # whole, and another
    with pytest.raises(UserError, match=rf"is not the file that {card.name} was written for"):
        load_unet(path)
    card.write_text("[" * 9_000)
    with pytest.raises(UserError, match=rf"cannot read .*{card.name}"):
        load_unet(path)
    card.write_text('{"weights": null}')  # a card of something else says nothing
    load_unet(path)
