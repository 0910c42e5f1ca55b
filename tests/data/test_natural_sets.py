"""Readers of natural test sets, on tiny copies of their layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarep.data.cifar import CLASS_NAMES
from clarep.data.garments import load_garments
from clarep.data.sets.natural import (
    NaturalSet,
    imagenet_columns,
    load_cifar10_1,
    load_imagenet_v2,
    load_natural,
    read_real,
)
from clarep.errors import UserError

OWN = load_garments("test")
WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")


def write(path: Path, grey: int = 0, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path)


# ImageNet-A


def test_imagenet_a_maps_its_folders_to_the_student_s_logits(tmp_path: Path):
    write(tmp_path / WNIDS[3] / "a.png", 30)
    write(tmp_path / WNIDS[1] / "b.png", 10, size=(20, 30))
    (tmp_path / "README.txt").write_text("README")
    subset = load_natural("imagenet-a", tmp_path, WNIDS, 8, OWN)
    assert subset.columns.tolist() == [1, 3]
    assert subset.images.labels.tolist() == [0, 1]
    assert subset.images.images([0, 1])[:, 0, 0, 0].tolist() == [10, 30]
    logits = torch.tensor([[9.0, 2.0, 9.0, 1.0], [9.0, 0.0, 9.0, 3.0]])
    correct, counts = subset.correct(logits, np.arange(2))
    assert correct.tolist() == [True, True] and counts.tolist() == [0, 1]


def test_imagenet_a_wants_classes_that_the_student_has(tmp_path: Path):
    write(tmp_path / "n99999999" / "a.png")
    with pytest.raises(UserError, match=r"the student has no class 'n99999999'"):
        load_natural("imagenet-a", tmp_path, WNIDS, 8, OWN)
    with pytest.raises(UserError, match=r"listed twice"):
        load_natural("imagenet-a", tmp_path, (*WNIDS, WNIDS[0]), 8, OWN)


# ImageNet-V2


def test_imagenet_v2_labels_are_numbers_not_places(tmp_path: Path):
    for number in (0, 2, 10, 11, 100, 999):
        write(tmp_path / str(number) / "x.png", number % 256)
    write(tmp_path / "2" / "y.png", 77)
    data = load_imagenet_v2(tmp_path, image_size=8)
    assert data.labels.tolist() == [0, 2, 2, 10, 11, 100, 999]
    found = data.images(range(7))[:, 0, 0, 0].tolist()
    assert found == [0, 2, 77, 10, 11, 100, 999 % 256]
    assert [Path(source).parent.name for source in data.sources] == [
        str(label) for label in data.labels
    ]
    assert len(data.class_names) == 1000


def test_imagenet_labels_are_places_among_the_sorted_wnids():
    wnids = ["n01440764", *(f"n{2_000_000 + i:08d}" for i in range(998)), "n15075141"]
    order = np.random.default_rng(0).permutation(1000)
    columns = imagenet_columns([wnids[i] for i in order])
    assert [int(order[column]) for column in columns] == list(range(1000))
    numbers = [str(i) for i in order]
    assert [numbers[column] for column in imagenet_columns(numbers)] == [
        str(i) for i in range(1000)
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["n01440764", "n15075141"],
        [f"n{2_000_000 + i:08d}" for i in range(1000)],
        ["n01440764", *(f"n1{i}" for i in range(998)), "n15075141"],
        [str(i) for i in range(1, 1001)],
    ],
)
def test_other_classes_are_not_imagenet_s(names: list[str]):
    with pytest.raises(UserError, match=r"are not the 1,000 ImageNet classes"):
        imagenet_columns(names)


@pytest.mark.parametrize("name", ["n01440764", "1000", "-1", "1.5", "٣"])
def test_imagenet_v2_refuses_other_folders(tmp_path: Path, name: str):
    write(tmp_path / "3" / "x.png")
    write(tmp_path / name / "x.png")
    with pytest.raises(UserError, match=r"is no label of 1000 classes"):
        load_imagenet_v2(tmp_path, image_size=8)


def test_imagenet_v2_refuses_a_number_twice(tmp_path: Path):
    write(tmp_path / "3" / "x.png")
    write(tmp_path / "03" / "x.png")
    with pytest.raises(UserError, match=r"the same number"):
        load_imagenet_v2(tmp_path, image_size=8)


# ImageNet-ReaL


def real_file(path: Path, content: object) -> Path:
    (path / "real.json").write_text(json.dumps(content))
    return path / "real.json"


def test_real_labels_belong_to_the_number_in_the_file_s_name(tmp_path: Path):
    path = real_file(tmp_path, [[7], [], [1, 3], [999]])
    sources = [
        "val/n01491361/ILSVRC2012_val_00000003.JPEG",
        "val/n01440764/ILSVRC2012_val_00000001.JPEG",
        "val/n01484850/ILSVRC2012_val_00000002.JPEG",
    ]
    assert read_real(path, sources) == [[1, 3], [7], []]


def test_any_label_of_the_list_is_right_and_images_without_are_left_out():
    accepted = [[1, 3], [7], [], [0, 1]]
    real = NaturalSet("real", "real.json", OWN, torch.arange(10), accepted)
    logits = torch.eye(10)[[2, 5, 7, 3]]  # of images 3, 2, 1, 0
    correct, kept = real.correct(logits, np.array([3, 2, 1, 0]))
    assert correct.tolist() == [False, True, True]
    assert kept.tolist() == [3, 1, 0]
    with pytest.raises(UserError, match=r"no image has a label"):
        real.correct(logits[:1], np.array([2]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, r"no list of label lists"),
        ([], r"no list of label lists"),
        ([[1], 2], r"entry 1 .* no list of labels below 1000"),
        ([[1000]], r"entry 0"),
        ([[True]], r"entry 0"),
        ([["n01440764"]], r"entry 0"),
    ],
)
def test_another_json_is_refused(tmp_path: Path, content: object, message: str):
    with pytest.raises(UserError, match=message):
        read_real(real_file(tmp_path, content), [])


@pytest.mark.parametrize("text", ["[[1,", "[" * 100_000, f"[[{'9' * 5_000}]]", "[[NaN]]", "\xff"])
def test_a_damaged_or_hostile_json_is_refused(tmp_path: Path, text: str):
    (tmp_path / "real.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"cannot read .*real.json as JSON"):
        read_real(tmp_path / "real.json", [])


def test_faults_of_real(tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot read .*gone.json"):
        read_real(tmp_path / "gone.json", [])
    for name in ("cat.png", "ILSVRC2012_val_00000003.JPEG", "ILSVRC2012_val_00000000.JPEG"):
        with pytest.raises(UserError, match=r"is not one of the 2 images"):
            read_real(real_file(tmp_path, [[1], [2]]), [name])


# CIFAR-10.1


@pytest.fixture
def cifar10_1(tmp_path: Path) -> Path:
    x = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    np.save(tmp_path / "cifar10.1_v6_data.npy", x)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.array([9, 0, 4], np.int32))
    return tmp_path


def test_cifar10_1_is_read(cifar10_1: Path):
    data = load_cifar10_1(cifar10_1)
    assert data.labels.tolist() == [9, 0, 4]
    assert data.class_names == CLASS_NAMES
    assert data.images([2, 1])[:, 0, 5, 5].tolist() == [2, 1]


def test_faults_of_cifar10_1(cifar10_1: Path):
    with pytest.raises(UserError, match=r"cifar10.1_v6_data.npy is missing"):
        load_cifar10_1(cifar10_1 / "elsewhere")
    labels = cifar10_1 / "cifar10.1_v6_labels.npy"
    np.save(labels, np.array([9, 0]))
    with pytest.raises(UserError, match=r"3 images but 2 labels"):
        load_cifar10_1(cifar10_1)
    np.save(labels, np.array([9, 0, 10]))
    with pytest.raises(UserError, match=r"label 10 of image 2"):
        load_cifar10_1(cifar10_1)
    np.save(labels, np.array([9, None, 1], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"pickled Python objects"):
        load_cifar10_1(cifar10_1)
    np.save(cifar10_1 / "cifar10.1_v6_data.npy", np.zeros((3, 3, 32, 32), np.uint8))
    with pytest.raises(UserError, match=r"not \(N, 32, 32, 3\)"):
        load_cifar10_1(cifar10_1)
