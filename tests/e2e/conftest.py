"""A folder of photographs as most users have one, and what clarep made of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from clarep.cli.main import main
from clarep.data.backdrops import SCENES, _photograph
from clarep.engine.artefacts import read_json, write_json

PHOTO_CLASSES = {"chelsea": 3, "coffee": 4, "grass": 7}
PHOTOS_EACH = 12
TEACHER = "--train.steps 4 --train.batch-size 8 --train.unet.widths 8 16 --train.unet.embed-dim 16"
STUDENT = "--train.epochs 2 --train.batch-size 16 --train.learning-rate 0.05"


def write_photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, scene in PHOTO_CLASSES.items():
        assert name in SCENES[scene][1]
        (folder / name).mkdir(parents=True)
        for i in range(PHOTOS_EACH):
            width, height = rng.integers(40, 90, 2)
            photo = _photograph(scene)
            left, top = rng.integers(photo.width - width), rng.integers(photo.height - height)
            crop = photo.crop((left, top, left + width, top + height))
            crop.save(folder / name / f"{i:02}.jpg")
    (folder / "coffee" / "new.heic").write_bytes(b"what a telephone takes")


@pytest.fixture(scope="session")
def photos_made(tmp_path_factory) -> Path:
    """A folder with photos/, the teacher t, its CLAReps c/canon, and the students v and w."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.chdir(home)
        write_photos(Path("photos"))
        data = "--data photos --image-size 32"
        assert main(f"train-teacher {data} --out t {TEACHER}".split()) == 0
        identify = "--fraction 0.3 --k 2 --steps 2 --solver euler --inversion euler"
        assert main(f"identify {data} --teacher t --out c {identify}".split()) == 0
        assert main(f"distill {data} --method vanilla --out v {STUDENT}".split()) == 0
        last = "--train.pick last --train.seed 1 --canon c/canon"
        assert main(f"distill {data} --out c {STUDENT} {last}".split()) == 0
    return home


@pytest.fixture
def photos_home(photos_made, tmp_path, monkeypatch) -> Path:
    """A copy of it to write in."""
    home = tmp_path / "home"
    shutil.copytree(photos_made, home)
    for path in home.rglob("config.json"):  # as if it had been made here
        stored = read_json(path)
        stored["data_options"]["data"] = str(home / "photos")
        write_json(path, stored, sealed=True)
    monkeypatch.chdir(home)
    return home
