"""Files in CIFAR-10-C's layout: read in place, and refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest

from clarep.data.sets.official_corruptions import load_official, official_names
from clarep.errors import UserError

NAMES = ("cat", "dog", "ship")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images at five severities; the first pixel tells severity and image."""
    x = np.zeros((20, 8, 8, 3), np.uint8)
    x[:, 0, 0, 0] = [10 * severity + i for severity in range(1, 6) for i in range(4)]
    np.save(tmp_path / "fog.npy", x)
    np.save(tmp_path / "snow.npy", 255 - x)
    np.save(tmp_path / "labels.npy", np.tile(np.array([2, 0, 1, 2], np.uint8), 5))
    return tmp_path


def test_each_severity_is_its_own_block(folder: Path):
    assert official_names(folder) == ["fog", "snow"]
    for severity in (1, 3, 5):
        data = load_official(folder, "fog", severity, NAMES)
        assert data.labels.tolist() == [2, 0, 1, 2]
        expected = [10 * severity + i for i in range(4)]
        assert data.images(range(4))[:, 0, 0, 0].tolist() == expected
    assert load_official(folder, "snow", 2, NAMES).images([1])[0, 0, 0, 0] == 255 - 21


def test_labels_of_one_severity_do_too(folder: Path):
    np.save(folder / "labels.npy", np.array([2, 0, 1, 2]))
    assert load_official(folder, "fog", 5, NAMES).labels.tolist() == [2, 0, 1, 2]


def test_the_file_is_mapped_not_read(folder: Path):
    data = load_official(folder, "fog", 1, NAMES)
    pixels = data.read(0)
    assert isinstance(pixels, np.memmap)


def test_missing_files_are_named(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"unknown corruption in .* 'fogg': did you mean fog"):
        load_official(folder, "fogg", 1, NAMES)
    with pytest.raises(UserError, match=r"severity 0 is outside 1 to 5"):
        load_official(folder, "fog", 0, NAMES)
    (folder / "labels.npy").unlink()
    with pytest.raises(UserError, match=r"labels.npy is missing"):
        load_official(folder, "fog", 1, NAMES)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"holds no corruption"):
        official_names(empty)


def test_pickled_objects_are_refused(folder: Path):
    np.save(folder / "fog.npy", np.array([{"a": 1}] * 5, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"cannot read .*fog.npy as an .npy: .* Python objects"):
        load_official(folder, "fog", 1, NAMES)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_damaged_files_are_refused(folder: Path, content: bytes):
    (folder / "fog.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*fog.npy"):
        load_official(folder, "fog", 1, NAMES)


def test_a_truncated_file_is_refused(folder: Path):
    whole = (folder / "fog.npy").read_bytes()
    (folder / "fog.npy").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"cannot read .*fog.npy"):
        load_official(folder, "fog", 1, NAMES)


def test_an_archive_is_refused(folder: Path):
    np.savez(folder / "fog.npz", x=np.zeros(5))
    (folder / "fog.npz").rename(folder / "fog.npy")
    with pytest.raises(UserError, match=r"is an archive"):
        load_official(folder, "fog", 1, NAMES)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((19, 8, 8, 3), np.uint8), r"19 images, which are no five severities"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"0 images, which are no five severities"),
        (np.zeros((20, 3, 8, 8), np.uint8), r"channels last"),
        (np.zeros((20, 8, 8, 3), np.float32), r"float32: give uint8"),
        (np.zeros((25, 8, 8, 3), np.uint8), r"20 labels, the corruptions have 5 images"),
        (np.uint8(3), r"a single value"),
    ],
)
def test_another_shape_or_type_is_refused(folder: Path, array: np.ndarray, message: str):
    np.save(folder / "fog.npy", array)
    with pytest.raises(UserError, match=message):
        load_official(folder, "fog", 1, NAMES)


def test_labels_that_do_not_fit_are_refused(folder: Path):
    np.save(folder / "labels.npy", np.arange(20) % 3)
    with pytest.raises(UserError, match=r"differ between severities"):
        load_official(folder, "fog", 1, NAMES)
    np.save(folder / "labels.npy", np.full(20, 3))
    with pytest.raises(UserError, match=r"label 3 of image 0"):
        load_official(folder, "fog", 1, NAMES)
