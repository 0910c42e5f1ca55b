import json
from importlib.resources import files

from clarep.data.garments import CLASS_NAMES
from clarep.teachers.zoo import load_teacher


def test_the_biased_teacher_is_bundled_with_its_recipe():
    teacher = load_teacher("backdrops-biased")
    card = json.loads((files("clarep.teachers") / "assets" / "backdrops-biased.json").read_text())
    assert teacher.class_names == CLASS_NAMES
    assert teacher.fingerprint != load_teacher("backdrops").fingerprint
    assert "correlation=0.9" in json.dumps(card)
