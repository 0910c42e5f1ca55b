"""NumPy's files: what a header declares is held against the bytes; mutated bytes are refused."""

import io
import resource
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from clarep.data.npy_files import open_archive, read_npy
from clarep.data.npz import load_npz
from clarep.errors import UserError

X = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
ARRAYS = {
    "c": X,
    "fortran": np.asfortranarray(X),
    "big endian": np.arange(5, dtype=">i4"),
    "text": np.array(["a", "bcd"]),
    "empty": X[:0],
    "scalar": np.array(3),
}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let this process take 1 GB more than it has: an allocation by a hostile header fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def npy(shape: str, dtype: str = "|u1", content: bytes = b"") -> bytes:
    """An .npy whose header says anything."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read_as_numpy_reads_it(tmp_path: Path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    with open_archive(tmp_path / "a.npz") as archive:
        assert set(archive) == set(ARRAYS)
        for name, array in ARRAYS.items():
            assert_array_equal(archive[name], array)
            assert archive[name].dtype == array.dtype
    for name, array in ARRAYS.items():
        if array.size > 1:
            np.save(tmp_path / f"{name}.npy", array)
            assert_array_equal(read_npy(tmp_path / f"{name}.npy"), array)


HEADERS = {
    "terabytes": npy("(10, 1000000, 1000000)"),
    "beyond 64 bits": npy("(" + "9" * 30 + ", 3)"),
    "a number of 5,000 digits": npy("(" + "9" * 5_000 + ",)"),
    "gigabytes": npy("(4, 1000, 1000000)", content=b"abc"),
    "negative": npy("(-1, 4)", content=b"abcd"),
    "less than there is": npy("(2,)", content=b"abc"),
    "objects": npy("(1,)", "|O", b"abcdefgh"),
    "endless of nothing": npy("(" + "9" * 30 + ",)", "|V0"),
    "no tuple": npy("[[[("),
    "no dictionary": b"\x93NUMPY\x01\x00\x05\x00{'de\n",
    "nested": npy("(" * 3_000 + ")" * 3_000),
    "a version of its own": b"\x93NUMPY\x09\x09" + npy("(2,)", content=b"ab")[8:],
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_lies_is_refused_before_memory_is_taken(
    tmp_path: Path, little_memory: None, case: str
):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", HEADERS[case])
        archive.writestr("y.npy", npy("(1,)", content=b"\0"))
    with pytest.raises(UserError, match=r"cannot read .*a\.npz"):
        load_npz(tmp_path / "a.npz")
    (tmp_path / "a.npy").write_bytes(HEADERS[case])
    with pytest.raises(UserError, match=r"cannot read .*a\.npy"):
        read_npy(tmp_path / "a.npy")


def test_a_size_in_the_archives_table_that_cannot_be_is_refused(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=X, y=np.arange(3))
    table = path.read_bytes().rindex(b"PK\x01\x02", 0, path.read_bytes().rindex(b"PK\x01\x02"))
    content = bytearray(path.read_bytes())
    content[table + 24 : table + 28] = struct.pack("<I", 2**31)  # its unpacked size
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"'x' declares 2147483648 bytes, packed in"):
        load_npz(path)


def test_a_changed_byte_of_pixels_is_found(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.savez(path, x=X, y=np.arange(3))
    content = bytearray(path.read_bytes())
    content[content.index(X.tobytes()) + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32"):
        load_npz(path)


def archives(folder: Path) -> list[bytes]:
    """One archive of every kind: stored, packed, of JPEGs."""
    stream = io.BytesIO()
    Image.fromarray(X[0]).save(stream, "JPEG")
    jpeg = np.frombuffer(stream.getvalue() * 2, np.uint8)
    offset = np.array([0, len(jpeg) // 2, len(jpeg)])
    np.savez(folder / "0.npz", x=X, y=np.arange(3), classes=np.array(["a", "b", "c"]))
    np.savez_compressed(folder / "1.npz", x_train=X, y_train=np.arange(3))
    np.savez(folder / "2.npz", jpeg=jpeg, offset=offset, label=np.arange(2))
    return [(folder / f"{i}.npz").read_bytes() for i in range(3)]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Change some bytes, drop or double a piece, put in what Python's parser minds."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at, length = rng.integers(0, len(changed)), int(rng.integers(1, 9))
        kind = rng.integers(0, 5)
        if kind == 0:
            changed[at : at + length] = rng.bytes(length)
        elif kind == 1:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        else:
            header = changed.find(b"NUMPY") + 10  # where Python's parser reads
            changed[header + int(rng.integers(0, 70))] = int(
                rng.choice(list(b"(){}[],'\\9-LO#:\n"))
            )
        if len(changed) < 60:
            break
    return bytes(changed)


def try_mutations(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Load mutated archives: every one loads or is refused in one sentence."""
    rng, originals = np.random.default_rng(seed), archives(folder)
    ended = {"loaded": 0, "refused": 0}
    for i in range(count):
        path = folder / "mutated.npz"
        mutate = inner_mutated if i % 2 else mutated
        path.write_bytes(mutate(originals[i % 3], rng))
        try:
            data = load_npz(path)
            for j in range(len(data)):
                data.read(j)
            ended["loaded"] += 1
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
            ended["refused"] += 1
    return ended


def inner_mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Mutate the arrays of an archive and pack them again, so that checksums are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(out, "w") as packed:
        for info in given.infolist():
            member = given.read(info)
            packed.writestr(info.filename, mutated(member, rng) if rng.random() < 0.5 else member)
    return out.getvalue()


def test_mutated_archives_load_or_are_refused_in_one_sentence(tmp_path: Path):
    ended = try_mutations(tmp_path, count=400, seed=0)
    assert ended["refused"] > 200 and sum(ended.values()) == 400
