"""The border: names, paths, and options that do not apply."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from clarep.data.backdrops import load_backdrops
from clarep.data.garments import load_garments
from clarep.data.load import DataConfig, load_data
from clarep.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a" / "x.png")
    return tmp_path


def test_the_default_is_backdrops():
    assert load_data(DataConfig()).name == load_backdrops().name


def test_every_option_reaches_backdrops():
    config = DataConfig(
        data="backdrops", split="test", correlation=0.5, variant="only_bg", data_seed=9
    )
    expected = load_backdrops("test", 9, 0.5, "only_bg")
    data = load_data(config)
    assert data.name == expected.name
    assert_array_equal(data.read(3), expected.read(3))


def test_garments_by_name():
    data = load_data(DataConfig(data="garments", split="test", image_size=32))
    assert_array_equal(data.read(3), load_garments("test").read(3))


def test_a_folder_and_an_archive_by_path(folder: Path):
    assert load_data(DataConfig(data=str(folder), image_size=4)).read(0).shape == (4, 4, 3)
    np.savez(folder / "s.npz", x=np.zeros((1, 5, 5), np.uint8), y=np.array([0]))
    assert load_data(DataConfig(data=str(folder / "s.npz"))).read(0).shape == (5, 5, 3)


def test_a_path_or_a_name_alone_is_data(folder: Path):
    assert load_data(folder).name == load_data(str(folder)).name == str(folder)
    assert load_data("garments").name == "garments/train"


def test_a_name_that_is_none_is_answered_with_the_nearest():
    told = r"'backdrop': did you mean backdrops or noise-backdrops\?.*no such file"
    with pytest.raises(UserError, match=told):
        load_data(DataConfig(data="backdrop"))
    with pytest.raises(UserError, match="unknown data set ''"):
        load_data(DataConfig(data=""))
    with pytest.raises(UserError, match=r"unknown data set '~nosuchuser/x'.*no such file"):
        load_data(DataConfig(data="~nosuchuser/x"))


def test_a_file_of_another_kind_is_refused(folder: Path):
    with pytest.raises(UserError, match=r"x\.png is neither a folder nor an \.npz"):
        load_data(DataConfig(data=str(folder / "a" / "x.png")))


@pytest.mark.parametrize("data", ["garments", "backdrops"])
def test_named_sets_are_not_resized(data: str):
    with pytest.raises(UserError, match="32x32 and are not resized"):
        load_data(DataConfig(data=data, image_size=64))


@pytest.mark.parametrize("image_size", [0, -3])
def test_a_side_is_positive(image_size: int):
    with pytest.raises(UserError, match="below 1"):
        load_data(DataConfig(image_size=image_size))


OPTIONS = {
    "correlation": 0.5,
    "variant": "only_fg",
    "data_seed": 1,
    "share": 0.5,
    "classes_file": Path("c.txt"),
    "alpha_colour": "black",
}
REFUSED = {
    "garments": ["correlation", "variant", "data_seed", "share", "classes_file", "alpha_colour"],
    "backdrops": ["share", "classes_file", "alpha_colour"],
    "noise-backdrops": ["correlation", "share", "classes_file", "alpha_colour"],
    "FOLDER": ["correlation", "variant", "data_seed"],
    "FOLDER/s.npz": ["correlation", "variant", "data_seed", "classes_file", "alpha_colour"],
}


@pytest.mark.parametrize(
    ("data", "option"), [(data, option) for data, names in REFUSED.items() for option in names]
)
def test_an_option_that_does_not_apply_is_refused(folder: Path, data: str, option: str):
    np.savez(folder / "s.npz", x=np.zeros((1, 5, 5), np.uint8), y=np.array([0]))
    place = data.replace("FOLDER", str(folder))
    load_data(DataConfig(data=place))
    with pytest.raises(UserError, match=f"`{option}=.*` does not apply to"):
        load_data(DataConfig(data=place, **{option: OPTIONS[option]}))


def test_a_share_is_of_every_class_by_seed(tmp_path: Path):
    x, y = np.arange(40 * 75).astype(np.uint8).reshape(40, 5, 5, 3), np.repeat([0, 1], [10, 30])
    np.savez(tmp_path / "s.npz", x=x, y=y)
    place = str(tmp_path / "s.npz")
    whole = load_data(DataConfig(data=place))
    parts = [load_data(DataConfig(data=place, share=0.2, data_seed=seed)) for seed in (0, 0, 1)]
    assert [np.bincount(part.labels).tolist() for part in parts] == [[2, 6]] * 3
    assert parts[0].sha256() == parts[1].sha256() != parts[2].sha256()
    marks = whole.marks(np.arange(40))
    assert set(parts[0].marks(np.arange(8))) <= set(marks)


SHARED = Path(
    os.environ.get("CLAREP_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)


@pytest.mark.skipif(
    not (SHARED / "cifar10_jpegbytes_test.npz").is_file(),
    reason=f"no CIFAR-10 in {SHARED}: set CLAREP_DATA to its folder",
)
def test_cifar10_of_the_data_room():
    path = str(SHARED / "cifar10_jpegbytes_test.npz")
    data = load_data(DataConfig(data=path, split="test", image_size=32))
    assert "lossy" in data.name
    assert np.bincount(data.labels).tolist() == [1000] * 10
    assert data.class_names[0] == "airplane"
    batch = data.images([0, 9999]).float()
    assert batch.shape == (2, 3, 32, 32)
    assert batch.std() > 10
