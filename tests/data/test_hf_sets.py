"""Which tables of Hugging Face's `datasets` are images with labels; no code of theirs is run."""

import sys
from pathlib import Path

import numpy as np
import pytest

from clarep.data.files import NoSplitError
from clarep.data.labelled import UnreadableImage
from clarep.data.load import DataConfig, load_data
from clarep.errors import UserError
from image_layouts import folders, png, saved_to_disk

datasets = pytest.importorskip("datasets")
X = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3)).astype(np.uint8)
IMAGES = [{"bytes": png(x), "path": None} for x in X]


@pytest.fixture(autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def table(folder: Path, columns: dict, **kinds) -> str:
    found = {"image": datasets.Image(), "label": datasets.Value("int64")} | kinds
    features = datasets.Features({name: found[name] for name in columns})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))
    return f"hf:{folder}"


def load(place: str, **options):
    return load_data(DataConfig(data=place, **options))


def test_numbers_without_names_are_classes(tmp_path: Path):
    data = load(table(tmp_path / "t", {"image": IMAGES, "label": [2, 0, 0, 1]}))
    assert data.class_names == ("0", "1", "2") and data.labels.tolist() == [2, 0, 0, 1]


def test_a_part_by_its_name(tmp_path: Path):
    place = saved_to_disk(tmp_path)
    assert len(load(f"{place}:test", split="test")) == 6
    assert len(load(f"{place}:train")) == 12
    with pytest.raises(NoSplitError, match="counts as 'test'"):
        load(f"{place}:test")
    with pytest.raises(NoSplitError, match=r"unknown split of .*'other'"):
        load(f"{place}:other")
    one = table(tmp_path / "t", {"image": IMAGES, "label": [0, 0, 0, 1]})
    for place, split in ((f"{one}:train", "train"), (one, "test")):
        with pytest.raises(NoSplitError, match="is not divided into splits"):
            load(place, split=split)


def test_validation_is_val(tmp_path: Path):
    folders(tmp_path)
    (tmp_path / "test").rename(tmp_path / "validation")
    assert len(load(f"hf:{tmp_path}", split="val")) == 6


@pytest.mark.parametrize(
    ("columns", "kinds", "told"),
    [
        ({"image": IMAGES}, {}, r"columns image \(Image\): give"),
        ({"label": [0]}, {}, r"columns label \(Value\): give"),
        (
            {"image": IMAGES, "fine": [0] * 4, "coarse": [0] * 4},
            {name: datasets.ClassLabel(names=["a"]) for name in ("fine", "coarse")},
            r"fine \(ClassLabel\), coarse",
        ),
        ({"image": IMAGES, "label": [0, 0, 0, -1]}, {}, "label -1 of image 3"),
        ({"image": IMAGES, "label": [0, 0, 0, 10**6]}, {}, "needs names"),
        ({"image": IMAGES, "label": [0, None, 0, 0]}, {}, "labels of"),
        ({"image": IMAGES, "label": list("abab")}, {"label": datasets.Value("string")}, "labels"),
        (
            {"image": [], "label": []},
            {},
            "cannot read hf:",
        ),  # the library itself reads no empty one
    ],
)
def test_tables_that_are_no_labelled_images_are_refused(tmp_path, columns, kinds, told):
    with pytest.raises(UserError, match=told):
        load(table(tmp_path / "t", columns, **kinds))


def test_an_image_that_is_none_or_elsewhere_is_unreadable(tmp_path: Path):
    rows = {"image": [IMAGES[0], None, {"bytes": b"x", "path": None}], "label": [0] * 3}
    data = load(table(tmp_path / "t", rows), image_size=4)
    assert data.read(0).shape == (4, 4, 3)
    for i in (1, 2):
        with pytest.raises(UnreadableImage, match=f"hf:.*/{i}"):
            data.read(i)
    data = load("hf:" + folders(tmp_path / "f"), image_size=4)
    (tmp_path / "f" / "train" / "ant" / "01.png").unlink()
    with pytest.raises(UnreadableImage, match=r"there is no file .*ant/01\.png"):
        data.read(1)


def test_no_code_of_a_data_set_is_run(tmp_path: Path):
    root = tmp_path / "script"
    root.mkdir()
    (root / "script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(UserError, match="cannot read hf:"):
        load(f"hf:{root}")
    folders(root)
    assert len(load(f"hf:{root}")) == 12
    assert not (tmp_path / "ran").exists()


def test_an_older_library_that_may_run_code_is_refused(tmp_path: Path, monkeypatch):
    place = table(tmp_path / "t", {"image": IMAGES, "label": [0] * 4})
    monkeypatch.setattr(datasets, "__version__", "2.19.0")
    with pytest.raises(UserError, match=r"2\.19\.0 may run code"):
        load(place)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"\.\[web\]"):
        load(place)


def test_damaged_tables_are_refused(tmp_path: Path):
    place = table(tmp_path / "t", {"image": IMAGES, "label": [0] * 4})
    for path in sorted((tmp_path / "t").iterdir()):
        whole = path.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], b"\xff" * len(whole)):
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=r"cannot read hf:|columns"):
                load(place)
        path.write_bytes(whole)
    assert len(load(place)) == 4
