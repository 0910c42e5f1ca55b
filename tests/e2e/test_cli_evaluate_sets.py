"""`clarep evaluate` on sets that others made: official corruptions, and test sets beyond."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarep.cli.main import main
from clarep.data.cifar import CLASS_NAMES
from clarep.robustness.evaluation import Evaluation
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, load_student, save_student

FEW = "--images 40 --corruption-images 10 --groups clean"
CORRUPTED = "--groups clean corruptions --corruptions fog --severities 1 5"
WNIDS = ("n01440764", *(f"n{2_000_000 + i:08d}" for i in range(998)), "n15075141")


def pixels(count: int, seed: int = 0) -> np.ndarray:
    """Images that differ enough for an untrained student to tell some apart."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(256, size=(count, 1, 1, 3))
    noise = rng.integers(-40, 41, size=(count, 32, 32, 3))
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels(1, seed)[0]).save(out, "PNG")
    return out.getvalue()


def student_of(name: str, classes: tuple[str, ...]) -> Path:
    """A run whose student was never trained; its head is made to tell images apart."""
    student = build_student(StudentInfo("resnet8", classes, (3, 32, 32)))
    with torch.no_grad():
        student.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    save_student(student, Path(name, "student.safetensors"))
    return Path(name)


def logits_of(run: str, images: np.ndarray) -> torch.Tensor:
    """The student's logits, without the suite."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return load_student(run)(x)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cifar(tmp_path: Path) -> str:
    """A student of CIFAR-10's classes in another order, its data, and both official sets."""
    classes = CLASS_NAMES[::-1]
    student_of("c", classes)
    labels = np.arange(20) % 10
    np.savez("data.npz", x=pixels(20), y=labels, classes=np.array(classes))
    Path("corrupted").mkdir()
    np.save("corrupted/fog.npy", np.concatenate([pixels(20, 10 + at) for at in range(1, 6)]))
    np.save("corrupted/labels.npy", np.tile(labels, 5))
    Path("ten").mkdir()
    np.save("ten/cifar10.1_v6_data.npy", pixels(30, 3))
    np.save("ten/cifar10.1_v6_labels.npy", np.arange(30) % 10)
    return "c --data data.npz --split train"


@pytest.fixture
def imagenet(tmp_path: Path) -> str:
    """A student of 1,000 wnids in another order than ImageNet's, and data named by them."""
    classes = (*WNIDS[500:], *WNIDS[:500])
    student_of("i", classes)
    np.savez("data.npz", x=pixels(40), y=np.arange(40), classes=np.array(classes))
    return "i --data data.npz --split train"


def evaluate(*arguments: str) -> int:
    return main(["evaluate", *(word for part in arguments for word in part.split())])


def assert_refused(capsys, words: str) -> None:
    printed = capsys.readouterr()
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert len(printed.err) < 600


# Official corruptions


def test_official_corruptions_are_read_in_place_of_made_ones(cifar: str, capsys) -> None:
    official = "--corruption-images 20 --official-corruptions corrupted"
    assert evaluate(cifar, FEW, CORRUPTED, official) == 0
    found = Evaluation.load(Path("c/robustness"))
    assert found.config["official_corruptions"]["place"] == "corrupted"
    rights = []
    for severity in (1, 5):
        answers = logits_of("c", pixels(20, 10 + severity)).argmax(1)
        rights.append((answers == torch.arange(20) % 10).float())
        key = f"corruption/fog/severity={severity}"
        assert found.arrays[key].tolist() == rights[-1].tolist()
    assert 0 < torch.cat(rights).mean() < 1
    assert found["corruption/mean"].value == pytest.approx(float(torch.cat(rights).mean()))


def test_official_and_made_corruptions_are_not_taken_for_each_other(cifar: str, capsys) -> None:
    part = Path("c/robustness/parts/corruptions/fog/evaluation.json")
    official = "--official-corruptions corrupted"
    stamps = []
    for options in ("", official, official, ""):
        assert evaluate(cifar, FEW, CORRUPTED, options) == 0
        stamps.append(part.stat().st_mtime_ns)
    assert stamps[0] < stamps[1] == stamps[2] < stamps[3]
    assert Evaluation.load(Path("c/robustness")).config["official_corruptions"] is None
    np.save("corrupted/fog.npy", pixels(100, 99))
    assert evaluate(cifar, FEW, CORRUPTED, official) == 0
    first = part.stat().st_mtime_ns
    np.save("corrupted/fog.npy", pixels(100, 98))
    assert evaluate(cifar, FEW, CORRUPTED, official) == 0
    assert part.stat().st_mtime_ns > first


