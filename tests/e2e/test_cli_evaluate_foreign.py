"""`clarep evaluate` on classifiers of other libraries: hf:, timm: and torchscript:."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from clarep.cli.main import main
from clarep.robustness.evaluation import Evaluation
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, load_student, save_student

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

NAMES = ("red", "green", "blue")
FEW = "--data data.npz --images 30 --attack-images 30 --check-images 0"
ATTACKED = "--groups clean calibration attacks --eps-255 48 --attacks pgd --eps-l2"
CLEAN = "--groups clean"


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """60 images with more of one colour, whose class it is, and their labels."""
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 192, (60, 16, 16, 3))
    images[np.arange(60), :, :, labels] += 48
    return images.astype(np.uint8), labels


@pytest.fixture
def data(images) -> None:
    """data.npz of these images."""
    np.savez("data.npz", x_test=images[0], y_test=images[1], classes=np.array(NAMES))


def train(net, images: tuple[np.ndarray, np.ndarray], steps: int = 40) -> None:
    x = torch.from_numpy(images[0]).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(images[1])
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimiser.step()
    net.eval()


@pytest.fixture(scope="module")
def trained_hf(images, tmp_path_factory) -> Path:
    """A trained ResNet of transformers, its classes in another order."""
    folder = tmp_path_factory.mktemp("hf")
    names = ("green", "blue", "red")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.ResNetForImageClassification(
            transformers.ResNetConfig(
                embedding_size=8,
                hidden_sizes=[8, 16],
                depths=[1, 1],
                layer_type="basic",
                id2label=dict(enumerate(names)),
            )
        )
        place = torch.tensor([names.index(name) for name in NAMES])
        train(lambda_net(model, lambda x: model((x - 0.5) / 0.25).logits[:, place]), images)
    model.eval().save_pretrained(folder)
    transformers.ViTImageProcessor(
        size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.25] * 3
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def hf(trained_hf: Path, data) -> str:
    """The trained ResNet as a folder here."""
    shutil.copytree(trained_hf, "model")
    return "hf:model"


def lambda_net(model: nn.Module, run) -> nn.Module:
    """Return a module with a model's parameters that runs otherwise."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return run(x)

    return Net()


