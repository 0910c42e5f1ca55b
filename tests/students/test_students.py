"""Our students: shapes, taps, files and seeds; what a file or an option cannot be."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from clarep.data.fits import check_alike, kind_of
from clarep.engine.artefacts import write_json
from clarep.engine.tensors import weights_hash
from clarep.errors import UserError
from clarep.students.student import ACTIVATIONS, Normalise, StudentInfo
from clarep.students.student_files import (
    STUDENTS,
    build_student,
    load_student,
    save_student,
    student_path,
)

NAMES = ("top", "bag", "shoe")
LAYERS = {
    "resnet8": {"stage1": 16, "stage2": 32, "stage3": 64, "penultimate": 64},
    "resnet8-half": {"stage1": 32, "stage2": 64, "stage3": 112, "penultimate": 112},
    "resnet18": {"stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512, "penultimate": 512},
    "wrn16-2": {"stage1": 32, "stage2": 64, "stage3": 128, "penultimate": 128},
    "vit-tiny": {f"block{i}": 128 for i in range(1, 7)} | {"penultimate": 128},
}


def info(name: str = "resnet8", shape: tuple[int, int, int] = (3, 16, 16)) -> StudentInfo:
    return StudentInfo(name, NAMES, shape)


def images(shape: tuple[int, int, int] = (3, 16, 16), count: int = 2) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def test_every_student_is_covered() -> None:
    assert set(LAYERS) == set(STUDENTS)


@pytest.mark.parametrize(
    ("name", "layer"),
    # ResNet-18 is large, and walks as ResNet-8 does: its last two layers will do
    [
        (name, layer)
        for name in LAYERS
        for layer in [*LAYERS[name]][-2 if name == "resnet18" else 0 :]
    ],
)
def test_both_gives_what_features_and_forward_give(name: str, layer: str) -> None:
    student, x = build_student(info(name), layer).eval(), images()
    features, logits = student.both(x)
    assert torch.equal(features, student.features(x))
    assert torch.equal(logits, student(x))
    assert features.shape == (2, student.feature_dim) == (2, LAYERS[name][layer])
    assert logits.shape == (2, 3)


@pytest.mark.parametrize("name", STUDENTS)
def test_the_logits_are_a_linear_map_of_the_default_features(name: str) -> None:
    student = build_student(info(name)).eval()
    features, logits = student.both(images())
    assert student.layer == "penultimate"
    torch.testing.assert_close(features @ student.head.weight.T + student.head.bias, logits)


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (4, 24, 36)])
def test_other_channels_and_sizes_are_taken(name: str, shape: tuple[int, int, int]) -> None:
    student = build_student(info(name, shape))
    features, logits = student.both(images(shape))
    assert features.shape == (2, student.feature_dim) and logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "weights"),
    # of ten classes and 3 channels; ResNet-18 and WRN-16-2 as published for CIFAR-10
    [("resnet8", 75_290), ("resnet18", 11_173_962), ("wrn16-2", 691_674), ("vit-tiny", 810_890)],
)
def test_number_of_weights(name: str, weights: int) -> None:
    ten = StudentInfo(name, tuple("abcdefghij"), (3, 32, 32))
    assert sum(p.numel() for p in build_student(ten).parameters()) == weights


@pytest.mark.parametrize("name", STUDENTS)
def test_every_weight_and_the_image_get_a_gradient(name: str) -> None:
    student, x = build_student(info(name)), images().requires_grad_()
    student(x).logsumexp(dim=1).sum().backward()
    assert x.grad is not None and bool(x.grad.any())
    assert [n for n, p in student.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", STUDENTS)
def test_images_are_normalised_inside(name: str) -> None:
    student, x = build_student(info(name)).eval(), images()
    expected = student(x)
    student.normalise = torch.nn.Identity()
    torch.testing.assert_close(student(2 * x - 1), expected)


def test_features_stop_at_the_layer() -> None:
    student, x = build_student(info(), "stage1").eval(), images()
    del student.stages[1:]
    assert student.features(x).shape == (2, 16)


def test_a_seed_fixes_the_weights_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (build_student(info(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("name", STUDENTS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    layer = [*LAYERS[name]][1]
    student, x = build_student(info(name), layer), images()
    student(x)  # moves the running statistics
    path = tmp_path / "student.safetensors"
    save_student(student, path, {"method": "vanilla"})
    loaded = load_student(path)
    assert loaded.info == student.info and loaded.layer == layer and not loaded.training
    assert torch.equal(loaded(x), student.eval()(x))
    assert torch.equal(loaded.features(x), student.features(x))


def test_same_student_same_bytes(tmp_path: Path) -> None:
    # safetensors alone writes the metadata in another order each time, in one process too
    for i in range(8):
        student = build_student(info())
        save_student(student, tmp_path / f"{i}.safetensors", {"b": "1", "a": "2"})
    hashes = {hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.glob("*.safetensors")}
    assert len(hashes) == 1


def test_weights_are_stored_in_fp32(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_student(build_student(info()).half(), path)
    weights = load_file(path)
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_a_folder_and_a_run_stand_for_the_file_in_them(tmp_path: Path) -> None:
    file = tmp_path / "student" / "student.safetensors"
    save_student(build_student(info()), file)
    assert student_path(tmp_path) == student_path(file.parent) == student_path(str(file)) == file
    assert load_student(tmp_path).info == info()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet9", r"unknown student 'resnet9': did you mean resnet8.* valid are resnet8, "),
        ("xyz", r"unknown student 'xyz': valid are .*vit-tiny, timm:NAME"),
    ],
)
def test_unknown_student(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_student(info(name))


@pytest.mark.parametrize("name", STUDENTS)
def test_unknown_layer(name: str) -> None:
    with pytest.raises(UserError, match=rf"unknown layer of {name} 'stag9': .*penultimate"):
        build_student(info(name), "stag9")


def test_what_no_student_can_be() -> None:
    with pytest.raises(UserError, match="patches of 4 pixels, and 30 x 32 is no multiple: give"):
        build_student(info("vit-tiny", (3, 30, 32)))
    with pytest.raises(UserError, match="a student of 1 class has nothing to tell apart: give"):
        build_student(StudentInfo("resnet8", ("top",), (3, 16, 16)))
    with pytest.raises(UserError, match=r"images of shape \(3, 0, 16\) are none: give"):
        build_student(info(shape=(3, 0, 16)))
    with pytest.raises(UserError, match="seed -1 is outside"):
        build_student(info(), seed=-1)


@pytest.mark.parametrize(
    ("names", "shape", "words"),
    [
        (NAMES[:2], (3, 16, 16), ["3 classes there, 2 here"]),
        (("top", "shoe", "bag"), (3, 16, 16), ["'bag' there, 'shoe' here", "in this order"]),
        (("0", "1", "2"), (3, 16, 16), ["'top' there, '0' here", "`class_names`"]),
        (NAMES, (3, 32, 32), ["3x16x16", "3x32x32", "`image_size=16`"]),
        (NAMES, (1, 16, 16), ["3x16x16", "1x16x16"]),
    ],
)
def test_classes_and_images_that_do_not_fit(
    names: tuple[str, ...], shape: tuple[int, int, int], words: list[str]
) -> None:
    check_alike("the student's", kind_of(info()), "the data", kind_of(info()))
    with pytest.raises(UserError) as caught:
        check_alike("the student's", kind_of(info()), "the data", (names, shape))
    assert all(word in str(caught.value) for word in words)


def test_uint8_is_not_normalised() -> None:
    with pytest.raises(UserError, match=r"images are torch.uint8: give float in \[0, 1\]"):
        Normalise([0.5], [0.5])(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def test_files_that_hold_no_student(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no student at .*absent: give an existing"):
        load_student(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no student.safetensors: run clarep distill"):
        load_student(tmp_path)
    (tmp_path / "model.pt").touch()
    for other in ("absent", "", "model.pt"):  # a user of another library's model forgot its prefix
        with pytest.raises(UserError, match=r"evaluate takes .* as hf:, timm: and torchscript:"):
            load_student(tmp_path / other)
    file = tmp_path / "student.safetensors"
    for text in (b"", b"not safetensors at all"):
        file.write_bytes(text)
        with pytest.raises(UserError, match=r"cannot read a student from .*: give a whole file"):
            load_student(file)
    save_file({"w": torch.zeros(2)}, file, {"kind": "clarep judge"})
    with pytest.raises(UserError, match=r"holds no student: give a student.safetensors"):
        load_student(file)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    save_student(build_student(info()), file)
    data = file.read_bytes()
    for end in (4, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:end])
        with pytest.raises(UserError, match="cannot read a student"):
            load_student(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"info": '{"name": "resnet8"}'}, "can build .KeyError.*: give a student"),
        ({"info": "{"}, "can build .JSONDecodeError.*: give a student"),
        ({"info": "[]"}, "can build .TypeError.*: give a student"),
        ({"layer": "stage7"}, "unknown layer of resnet8 'stage7'"),
        ({"head.weight": torch.zeros(3, 64)}, "can build .RuntimeError.*head.weight"),
        ({"more": torch.zeros(2)}, "can build .RuntimeError.*more"),
    ],
    ids=["no classes", "no JSON", "a list", "layer", "other head", "foreign weight"],
)
def test_a_damaged_file_is_refused_in_one_sentence(
    change: dict[str, str | Tensor], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "student.safetensors"
    metadata = {
        "kind": "clarep student",
        "info": '{"name": "resnet8", "class_names": ["top", "bag"], "image_shape": [3, 16, 16]}',
        "layer": "penultimate",
    }
    two = StudentInfo("resnet8", ("top", "bag"), (3, 16, 16))
    weights = build_student(two).state_dict()
    save_file(weights, file, metadata)
    load_student(file)  # whole before the change
    for key, value in change.items():
        if isinstance(value, str):
            metadata[key] = value
        else:
            weights[key] = value
    save_file(weights, file, metadata)
    with pytest.raises(UserError, match=message) as caught:
        load_student(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(  # type: ignore[no-untyped-def]
    tmp_path: Path, no_file_above
) -> None:
    file = tmp_path / "student.safetensors"
    save_student(build_student(info(), seed=0), file)
    before = file.read_bytes()
    with no_file_above(1000), pytest.raises(OSError):
        save_student(build_student(info(), seed=1), file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["student.safetensors"]


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (torch.tensor([0.0, float("nan"), 0.0]), "hold NaN"),
        (torch.ones(3, dtype=torch.int32), r"int32.*quantised"),
        (torch.ones(3, dtype=torch.int8), r"int8.*quantised"),
    ],
)
def test_weights_that_cannot_be_computed_with_are_refused(
    tmp_path: Path, bad: Tensor, word: str
) -> None:
    file = tmp_path / "any.safetensors"
    save_student(build_student(info()), file)
    with safe_open(file, framework="pt") as archive:
        metadata = {name: archive.metadata()[name] for name in ("kind", "info", "layer")}
    save_file(load_file(file) | {"head.bias": bad}, file, metadata)
    with pytest.raises(UserError, match=rf"head\.bias.*{word}"):
        load_student(file)


def test_a_student_that_its_config_does_not_tell_of_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    save_student(build_student(info()), file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    write_json(tmp_path / "config.json", {"student_sha256": sha256})
    load_student(tmp_path)
    save_student(build_student(info(), seed=1), file)  # whole, and another
    with pytest.raises(UserError, match=r"is not the file that config\.json was written for"):
        load_student(tmp_path)
    file.rename(tmp_path / "other.safetensors")  # of which the configuration says nothing
    load_student(tmp_path / "other.safetensors")


def test_flipped_exponents_are_told(tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    save_student(build_student(info()), file)
    damaged = bytearray(file.read_bytes())
    for at in range(len(damaged) - 4_001, len(damaged), 40):  # the high byte of a float
        damaged[at] ^= 4
    file.write_bytes(damaged)
    with pytest.raises(UserError, match="SHA-256"):
        load_student(file)


def test_weights_are_known_by_their_file_as_long_as_they_are_its(tmp_path):
    made = build_student(StudentInfo("resnet8", ("a", "b"), (3, 8, 8)))
    file = tmp_path / "student.safetensors"
    save_student(made, file)
    loaded = load_student(file)
    assert weights_hash(loaded) == {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert weights_hash(made).keys() == weights_hash(loaded.half()).keys() == {"state_sha256"}
    changed = load_student(file)
    with torch.no_grad():
        next(changed.parameters()).mul_(2)
    assert weights_hash(changed).keys() == {"state_sha256"}
    assert weights_hash(changed) != weights_hash(made)


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_everywhere_in_a_student_and_stored_with_it(
    tmp_path: Path, name: str, activation: str
) -> None:
    known = replace(info(name), activation=activation)
    student = build_student(known, seed=0).eval()
    kinds = {type(module) for module in student.modules() if type(module) in ACTIVATIONS.values()}
    assert kinds == {ACTIVATIONS[activation]}
    calls: list[int] = []
    for module in student.modules():
        if type(module) in ACTIVATIONS.values():
            module.register_forward_hook(lambda *_: calls.append(1))
    x = images()
    logits = student(x)
    own = build_student(info(name), seed=0).eval()
    default = "gelu" if name == "vit-tiny" else "relu"
    assert torch.equal(own(x), logits) == (activation == default)
    norms = [m for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(calls) >= len(norms) - 3  # those of skips have none
    save_student(student, tmp_path / "s.safetensors")
    loaded = load_student(tmp_path / "s.safetensors")
    assert loaded.info == known and torch.equal(loaded(x), logits)


def test_an_activation_is_of_own_architectures_and_known() -> None:
    with pytest.raises(UserError, match="selu"):
        build_student(replace(info("resnet8"), activation="selu"))
    with pytest.raises(UserError, match="own architectures"):
        build_student(replace(info("timm:resnet18"), activation="silu"))