def test_a_baseline_of_the_other_kind_of_corruptions_is_refused(cifar: str, capsys) -> None:
    assert evaluate(cifar, FEW, CORRUPTED, "--out made") == 0
    capsys.readouterr()
    official = "--official-corruptions corrupted --out other --baseline made"
    assert evaluate(cifar, FEW, CORRUPTED, official) == 2
    assert_refused(capsys, "official_corruptions: null there")


@pytest.mark.parametrize(
    ("damage", "options", "words"),
    [
        ("none", "--corruptions fog snow", "corrupted lacks snow.npy, 1 of the 2 corruptions"),
        ("labels", "", "not those of data.npz"),
        ("size", "", "images of corrupted/fog/severity=1 are 16x16"),
        ("gone", "", "corrupted holds no corruption"),
    ],
)
def test_a_folder_that_is_not_of_the_test_data(
    cifar: str, capsys, damage: str, options: str, words: str
) -> None:
    if damage == "labels":
        np.save("corrupted/labels.npy", np.tile((np.arange(20) + 1) % 10, 5))
    elif damage == "size":
        np.save("corrupted/fog.npy", np.zeros((100, 16, 16, 3), np.uint8))
    elif damage == "gone":
        shutil.rmtree("corrupted")
    given = f"{CORRUPTED} {options} --official-corruptions corrupted"
    assert evaluate(cifar, FEW, given) == 2
    assert_refused(capsys, words)
    assert not Path("c/robustness").exists()


# Beyond


def test_cifar10_1_by_the_names_of_its_classes(cifar: str, capsys) -> None:
    assert evaluate(cifar, FEW, "--beyond cifar10.1=ten") == 0
    assert "cifar10.1 " in capsys.readouterr().out
    found = Evaluation.load(Path("c/robustness"))
    # Class 0 of CIFAR-10 is the student's last.
    expected = 9 - logits_of("c", pixels(30, 3)).argmax(1) == torch.arange(30) % 10
    assert found.arrays["beyond/cifar10.1/accuracy"].tolist() == expected.float().tolist()
    assert 0 < expected.sum() < 30
    one = found["beyond/cifar10.1/accuracy"]
    assert one.images == 30
    assert one.interval[0] <= one.value <= one.interval[1]
    assert found.config["beyond"]["cifar10.1"]["place"] == "ten"
    part = Path("c/robustness/parts/beyond/cifar10.1/evaluation.json")
    before = part.stat().st_mtime_ns
    assert evaluate(cifar, FEW, "--beyond cifar10.1=ten") == 0
    assert part.stat().st_mtime_ns == before
    np.save("ten/cifar10.1_v6_labels.npy", (np.arange(30) + 1) % 10)
    assert evaluate(cifar, FEW, "--beyond cifar10.1=ten") == 0
    assert part.stat().st_mtime_ns > before


def test_imagenet_a_and_r_by_wnid_among_their_own_classes(imagenet: str, capsys) -> None:
    wnids = (WNIDS[3], WNIDS[700])  # places 503 and 200 of the student
    for i in range(10):
        path = Path("a", wnids[i % 2], f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    assert evaluate(imagenet, FEW, "--beyond imagenet-a=a imagenet-r=a") == 0
    found = Evaluation.load(Path("i/robustness"))
    order = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]  # as the folders are listed
    images = np.concatenate([pixels(1, i) for i in order])
    expected = logits_of("i", images)[:, [503, 200]].argmax(1) == torch.arange(10) // 5
    assert 0 < expected.sum() < 10
    for name in ("imagenet-a", "imagenet-r"):
        values = found.arrays[f"beyond/{name}/accuracy"]
        assert values.tolist() == expected.float().tolist()


