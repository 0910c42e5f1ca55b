import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from clarep.data.garments import CLASS_NAMES
from clarep.errors import UserError
from clarep.teachers import zoo
from clarep.teachers.zoo import BUNDLED, load_teacher, teacher_path

ASSETS = Path(str(files("clarep.teachers") / "assets"))
WEIGHTS = ASSETS / "backdrops.safetensors"
bundled = pytest.mark.skipif(not WEIGHTS.exists(), reason="the bundled teacher is being trained")


def test_the_bundled_assets_are_small():
    sizes = {path.name: path.stat().st_size for path in ASSETS.iterdir()}
    assert all(teacher_path(name).exists() for name in BUNDLED)
    assert max(sizes.values()) <= 8e6, sizes  # each; they travel with every installation
    assert sum(sizes.values()) <= 16e6


def test_weights_of_a_distribution_of_their_own_are_named_where_they_lack(monkeypatch):
    monkeypatch.setattr(zoo, "find_spec", lambda name: None)
    assert teacher_path("backdrops").exists()
    with pytest.raises(UserError, match="clarep-weights"):
        teacher_path("cifar10")


@bundled
def test_the_bundled_teacher_denoises():
    from clarep.data.backdrops import load_backdrops
    from clarep.data.labelled import to_unit_range

    teacher, data = load_teacher("backdrops"), load_backdrops("test")
    assert teacher.class_names == CLASS_NAMES and teacher.image_shape == (3, 32, 32)
    x = to_unit_range(data.images(range(20)))
    labels = torch.from_numpy(data.labels[:20])
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for sigma, most in ((0.1, 0.08), (0.5, 0.25), (2.0, 0.45)):
        denoised = teacher.denoise(x + sigma * eps, torch.full((20,), sigma), labels)
        error = float((denoised - x).square().mean().sqrt())
        assert error < most


@bundled
def test_the_bundled_card_describes_the_bundled_weights():
    card = json.loads((ASSETS / "backdrops.json").read_text())
    log = (ASSETS / "backdrops_history.jsonl").read_text().splitlines()
    assert card["name"] == "backdrops"
    assert card["weights"]["sha256"] == load_teacher("backdrops").fingerprint
    assert card["recipe"]["data"] == "backdrops/train/seed=0/correlation=0/original"
    assert json.loads(log[-1])["step"] == card["training"]["steps"]
    assert json.loads(log[-1])["held_out"] == card["held_out_loss"]
    assert [sample["guidance"] for sample in card["quality"]["samples"]] == [1.0, 3.0]


@bundled
def test_the_default_recipe_is_that_of_the_bundled_teacher():
    from dataclasses import asdict

    from clarep.teachers.teacher_config import TrainConfig

    recipe = json.loads((ASSETS / "backdrops.json").read_text())["recipe"]["train"]
    drawn = {"image_size": 32, "image_channels": 3, "num_classes": 10}
    default = json.loads(json.dumps(asdict(TrainConfig())))
    assert recipe == default | {"unet": default["unet"] | drawn}