@pytest.fixture
def script(images, data) -> str:
    """A file of a trained TorchScript module."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(128), nn.Linear(128, 3)
        )
        train(net, images)
        torch.jit.save(torch.jit.script(net), "script.pt")
    return "torchscript:script.pt"


@pytest.fixture
def own(data) -> str:
    """The run of a student of ours that was never trained."""
    student = build_student(StudentInfo("resnet8", NAMES, (3, 16, 16)))
    save_student(student, Path("x/student/student.safetensors"))
    return "x"


def evaluate(*arguments: str) -> int:
    return main(["evaluate", *(word for part in arguments for word in part.split())])


def assert_refused(capsys, words: str) -> None:
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert len(printed.err) < 600


@pytest.mark.parametrize("family", ["hf", "script"])
def test_attacks_find_their_way_through(request, capsys, family: str) -> None:
    spec = request.getfixturevalue(family)
    assert evaluate(spec, FEW, ATTACKED, "--out out/robustness") == 0
    printed = capsys.readouterr()
    assert "PGD 48/255" in printed.out
    assert "evaluation in out/robustness" in printed.out
    assert ("matched by number" in printed.err) == (family == "script")
    found = Evaluation.load(Path("out/robustness"))
    assert found["clean/accuracy"].value > 0.95
    assert found["attack/pgd-linf/eps_255=48"].value < 0.5
    assert found.config["run"] == spec
    assert found.config["data_options"]["data"] == str(Path("data.npz").resolve())
    features = found.arrays["features"]
    assert features.shape == (30, 16 if family == "hf" else 3)


def test_the_same_command_goes_on_and_other_weights_are_measured_again(hf: str, capsys) -> None:
    part = Path("out/parts/clean/evaluation.json")
    stamps = []
    for changed in (False, False, True):
        if changed:
            model = transformers.ResNetForImageClassification.from_pretrained("model")
            with torch.no_grad():
                model.classifier[1].bias += 0.1
            model.save_pretrained("model")
        assert evaluate(hf, FEW, CLEAN, "--out out") == 0
        stamps.append(part.stat().st_mtime_ns)
    assert stamps[0] == stamps[1] < stamps[2]


def test_report_and_baseline_read_it_and_compare_refuses(hf: str, own: str, capsys) -> None:
    model = transformers.ResNetForImageClassification.from_pretrained("model")
    nn.init.zeros_(model.classifier[1].weight)  # a baseline must make errors
    model.save_pretrained("model")
    options = "--groups clean corruptions --corruptions fog --corruption-images 10"
    assert evaluate(hf, FEW, options, "--out runs/m/robustness") == 0
    assert evaluate(own, FEW, options, "--baseline runs/m") == 0
    assert "corruption/mce" in Evaluation.load(Path("x/robustness"))
    assert main(["report", "runs/m", "--out", "page"]) == 0
    page = Path("page/index.html").read_text()
    assert "0.333" in page  # its accuracy
    assert "how it was trained is not known" in page
    capsys.readouterr()
    assert main(["compare", "runs/m", own]) == 2
    assert_refused(capsys, "runs/m holds no trained student")


def test_timm_with_the_users_weights(data, capsys) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = timm.create_model("test_resnet", num_classes=3).eval()
    save_file(net.state_dict(), "w.safetensors")
    given = "--weights w.safetensors --image-size 32 --out out --json"
    assert evaluate("timm:test_resnet", FEW, CLEAN, given) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["wrote"] == "out"
    found = Evaluation.load(Path("out"))
    assert found.config["weights"] == "w.safetensors"
    assert found.config["data_options"]["image_size"] == 32
    assert found.arrays["features"].shape == (30, 96)


def imagenet_vit(names: list[str]) -> nn.Module:
    """Save a tiny classifier of 1,000 classes with random weights to model/; return it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(
            transformers.ViTConfig(
                image_size=16,
                patch_size=8,
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                intermediate_size=8,
                id2label=dict(enumerate(names)),
            )
        ).eval()
        nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained("model")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained("model")
    return model


def answers_of(model: nn.Module, pixels: np.ndarray) -> torch.Tensor:
    """Return the whole logits behind the processor's normalisation."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return model(pixel_values=(x - 0.5) / 0.5).logits


def test_imagenet_classes_with_readable_names_meet_wnids(data, capsys) -> None:
    """--class-names imagenet, on the data and on ImageNet-V2's folders."""
    wnids = timm.data.ImageNetInfo("imagenet-1k").label_names()
    model = imagenet_vit([f"readable {i}" for i in range(1000)])
    with torch.no_grad():
        model.classifier.bias[7] = 100
    model.save_pretrained("model")
    pixels = np.random.default_rng(0).integers(256, size=(20, 16, 16, 3), dtype=np.uint8)
    np.savez("i.npz", x_test=pixels, y_test=np.arange(20) % 10, classes=np.array(wnids))
    for label in ("2", "7", "10"):
        folder = Path("v2", label)
        folder.mkdir(parents=True)
        Image.fromarray(pixels[0]).save(folder / "a.png")
    given = "--data i.npz --images 20 --groups clean --beyond imagenet-v2=v2 --out out"
    capsys.readouterr()
    assert evaluate("hf:model", given) == 2
    assert_refused(capsys, "hf:model knows no class 'n01440764' of the data")
    assert evaluate("hf:model", given, "--class-names imagenet") == 0
    found = Evaluation.load(Path("out"))
    assert found["clean/accuracy"].value == pytest.approx(2 / 20)
    assert found["beyond/imagenet-v2/accuracy"].value == pytest.approx(1 / 3)


