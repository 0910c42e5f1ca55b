"""timm models as students: the small test models that timm ships, none of them downloaded."""

import sys
from pathlib import Path

import pytest
import torch

from clarep.errors import UserError
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, load_student, save_student

NAMES = ("top", "bag", "shoe")


def info(model: str, shape: tuple[int, int, int] = (3, 32, 32)) -> StudentInfo:
    return StudentInfo(f"timm:{model}", NAMES, shape)


@pytest.mark.parametrize(
    ("model", "layer", "dim"),
    [
        ("test_resnet", None, 96),
        ("test_resnet", "layer2", 48),
        ("test_vit", None, 64),
        ("test_vit", "blocks.3", 64),
        ("test_convnext", "stages.1", 32),
        ("test_efficientnet", None, 256),
    ],
)
def test_both_gives_what_features_and_forward_give(model: str, layer: str | None, dim: int) -> None:
    student = build_student(info(model), layer).eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, logits = student.both(x)
        torch.testing.assert_close(features, student.features(x), rtol=0, atol=0)
        torch.testing.assert_close(logits, student(x), rtol=0, atol=0)
        assert features.shape == (2, dim) == (2, student.feature_dim)
        # in timm's own words
        scaled = (x - student.normalise.mean) / student.normalise.std
        assert torch.equal(student.net(scaled), logits)


def test_mean_and_deviation_are_the_models_own() -> None:
    student = build_student(info("test_efficientnet"))
    assert student.normalise.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert student.normalise.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    grey = build_student(info("test_efficientnet", (1, 32, 32)))
    assert grey.normalise.mean.flatten().tolist() == pytest.approx([0.449])
    assert grey(torch.rand(2, 1, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(("model", "layer"), [("test_resnet", "layer3"), ("test_vit", None)])
def test_round_trip(model: str, layer: str | None, tmp_path: Path) -> None:
    student = build_student(info(model), layer, seed=2)
    save_student(student, tmp_path / "student.safetensors")
    loaded = load_student(tmp_path)
    x = torch.rand(2, 3, 32, 32)
    assert loaded.layer == student.layer and loaded.info == student.info
    assert torch.equal(loaded(x), student.eval()(x))


def test_a_seed_fixes_the_weights_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again = (build_student(info("test_vit"), seed=5) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert first.training
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )


def test_building_moves_no_running_statistics() -> None:
    assert not build_student(info("test_resnet")).net.bn1.running_mean.any()


@pytest.mark.parametrize("model", ["resnet10tt", "hf-hub:timm/resnet18.a1_in1k", "no_such_model"])
def test_unknown_models_are_named_without_asking_the_network(model: str) -> None:
    with pytest.raises(UserError, match=f"unknown timm model '{model}': .*timm.list_models") as e:
        build_student(info(model))
    assert ("resnet10t" in str(e.value)) == (model == "resnet10tt")
    assert len(str(e.value)) < 250


def test_unknown_tag_layer_and_a_size_that_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"timm:test_vit.xyz cannot .*Invalid pretrained tag"):
        build_student(info("test_vit.xyz"))
    with pytest.raises(UserError, match="unknown layer of timm:test_resnet 'layer9': did you mean"):
        build_student(info("test_resnet"), "layer9")
    with pytest.raises(UserError, match=r"timm:test_vit .* images of"):
        build_student(info("test_vit", (3, 2, 2)))


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_student(build_student(info("test_vit")), tmp_path / "student.safetensors")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm is not installed: .*'\.\[timm\]'"):
        build_student(info("test_vit"))
    with pytest.raises(UserError, match=r"pip install '\.\[timm\]'"):
        load_student(tmp_path)
