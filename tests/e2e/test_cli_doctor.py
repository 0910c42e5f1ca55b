"""`clarep doctor`: what it says of a teacher is true, and every failure is one sentence."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarep.clarid.clarid import Clarid
from clarep.clarid.round_trip import RoundTrip
from clarep.cli.main import main
from clarep.data.backdrops import load_backdrops
from clarep.data.garments import CLASS_NAMES
from clarep.data.labelled import to_unit_range
from clarep.errors import UserError
from clarep.sampling.ode import psnr
from clarep.select.teacher_check import example_image
from clarep.teachers.flash import AttentionCall
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import UNetTeacher, save_unet
from clarep.teachers.zoo import load_teacher


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def unet_path(tmp_path_factory) -> Path:
    """An untrained U-Net of garments with 128 features at mid, so that Jacobians are quick."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        net = UNet(UNetConfig(patch=8, widths=(8,), embed_dim=16))
        for parameter in net.parameters():
            if not parameter.any():  # freshly made, these hide the layers before them
                parameter.normal_(std=0.1)
    path = tmp_path_factory.mktemp("small") / "teacher.safetensors"
    save_unet(net, path, CLASS_NAMES, 0.01, 80.0)
    return path


@pytest.fixture
def grey() -> str:
    """A teacher of grey images of 16 pixels, of three classes."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(image_channels=1, image_size=16, num_classes=3, widths=(8,), embed_dim=8))
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    save_unet(net, Path("grey.safetensors"), ("a", "b", "c"), 0.02, 50.0)
    return "grey.safetensors"


def ask(capsys, text: str):
    """The cost is taken from one image, unless it is asked for more."""
    capsys.readouterr()
    more = [] if "--for-images" in text else ["--for-images", "1"]
    assert main(["doctor", *text.split(), *more]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def refused(capsys, text: str, words: str) -> None:
    capsys.readouterr()
    assert main(["doctor", *text.split()]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("clarep: ") and printed.err.count("\n") == 1
    assert words in printed.err


def test_json_holds_what_is_true(capsys, unet_path):
    teacher = load_teacher(str(unet_path))
    command = f"--teacher {unet_path} --t 0.7 --k 6 --for-images 40 --json"
    answer = json.loads(ask(capsys, command))
    tried = ["differentiation", "round_trip", "recognition", "basis", "clarid"]
    assert list(answer) == ["teacher", "taps", "noise", *tried]
    about = answer["teacher"]
    assert about["parameters"] == {"net": sum(p.numel() for p in teacher.net.parameters())}
    assert about["fingerprint"] == teacher.fingerprint
    assert (about["image_shape"], about["latent_shape"]) == ([3, 32, 32], [3, 32, 32])
    assert about["class_names"] == list(CLASS_NAMES)
    assert (about["family"], about["device"]) == ("clarep's own U-Net", "cpu")
    assert about["null_label"] == 10 and about["has_null"] is True
    taps = answer["taps"]
    assert taps["default"] == "mid"
    listed = {name: (tap["channels"], tap["stride"]) for name, tap in taps["all"].items()}
    assert listed == teacher.taps()
    assert answer["noise"]["sigma_te"] == teacher.sigma_from_t(0.7)
    found = answer["differentiation"]
    assert (found["tap"], found["engine"], found["features"]) == ("mid", "forward", [8, 4, 4])
    assert list(found["findings"]) == ["forward"]
    assert float(found["findings"]["forward"].removeprefix("adjoint error ")) < 1e-4
    assert answer["basis"]["k"] == 6
    assert answer["basis"]["products"] >= 2 * 6
    assert answer["basis"]["seconds"] > 0
    assert answer["basis"]["process_peak_memory_mb"] > 50
    assert answer["basis"]["gpu_memory_mb"] is None
    cost = answer["clarid"]
    assert list(cost["seconds_an_image"]) == [
        "invert",
        "round trip",
        "directions",
        "features",
        "sample",
    ]
    assert cost["images"] == 40
    assert cost["seconds"] == pytest.approx(40 * sum(cost["seconds_an_image"].values()))
    assert cost["at_once"] == 25
    assert cost["guidance"] == 3


def test_the_round_trip_is_clarids(capsys, unet_path):
    answer = json.loads(ask(capsys, f"--teacher {unet_path} --k 4 --json"))["round_trip"]
    data = load_backdrops("test")
    place = list(data.sources).index(answer["image"])
    images, labels = data.images([place]), torch.from_numpy(data.labels[[place]])
    assert answer["class"] == CLASS_NAMES[int(labels)]
    _, quality = Clarid(load_teacher(str(unet_path))).invert(images, labels)
    assert answer["psnr"] == pytest.approx(float(quality[0]), abs=1e-3)
    assert answer["autoencoder_psnr"] is None  # a pixel teacher


def test_a_round_trip_is_told_beside_what_the_autoencoder_alone_gives(
    capsys, unet_path, monkeypatch
):
    """A lossy code of the images: the walk that loses little more than it is not blamed."""
    coarse = lambda self, images: images.round(decimals=0)  # noqa: E731
    monkeypatch.setattr(UNetTeacher, "encode", coarse)
    found = json.loads(ask(capsys, f"--teacher {unet_path} --k 4 --json"))["round_trip"]
    data = load_backdrops("test")
    image = to_unit_range(data.images([list(data.sources).index(found["image"])]))
    assert found["autoencoder_psnr"] == pytest.approx(float(psnr(image.round(), image)), abs=1e-3)
    for trip, poor in ((8.9, True), (9.1, False)):
        monkeypatch.setattr(
            "clarep.select.teacher_findings.RoundTrip", lambda *_, trip=trip: RoundTrip(trip, 10.0)
        )
        printed = ask(capsys, f"--teacher {unet_path} --k 4")
        assert f"round trip   {trip} dB (the autoencoder alone 10.0 dB)" in printed
        assert ("the teacher does not know such an image" in printed) == poor


def test_a_teacher_that_has_learnt_nothing_knows_no_class(capsys, unet_path, garments_path):
    found = json.loads(ask(capsys, f"--teacher {unet_path} --k 4 --json"))["recognition"]
    assert found["verdict"] == "near chance" and found["chance"] == 0.1
    assert found["interval"][0] <= 0.1 < found["interval"][1]
    assert found["denoiser_evaluations"] == 30 * 10 * len(found["sigmas"])
    printed = ask(capsys, f"--teacher {unet_path} --k 4 --data {garments_path} --split test")
    assert "of 20 images are denoised best with their own label among 10" in printed
    assert "near chance: what CLARID finds says little of these classes" in printed


def test_what_no_labelled_images_are_given_of_is_not_tried(capsys, grey):
    assert "recognition  not tried: give images of its classes with --data\n" in ask(
        capsys, f"--teacher {grey} --k 3"
    )


@pytest.mark.parametrize("overhead", [0.0, 1.0])
def test_the_cost_is_that_of_a_batch(capsys, unet_path, monkeypatch, overhead):
    """By a clock that goes on for every pass through the network and every image in it."""
    now = [0.0]
    plain = UNetTeacher.denoise

    def denoise(self, x, *rest):
        now[0] += 0.01 * (overhead + 0.1 * len(x))
        return plain(self, x, *rest)

    monkeypatch.setattr(UNetTeacher, "denoise", denoise)
    monkeypatch.setattr("clarep.engine.cost.time.perf_counter", lambda: now[0])
    cost = json.loads(ask(capsys, f"--teacher {unet_path} --k 4 --for-images 50 --json"))["clarid"]
    clarid, data = Clarid(load_teacher(str(unet_path)), k=4), load_backdrops("test")
    for part in np.arange(50).reshape(2, 25):
        clarid(data.images(part), torch.from_numpy(data.labels[part]))
    assert cost["at_once"] == 25
    assert cost["seconds"] == pytest.approx(sum(clarid.ledger.seconds.values()))


def test_a_slow_teacher_is_judged_by_fewer_images(capsys, unet_path, monkeypatch):
    now = [0.0]
    plain = UNetTeacher.denoise

    def denoise(self, x, *rest):
        now[0] += 0.2 * len(x)
        return plain(self, x, *rest)

    monkeypatch.setattr(UNetTeacher, "denoise", denoise)
    monkeypatch.setattr("clarep.engine.cost.time.perf_counter", lambda: now[0])
    command = f"--teacher {unet_path} --k 4 --for-images 500 --json"
    cost = json.loads(ask(capsys, command))["clarid"]
    each = sum(cost["seconds_an_image"].values())
    assert cost["at_once"] == int(60 / each) < 25
    assert "one taken alone" in ask(capsys, f"--teacher {unet_path} --k 4 --for-images 1")


def test_lines_for_people(capsys, grey, monkeypatch):
    monkeypatch.setattr("clarep.clarid.round_trip.POOR_PSNR", 500.0)
    monkeypatch.setattr("clarep.select.teacher_findings.POOR_PSNR", 500.0)
    printed = ask(capsys, f"--teacher {grey} --k 3 --for-images 500")
    for line in (
        "images       1 x 16 x 16, channels x height x width",
        "latents      1 x 16 x 16, dimension 256",
        "classes      3: a, b, c; label 3 is no class",
        "sigma        0.02 to 50; t = 0.85 is 4.165",
        "J V by       forward, the first way that passes the adjoint test",
        "             forward: adjoint error ",
        "round trip   ",
        "one basis    k = 3: ",
        "guidance     3\n",
        "500 images   about ",
    ):
        assert line in printed, line
    assert "mid    8 channels, stride 2, the default" in printed
    assert "scikit-image's cat as 'a'" in printed
    assert "extrapolated from 25 taken at once (--batch-size)" in printed
    assert "below 500 dB: the teacher does not know such an image" in printed


def test_a_teacher_without_a_null_class(capsys, grey, monkeypatch):
    monkeypatch.setattr(UNetTeacher, "has_null", False)
    printed = ask(capsys, f"--teacher {grey} --k 3")
    assert "classes      3: a, b, c; no null class\n" in printed
    assert "guidance     1, as there is no null class\n" in printed
    answer = json.loads(ask(capsys, f"--teacher {grey} --k 3 --json"))
    assert answer["teacher"]["has_null"] is False and answer["clarid"]["guidance"] == 1
    refused(capsys, f"--teacher {grey} --k 3 --guidance 2 --json", "this teacher has no null class")


def test_guidance_and_a_noise_level(capsys, grey):
    command = f"--teacher {grey} --k 3 --guidance 1.5 --sigma 2"
    assert "0.02 to 50; given is 2\n" in ask(capsys, command)
    answer = json.loads(ask(capsys, f"{command} --json"))
    assert answer["noise"]["sigma_te"] == 2 and answer["noise"]["t"] is None
    assert answer["clarid"]["guidance"] == 1.5


def test_which_kernels_attention_ran_by(capsys, grey, monkeypatch):
    """No GPU is here: what the teacher counted is made up, and so is the option's check."""
    calls = [
        {"kernel": "flash", "channels": 64, "tokens": 256, "kind": "self", "calls": 12},
        {"kernel": "math", "channels": 40, "tokens": 256, "kind": "cross", "calls": 8},
        {"kernel": "math", "channels": 160, "tokens": 64, "kind": "self", "calls": 4},
    ]
    loaded = load_teacher(grey)
    loaded.attention_calls = Counter(
        {
            AttentionCall(**{n: v for n, v in call.items() if n != "calls"}): call["calls"]
            for call in calls
        }
    )
    monkeypatch.setattr("clarep.select.teacher_findings.ForeignTeacher", UNetTeacher)
    monkeypatch.setattr("clarep.select.teacher_check.load_teacher", lambda *_: loaded)
    assert "attention    " not in ask(capsys, f"--teacher {grey} --k 3")
    command = f"--teacher {grey} --k 3 --attention flash"
    line = "by flash self 256 x 64 (12); by math cross 256 x 40 (8), self 64 x 160 (4)\n"
    assert line in ask(capsys, command)
    assert json.loads(ask(capsys, f"{command} --json"))["attention"] == {"calls": calls}