def test_a_few_of_its_classes_are_chosen_by_name(data, capsys) -> None:
    words = timm.data.ImageNetInfo("imagenet-1k").label_descriptions()
    model = imagenet_vit(words)
    pixels = np.random.default_rng(0).integers(256, size=(40, 16, 16, 3), dtype=np.uint8)
    names, labels = ("pug", "Egyptian cat", "tench"), np.arange(40) % 3
    np.savez("few.npz", x_test=pixels, y_test=labels, classes=np.array(names))
    assert evaluate("hf:model", "--data few.npz --groups clean calibration --out out") == 0
    assert "the 3 of the data are chosen by name" in capsys.readouterr().err
    expected = answers_of(model, pixels)[:, [254, 285, 0]]
    found = Evaluation.load(Path("out"))
    right = (expected.argmax(dim=1).numpy() == labels).mean()
    assert found["clean/accuracy"].value == pytest.approx(right)
    order = found.arrays["index"]
    torch.testing.assert_close(
        found.arrays["probabilities"], expected.softmax(dim=1)[order], rtol=1e-3, atol=1e-5
    )


def test_also_of_a_student_of_our_own(data, own, capsys) -> None:
    """Two of its three classes, in another order; then all of them in another order."""
    student = load_student("x")
    with np.load("data.npz") as stored:
        pixels, labels = stored["x_test"], stored["y_test"]
    logits = student(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).detach()
    for names in (("blue", "red"), ("blue", "red", "green")):
        places = [NAMES.index(name) for name in names]
        kept = np.isin(labels, places)
        relabelled = np.array([places.index(y) for y in labels[kept]])
        np.savez("few.npz", x_test=pixels[kept], y_test=relabelled, classes=np.array(names))
        assert evaluate("x", "--data few.npz --groups clean --images 999 --out out") == 0
        assert ("chosen by name" in capsys.readouterr().err) == (len(names) == 2)
        right = logits[kept][:, places].argmax(dim=1).numpy() == relabelled
        assert Evaluation.load(Path("out"))["clean/accuracy"].value == pytest.approx(right.mean())


def test_imagenet_9_is_measured_as_the_challenge_does(data, capsys) -> None:
    words = timm.data.ImageNetInfo("imagenet-1k").label_descriptions()
    model = imagenet_vit(words)
    pixels = np.random.default_rng(1).integers(256, size=(45, 16, 16, 3), dtype=np.uint8)
    names = "dog bird wheeled_vehicle reptile carnivore insect musical_instrument primate fish"
    folders = [f"{i:02d}_{name}" for i, name in enumerate(names.split())]
    for variant in ("original", "mixed_rand", "mixed_same"):
        for i, image in enumerate(pixels):
            folder = Path("in9", variant, "val", folders[i % 9])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i}.png")
    given = "--data in9 --groups clean backgrounds --images 45 --flip-backdrops 1 --out out"
    capsys.readouterr()
    assert evaluate("hf:model", given) == 0
    assert "ImageNet-9" in capsys.readouterr().err
    predicted = answers_of(model, pixels).argmax(dim=1).tolist()
    # of the published grouping: where its dogs, birds, reptiles ... begin and end
    blocks = {0: (151, 268), 1: (80, 100), 3: (33, 68), 5: (300, 326), 7: (365, 384), 8: (389, 397)}
    sure = [i for i in range(45) if i % 9 in blocks]
    right = [blocks[i % 9][0] <= predicted[i] <= blocks[i % 9][1] for i in sure]
    found = Evaluation.load(Path("out"))
    index, shown = found.arrays["index"], found.arrays["clean/accuracy"].bool()
    by_class = found.arrays["label"]
    assert len(index) == 45 and found.arrays["probabilities"].shape == (45, 10)
    for c in (0, 3, 5, 7, 8):
        ours = int(shown[by_class == c].sum())
        assert ours == sum(r for i, r in zip(sure, right, strict=True) if i % 9 == c), c
    outside = sum(predicted[i] > 892 for i in range(45))  # none of the nine lies there
    assert found["clean/accuracy"].value <= 1 - outside / 45


def save_script(net: nn.Module) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net, torch.zeros(2, 3, 16, 16)), "m.pt")
    return "torchscript:m.pt"


class Draws(nn.Module):
    def forward(self, x):
        return 50 * (x + 0.01 * torch.randn_like(x)).mean(dim=(2, 3))


class Steps(nn.Module):
    def forward(self, x):
        return (50 * x.mean(dim=(2, 3))).floor()


class Softmax(nn.Module):
    def forward(self, x):
        return (50 * x.mean(dim=(2, 3))).softmax(dim=1)