def test_imagenet_v2_by_number(imagenet: str, capsys) -> None:
    images = np.concatenate([pixels(1, i) for i in range(8)])
    # Labels that the student is right on half the time, in ImageNet's numbers.
    answers = (logits_of("i", images).argmax(1) + 500) % 1000
    wanted = [int(a) if i % 2 else (int(a) + 1) % 1000 for i, a in enumerate(answers)]
    for i, label in enumerate(wanted):
        path = Path("v", str(label), f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    assert evaluate(imagenet, FEW, "--beyond imagenet-v2=v") == 0
    one = Evaluation.load(Path("i/robustness"))["beyond/imagenet-v2/accuracy"]
    assert (one.value, one.images) == (0.5, 8)


def test_real_relabels_the_clean_images_by_their_files_names(capsys) -> None:
    student_of("i", WNIDS)
    for i, wnid in enumerate(WNIDS):
        path = Path("val", wnid, f"ILSVRC2012_val_{1000 - i:08d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i % 5))
    answers = logits_of("i", np.concatenate([pixels(1, i) for i in range(5)])).argmax(1).tolist()
    real = [[answers[(999 - n) % 5], 7] for n in range(1000)]  # all right
    real[999] = []  # class 0's image does not count
    real[998] = [(answers[1] + 1) % 1000]  # class 1's is wrong
    Path("real.json").write_text(json.dumps(real))
    given = "i --data val --split train --images 1000 --groups clean --beyond real=real.json"
    assert evaluate(given) == 0
    found = Evaluation.load(Path("i/robustness"))
    assert found["beyond/real/accuracy"].images == 999
    assert found.arrays["beyond/real/index"].tolist() == list(range(1, 1000))
    assert (found.arrays["beyond/real/accuracy"] == 0).nonzero().flatten().tolist() == [0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cifar=ten", "unknown test set 'cifar': did you mean cifar10.1"),
        ("cifar10.1", "--beyond cifar10.1 names no path: give cifar10.1=PATH"),
        ("cifar10.1=ten cifar10.1=ten", "gives cifar10.1 twice"),
        ("cifar10.1=corrupted", "cifar10.1_v6_data.npy is missing"),
        ("imagenet-a=ten", "ten holds no class folders"),
        ("imagenet-a=dogs", "dogs/dog is no wnid such as n01440764"),
        ("imagenet-a=a", "the student has no class 'n01440764'"),
        ("imagenet-a=nowhere", "cannot list nowhere"),
        ("imagenet-v2=a", "the student's 10 classes (truck, ship, horse ...) are not the 1,000"),
        ("real=real.json", "the student's 10 classes (truck, ship, horse ...) are not the 1,000"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(cifar: str, capsys, given: str, words: str) -> None:
    for path in (Path("dogs/dog/1.png"), Path("a/n01440764/1.png")):
        path.parent.mkdir(parents=True)
        path.write_bytes(png(0))
    assert evaluate(cifar, FEW, f"--beyond {given}") == 2
    assert_refused(capsys, words)
    assert not Path("c/robustness").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cifar10.1=ten", "the student has no class 'airplane'"),
        ("imagenet-v2=a", "a/n01440764 is no label of 1000 classes"),
        ("imagenet-a=many", "many holds 201 class folders, ImageNet-A and -R have 200"),
        ("real=real.json", "data.npz/0 is not one of the 1 images of ImageNet-ReaL"),
        ("real=ten", "cannot read ten as JSON"),
    ],
)
def test_nor_by_a_student_of_imagenet(imagenet: str, capsys, given: str, words: str) -> None:
    Path("ten").mkdir()
    np.save("ten/cifar10.1_v6_data.npy", pixels(10))
    np.save("ten/cifar10.1_v6_labels.npy", np.arange(10))
    Path("real.json").write_text("[[1]]")
    for path in (
        *(Path("many", wnid, "1.png") for wnid in WNIDS[:201]),
        Path("a", WNIDS[0], "1.png"),
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(png(0))
    assert evaluate(imagenet, FEW, f"--beyond {given}") == 2
    assert_refused(capsys, words)


# Units


def test_a_radius_that_looks_like_another_unit_is_noted(cifar: str, capsys) -> None:
    few = "--images 10 --attack-images 2 --check-images 0 --eps-l2 --attacks pgd --pgd-steps 1"
    assert evaluate(cifar, few, "--groups clean attacks --eps-255 2 128") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "note:" in line]
    assert len(notes) == 1
    assert "--eps-255 128 changes a pixel by 50% of its range" in notes[0]
