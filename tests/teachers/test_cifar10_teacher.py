import json
from importlib.resources import files

from clarep.teachers.zoo import load_teacher


def test_the_cifar10_teacher_is_bundled_with_its_recipe_and_quality():
    assets = files("clarep.teachers") / "assets"
    teacher = load_teacher("cifar10")
    card = json.loads((assets / "cifar10.json").read_text())
    assert teacher.class_names[:3] == ("airplane", "automobile", "bird")
    assert teacher.num_classes == 10 and teacher.image_shape == (3, 32, 32)
    assert card["weights"]["sha256"] == teacher.fingerprint
    assert card["weights"]["bytes"] <= 16e6
    assert "JPEG" in card["recipe"]["data"]  # lossy copies: not comparable with published tables
    assert set(card["held_out_loss"]) == {"0.01-0.1", "0.1-0.5", "0.5-2", "2-10", "10-80"}
    assert card["quality"]["samples"] and card["round_trip"]["psnr_median"] > 30
    history = (assets / "cifar10_history.jsonl").read_text().splitlines()
    assert json.loads(history[-1])["step"] == card["training"]["steps"]