def test_an_image_of_ones_own(capsys, grey):
    Image.new("RGB", (40, 30), (255, 0, 0)).save("red.png")
    answer = json.loads(ask(capsys, f"--teacher {grey} --k 3 --image red.png --json"))
    assert answer["round_trip"]["image"] == "red.png"
    images, labels, _ = example_image(load_teacher(grey), Path("red.png"))
    assert images.shape == (1, 1, 16, 16)
    assert torch.allclose(images, torch.full((1, 1, 16, 16), 1 / 3), atol=1e-6)
    assert labels.tolist() == [0]


def test_images_that_are_not_square(unet_path):
    teacher = load_teacher(str(unet_path))
    teacher.image_shape = (3, 24, 16)
    Image.new("RGB", (64, 64), (0, 255, 0)).save("green.png")
    images, _, _ = example_image(teacher, Path("green.png"))
    assert images.shape == (1, 3, 24, 16)
    teacher.image_shape = (4, 8, 8)
    with pytest.raises(UserError, match="the teacher takes images of 4 channels"):
        example_image(teacher)


WRONG = {
    "teacher": ("--teacher backdrp", "unknown teacher 'backdrp': did you mean backdrops"),
    "family": ("--teacher dti:x", "unknown teacher family 'dti': did you mean dit"),
    "tap": ("--tap midd", "unknown tap 'midd': did you mean mid"),
    "t": ("--t 1.5", "t 1.5 is outside (0, 1)"),
    "sigma": ("--sigma 99", "sigma 99 is outside the teacher's range"),
    "t and sigma": ("--t 0.5 --sigma 2", "both t and sigma are given: give one of them"),
    "guidance": ("--guidance -1", "guidance -1.0 is below 0"),
    "k": ("--k 99999", "outside 1 to 3072, the latent's dimension"),
    "k in words": ("--k lots", "k = 'lots' is not understood"),
    "count": ("--for-images 0", "--for-images 0 is below 1"),
    "option": ("--bf16", "--bf16 means nothing to a U-Net of clarep's own"),
    "device": ("--device gpu", "unknown device 'gpu'"),
    "two sources": ("--image x.png --data garments", "--data and --image are both given"),
    "no data": ("--split test", "--split test says how --data is read: give --data too"),
    "other classes": ("--data garments --split tset", "tset"),
    "batch": ("--batch-size 0", "--batch-size 0 is below 1"),
    "no image": ("--image none.png", "none.png: No such file or directory; give a whole image"),
    "broken image": ("--image broken.png", "cannot read broken.png: it is empty (zero bytes)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_sentence(capsys, unet_path, case):
    Path("broken.png").write_bytes(b"")
    more, words = WRONG[case]
    given = more if "--teacher" in more else f"--teacher {unet_path} {more}"
    refused(capsys, given, words)


def test_a_denoiser_that_does_not_stay_finite(capsys, unet_path, monkeypatch):
    monkeypatch.setattr(UNetTeacher, "denoise", lambda _, x, *rest: x * torch.nan)
    refused(capsys, f"--teacher {unet_path} --json", "the denoiser's estimates at sigma")


def test_a_model_that_fails(capsys, unet_path, monkeypatch):
    def fail(*_):
        raise TypeError("forward() takes 3 positional arguments\nbut 4 were given")

    monkeypatch.setattr(UNetTeacher, "denoise", fail)
    words = "fails in encoding an image and denoising it (TypeError: forward() takes 3 positional"
    refused(capsys, f"--teacher {unet_path} --json", words)


def test_memory_that_does_not_suffice(capsys, unet_path, monkeypatch):
    def fail(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Clarid, "directions", fail)
    words = "the memory does not suffice for finding a basis of its Jacobian: give a smaller --k"
    refused(capsys, f"--teacher {unet_path} --json", words)


class Backward(torch.autograd.Function):
    """Times two, with no rule for forward mode."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def test_a_model_without_forward_mode(capsys, unet_path, monkeypatch):
    plain = UNetTeacher.features
    monkeypatch.setattr(UNetTeacher, "features", lambda *given: Backward.apply(plain(*given)))
    given = f"--teacher {unet_path} --k 2 --t 0.5 --json"
    found = json.loads(ask(capsys, given))["differentiation"]
    assert found["engine"] == "double_backward"
    assert list(found["findings"]) == ["forward", "double_backward"]
    assert "adjoint error" not in found["findings"]["forward"]
