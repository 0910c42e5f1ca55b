"""CIFAR-10's layouts, made here byte by byte; pickles that do more are refused."""

import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from clarep.data.cifar import find_cifar10, load_cifar10
from clarep.data.cifar_batch import records
from clarep.data.load import DataConfig, load_data
from clarep.errors import UserError

RNG = np.random.default_rng(0)
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
X = RNG.integers(0, 256, (6, 3, 3072), dtype=np.uint8)  # batch, image, pixels
Y = RNG.integers(0, 10, (6, 3), dtype=np.uint8)


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, x, y in zip(BATCHES, X, Y, strict=True):
        (folder / f"{name}.bin").write_bytes(
            b"".join(bytes([label]) + pixels.tobytes() for label, pixels in zip(y, x, strict=True))
        )
    return folder


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, x, y in zip(BATCHES, X, Y, strict=True):
        content = {b"data": x, b"labels": y.tolist(), b"batch_label": b"one"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def image(batch: int, i: int) -> np.ndarray:
    """The format's definition: 1024 red bytes row by row, then green, then blue."""
    red, green, blue = X[batch, i].reshape(3, 32, 32)
    return np.stack([red, green, blue], axis=2)


@pytest.mark.parametrize("layout", ["binary", "pickled"])
def test_both_layouts_give_the_images(layout: str, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(layout)
    train, test = load_cifar10(folder), load_cifar10(folder, "test")
    assert (len(train), len(test)) == (15, 3)
    assert train.labels.tolist() == Y[:5].ravel().tolist()
    assert test.labels.tolist() == Y[5].tolist()
    assert_array_equal(train.read(7), image(2, 1))
    assert_array_equal(test.read(2), image(5, 2))
    assert train.class_names[3] == "cat"
    assert load_cifar10(folder, image_size=16).images([0]).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("layout", ["binary", "pickled"])
def test_the_folder_or_its_parent_is_found(layout: str, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(layout)
    ending = ".bin" if layout == "binary" else ""
    assert find_cifar10(folder) == find_cifar10(folder.parent) == (folder, ending)
    assert len(load_data(DataConfig(data=str(folder.parent)))) == 15
    assert len(load_cifar10(folder.parent)) == 15


@pytest.mark.parametrize("layout", ["binary", "pickled"])
def test_a_link_of_the_right_name_is_followed(
    layout: str, request: pytest.FixtureRequest, tmp_path: Path
):
    folder = request.getfixturevalue(layout)
    link = tmp_path / "parent" / folder.name
    link.parent.mkdir()
    link.symlink_to(folder.rename(tmp_path / "real"))
    for place in (link, link.parent):
        assert len(load_data(DataConfig(data=str(place)))) == 15


def test_a_link_to_the_right_name_is_of_that_layout(pickled: Path, tmp_path: Path):
    for name in ("mine", "cifar-10-batches-bin"):
        (tmp_path / name).symlink_to(pickled)
        assert len(load_data(DataConfig(data=str(tmp_path / name)))) == 15


def test_a_folder_of_another_name_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="holds no CIFAR-10: give the folder cifar-10-batches-bin"):
        load_cifar10(tmp_path)


def test_an_original_pickle_is_read(pickled: Path):
    # Python 2 wrote text and arrays' bytes as strings; these are the opcodes it used.
    raw = X[5].tobytes()
    original = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03"
        b"cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x03M\x00\x0c\x86"
        b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        b"U\x06labelsq\x08](K\x01K\x02K\x03eu."
    )
    (pickled / "test_batch").write_bytes(original)
    data = load_cifar10(pickled, "test")
    assert data.labels.tolist() == [1, 2, 3]
    assert_array_equal(data.read(1), image(5, 1))


class Malicious:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused(pickled: Path, tmp_path: Path, protocol: int):
    witness = tmp_path / "ran"
    attack = {b"data": Malicious(os.mkdir, str(witness)), b"labels": [1]}
    content = pickle.dumps(attack, protocol=protocol)
    (pickled / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match=r"test_batch is no CIFAR-10 batch"):
        load_cifar10(pickled, "test")
    assert not witness.exists()
    pickle.loads(content)  # the attack itself works
    assert witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        {b"data": np.array([None]), b"labels": [1]},  # objects inside an array
        {b"data": X[5].astype(np.int64), b"labels": [1, 2, 3]},
        {b"data": Malicious(eval, "1"), b"labels": [1]},
        {b"data": Malicious(np.load, "x.npy"), b"labels": [1]},
        {b"data": X[5], b"labels": [1, 2, 10]},
        {b"data": X[5], b"labels": [1, 2]},
        {b"data": X[5, 0], b"labels": [1]},
        {b"data": X[5]},
        [1, 2],
    ],
)
def test_a_pickle_of_anything_else_is_refused(pickled: Path, content: object):
    (pickled / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match="test_batch"):
        load_cifar10(pickled, "test")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r" + (0x03FFFFFF).to_bytes(4, "little") + b".",  # "remember this as number ..."
        b"\x80\x02cnumpy\nndarray\nI200000000\n\x85R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nI200000000\n\x85U\x01btR.",
    ],
)
def test_a_pickle_that_asks_for_memory_gets_none(pickled: Path, content: bytes):
    (pickled / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match="test_batch"):
        load_cifar10(pickled, "test")
    tracemalloc.start()
    with pytest.raises(Exception):  # noqa: B017 - the process makes any of them a refusal
        records(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_pickle_that_grows_is_stopped(pickled: Path):
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20)  # made bytes 2,000 times
    once = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    (pickled / "test_batch").write_bytes(b"\x80\x02" + text + b"q\x00(" + once * 2000 + b"t.")
    with pytest.raises(UserError, match=r"test_batch is .*MemoryError"):
        load_cifar10(pickled, "test")


@pytest.mark.parametrize("keep", [0, 1, 100, 3000])
def test_a_truncated_pickle_is_named(pickled: Path, keep: int):
    path = pickled / "test_batch"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="test_batch"):
        load_cifar10(pickled, "test")


@pytest.mark.parametrize("keep", [0, 3072])
def test_a_truncated_binary_batch_is_named(binary: Path, keep: int):
    path = binary / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"data_batch_3\.bin has \d+ bytes"):
        load_cifar10(binary)


def test_a_missing_batch_a_wrong_label_and_a_wrong_split_are_named(binary: Path):
    with pytest.raises(UserError, match="did you mean test"):
        load_cifar10(binary, "tests")
    (binary / "test_batch.bin").write_bytes(bytes([10]) + X[0, 0].tobytes())
    with pytest.raises(UserError, match=r"label 10 of image 0 .* outside"):
        load_cifar10(binary, "test")
    (binary / "data_batch_2.bin").unlink()
    with pytest.raises(UserError, match=r"data_batch_2\.bin: No such file"):
        load_cifar10(binary)
