"""Archives of pixels and of JPEG bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from clarep.data.decode_image import decode_image
from clarep.data.files import NoSplitError
from clarep.data.npz import load_npz
from clarep.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
Y = np.array([0, 2, 1, 2], np.uint8)


def save(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "set.npz"
    np.savez(path, **arrays)
    return path


def test_rgb_pixels_are_kept(tmp_path: Path):
    data = load_npz(save(tmp_path, x=RGB, y=Y))
    assert_array_equal(data.images(range(4)), RGB.transpose(0, 3, 1, 2))
    assert data.labels.tolist() == [0, 2, 1, 2]
    assert data.labels.dtype == np.int64
    assert data.class_names == ("0", "1", "2")


@pytest.mark.parametrize("x", [RGB[..., 0], RGB[..., :1]], ids=["NHW", "NHW1"])
def test_grey_becomes_rgb(tmp_path: Path, x: np.ndarray):
    data = load_npz(save(tmp_path, x=x, y=Y))
    assert_array_equal(data.read(3), RGB[3, :, :, :1].repeat(3, axis=2))


def test_splits_and_class_names(tmp_path: Path):
    names = np.array(["a", "b", "c"])
    path = save(
        tmp_path, x_train=RGB[:3], y_train=Y[:3], x_test=RGB[3:], y_test=Y[3:], classes=names
    )
    train, test = load_npz(path, "train"), load_npz(path, "test")
    assert (len(train), len(test)) == (3, 1)
    assert_array_equal(test.read(0), RGB[3])
    assert train.class_names == test.class_names == ("a", "b", "c")
    assert train.name != test.name
    with pytest.raises(UserError, match=r"unknown split .* 'tst': did you mean test"):
        load_npz(path, "tst")


def test_splits_have_the_same_classes_without_names(tmp_path: Path):
    path = save(tmp_path, x_train=RGB[:1], y_train=Y[:1], x_test=RGB[3:], y_test=Y[3:])
    assert load_npz(path, "train").class_names == ("0", "1", "2")


def test_an_undivided_archive_is_no_test_set(tmp_path: Path):
    with pytest.raises(UserError, match="counts as 'train'"):
        load_npz(save(tmp_path, x=RGB, y=Y), "test")


def test_an_undivided_file_says_how_a_divided_one_looks(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.arange(2))
    words = "a.npz is not divided .* x_test and y_test inside, or NAME_test.npz beside NAME_train"
    with pytest.raises(UserError, match=words):
        load_npz(tmp_path / "a.npz", "test")


def test_a_file_for_each_split(tmp_path: Path):
    np.savez(tmp_path / "a_train.npz", x=RGB[:3], y=Y[:3])
    with pytest.raises(UserError, match="counts as 'train'"):
        load_npz(tmp_path / "a_train.npz", "test")
    np.savez(tmp_path / "a_test.npz", **jpeg_arrays([jpeg_bytes(RGB[3])]))
    test = load_npz(tmp_path / "a_train.npz", "test")
    assert len(test) == 1 and "a_test.npz" in test.name
    assert len(load_npz(tmp_path / "a_train.npz")) == 3
    np.savez(tmp_path / "a_train.npz", x_train=RGB, y_train=Y, x_test=RGB[:2], y_test=Y[:2])
    assert len(load_npz(tmp_path / "a_train.npz", "test")) == 2  # its own comes first


@pytest.mark.parametrize("name", ["test", "pets_test", "pets-test", "x.test", "val", "pets_val"])
def test_an_archive_whose_name_says_a_split_is_that_split(tmp_path: Path, name: str):
    path = tmp_path / f"{name}.npz"
    split = path.stem[-4:].strip("_")
    np.savez(path, x=RGB, y=Y)
    assert len(load_npz(path, split)) == 4
    other = path.with_name(f"{name.removesuffix(split)}train.npz")
    with pytest.raises(NoSplitError, match=rf"counts as '{split}' .* no {other.name} .*`split="):
        load_npz(path, "train")
    np.savez(other, x=RGB[:2], y=Y[:2])
    assert len(load_npz(path, "train")) == len(load_npz(other)) == 2
    assert len(load_npz(other, split)) == 4


@pytest.mark.parametrize("name", ["latest", "attest", "testimony", "interval", "pets_tests"])
def test_a_name_that_only_holds_the_word_says_nothing(tmp_path: Path, name: str):
    np.savez(tmp_path / f"{name}.npz", x=RGB, y=Y)
    assert len(load_npz(tmp_path / f"{name}.npz", "train")) == 4
    with pytest.raises(NoSplitError, match="counts as 'train'"):
        load_npz(tmp_path / f"{name}.npz", "test")


def test_image_size_resizes(tmp_path: Path):
    data = load_npz(save(tmp_path, x=RGB, y=Y), image_size=6)
    assert_array_equal(data.read(0), RGB[0, :, 1:7])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": RGB.astype(np.float32), "y": Y}, "float32: give uint8"),
        ({"x": RGB.transpose(0, 3, 1, 2), "y": Y}, "channels last"),
        ({"x": RGB[:2], "y": Y}, "2 images but 4 labels"),
        ({"x": RGB[:0], "y": Y[:0]}, "no images"),
        ({"x": RGB, "y": Y.astype(np.float64)}, "whole numbers"),
        ({"x": RGB, "y": Y[:, None]}, "whole numbers"),
        ({"x": RGB, "y": np.array([0, -1, 1, 2])}, r"label -1 of image 1 .* outside"),
        ({"x": RGB, "y": Y, "classes": np.array(["a", "b"])}, r"label 2 of image 1 .* outside"),
        ({"x": RGB, "y": np.array([0, 1, 2, 10**9])}, "add 'classes'"),
        ({"x": RGB, "y": Y, "classes": np.array(["a", "b", "a"])}, "different names"),
        ({"images": RGB, "labels": Y}, "holds the arrays images, labels"),
        ({"x": np.array([object()] * 4), "y": Y}, "pickled Python objects"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, arrays: dict, words: str):
    with pytest.raises(UserError, match=words):
        load_npz(save(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("keep", "found"), [(0, "empty .zero bytes."), (10, "damaged"), (500, "damaged")]
)
def test_a_damaged_archive_is_named(tmp_path: Path, keep: int, found: str):
    path = save(tmp_path, x=RGB, y=Y)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        UserError, match=rf"cannot read .*set\.npz as an \.npz: it is {found}.*; replace it"
    ):
        load_npz(path)


def test_a_single_array_is_no_archive(tmp_path: Path):
    np.save(tmp_path / "x.npy", RGB)
    with pytest.raises(UserError, match="single array"):
        load_npz(tmp_path / "x.npy")


def jpeg_bytes(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def jpeg_arrays(parts: list[bytes]) -> dict[str, np.ndarray]:
    return {
        "jpeg": np.frombuffer(b"".join(parts), np.uint8),
        "offset": np.cumsum([0, *map(len, parts)]),
        "label": Y[: len(parts)],
        "classes": np.array(["a", "b", "c"]),
    }


def test_jpeg_bytes_are_decoded_and_called_lossy(tmp_path: Path):
    parts = [jpeg_bytes(pixels) for pixels in RGB]
    data = load_npz(save(tmp_path, **jpeg_arrays(parts)))
    assert "lossy" in data.name
    assert data.labels.tolist() == [0, 2, 1, 2]
    for i, part in enumerate(parts):
        assert_array_equal(data.read(i), decode_image(part, "it"))


def test_jpegs_of_several_sizes_need_an_image_size(tmp_path: Path):
    path = save(tmp_path, **jpeg_arrays([jpeg_bytes(RGB[0]), jpeg_bytes(RGB[1, :4])]))
    with pytest.raises(UserError, match="`image_size"):
        load_npz(path)
    assert load_npz(path, image_size=4).images([0, 1]).shape == (2, 3, 4, 4)


def test_a_damaged_jpeg_is_named_when_it_is_read(tmp_path: Path):
    whole = jpeg_bytes(RGB[0])
    data = load_npz(save(tmp_path, **jpeg_arrays([whole, whole[: len(whole) // 2], b""])))
    assert data.read(0).shape == (6, 8, 3)
    for i in (1, 2):
        with pytest.raises(UserError, match=rf"set\.npz/{i}"):
            data.read(i)


@pytest.mark.parametrize(
    "offset", [[0, 5, 3, 10], [0, 5, 10], [1, 5, 6, 10], [0, 3, 5, 9], [0.0, 3.0, 5.0, 10.0]]
)
def test_wrong_offsets_are_named(tmp_path: Path, offset: list):
    arrays = jpeg_arrays([b"abc", b"de", b"fghij"]) | {"offset": np.array(offset)}
    with pytest.raises(UserError, match="'offset'"):
        load_npz(save(tmp_path, **arrays))