def test_what_the_probe_finds_is_told_everywhere(data, capsys) -> None:
    """On stderr, in the table, in the record and on the page."""
    spec = save_script(Draws())
    capsys.readouterr()
    assert evaluate(spec, FEW, "--groups clean calibration --out runs/n/robustness") == 0
    printed = capsys.readouterr()
    assert "clarep: warning: no figure of it can be trusted: two passes" in printed.err
    shown = [line for line in printed.out.splitlines() if line.startswith(("clean", "ECE"))]
    assert len(shown) == 2 and all("not trustworthy" in line for line in shown)
    assert printed.out.count("two passes of one image differ") == 1
    config = Evaluation.load(Path("runs/n/robustness")).config
    assert config["outputs"] == "logits" and config["classes"] == list(NAMES)
    assert main(["report", "runs/n", "--out", "page"]) == 0
    page = Path("page/index.html").read_text()
    assert "no figure of it can be trusted: two passes of one image differ" in page
    assert "not trustworthy: two passes" in page


def test_without_a_gradient_attacks_are_left_out_or_refused(data, capsys) -> None:
    spec = save_script(Steps())
    options = "--corruptions fog --severities 1 --corruption-images 6"
    assert evaluate(spec, FEW, options, "--out runs/s/robustness") == 0
    assert "need a gradient that reaches the image" in capsys.readouterr().err
    found = Evaluation.load(Path("runs/s/robustness"))
    assert {"clean/accuracy", "calibration/ece", "corruption/mean"} <= {
        one.key for one in found.measurements
    }
    assert not any(one.key.startswith("attack/") for one in found.measurements)
    assert evaluate(spec, FEW, "--groups attacks --out out") == 2
    assert_refused(capsys, "attacks needs a gradient that reaches the image")


def test_probabilities_are_taken_as_such_when_told(data, capsys) -> None:
    spec = save_script(Softmax())
    capsys.readouterr()
    assert evaluate(spec, FEW, "--groups clean calibration --out out") == 2
    assert_refused(capsys, "give --outputs probabilities")
    given = "--groups clean calibration --outputs probabilities --out out"
    assert evaluate(spec, FEW, given) == 0
    found = Evaluation.load(Path("out"))
    with np.load("data.npz") as stored:
        x = torch.from_numpy(stored["x_test"]).permute(0, 3, 1, 2).float() / 255
    expected = Softmax()(x)[found.arrays["index"]]
    torch.testing.assert_close(found.arrays["probabilities"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("x --outputs logits --data data.npz", "--outputs logits means nothing to a student of"),
        ("hf:model --data data.npz", "hf:model has no run folder to write in: give one, --out"),
        ("hf:model --out out", "what hf:model was trained on is not known here"),
        ("hf:nowhere --data data.npz --out out", "there is no folder nowhere"),
        ("hf:model --data two.npz --out out", "tells 3 classes apart and the data hold 2"),
        ("hf:model --data hats.npz --out out", "knows no class 'hat' of the data"),
        ("hf:model --data data.npz --out out --image-size 8", "give --image-size 16"),
        ("hf:model --data data.npz --out out --weights w.pt", "--weights w.pt means nothing"),
        ("hf:model --data data.npz --out out --split val", "split"),
        ("timm:test_resnet --data data.npz --out out --weights no.pt", "there is no file no.pt"),
        ("torchscript:no.pt --data data.npz --out out", "there is no file no.pt"),
        ("x --class-names imagenet --data data.npz", "--class-names imagenet means nothing"),
        ("x --weights w.pt --data data.npz", "--weights w.pt means nothing to a student of"),
    ],
)
def test_a_mistake_is_one_sentence(hf, own, capsys, arguments: str, words: str) -> None:
    pixels = np.zeros((6, 16, 16, 3), np.uint8)
    np.savez("two.npz", x_test=pixels, y_test=np.arange(6) % 2)
    np.savez("hats.npz", x_test=pixels, y_test=np.arange(6) % 3, classes=["red", "green", "hat"])
    capsys.readouterr()
    assert evaluate(arguments, CLEAN) == 2
    assert_refused(capsys, words)
    assert not Path("out").exists()
