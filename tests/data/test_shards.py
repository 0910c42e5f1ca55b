"""What of tar files becomes images: keys, classes, patterns; and what of them is refused."""

import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from clarep.data.decode_image import decode_image
from clarep.data.files import NoSplitError
from clarep.data.labelled import UnreadableImage, readable_indices
from clarep.data.load import DataConfig, load_data
from clarep.data.tar_files import members, shard_paths
from clarep.errors import UserError
from image_layouts import add, png

X = np.random.default_rng(0).integers(0, 256, (6, 5, 5, 3)).astype(np.uint8)


def write(path: Path, *contents: tuple[str, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in contents:
            add(tar, name, content)
    return path


def samples(*labels: object) -> list[tuple[str, bytes]]:
    found = []
    for i, label in enumerate(labels):
        found += [(f"d/{i}.png", png(X[i])), (f"d/{i}.cls", str(label).encode())]
    return found


def load(place: object, **options):
    return load_data(DataConfig(data=f"wds:{place}", **options))


def test_numbers_are_labels_and_a_class_without_images_keeps_its_own(tmp_path: Path):
    data = load(write(tmp_path / "a.tar", *samples(3, 0, "03\n")))
    assert data.labels.tolist() == [3, 0, 3] and data.class_names == ("0", "1", "2", "3")
    assert list(data.sources) == ["a.tar/d/0.png", "a.tar/d/1.png", "a.tar/d/2.png"]


def test_names_are_classes_sorted_and_a_list_renames_and_chooses(tmp_path: Path):
    path = write(tmp_path / "a.tar", *samples("cow", "ant bee", "cow", "dog"))
    assert load(path).class_names == ("ant bee", "cow", "dog")
    (tmp_path / "c.txt").write_text("cow The cow\nant bee\n")
    data = load(path, classes_file=tmp_path / "c.txt")
    assert data.class_names == ("The cow", "ant bee") and data.labels.tolist() == [0, 1, 0]
    assert_array_equal(data.images([0, 1, 2]).permute(0, 2, 3, 1), X[:3])
    assert data.sources[2] == "a.tar/d/2.png" and "1 samples" in data.notes[0]
    (tmp_path / "c.txt").write_text("other\n")
    with pytest.raises(UserError, match="names no class of"):
        load(path, classes_file=tmp_path / "c.txt")


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_and_foreign_names_in_every_dialect(tmp_path: Path, kind: int):
    name = "x" * 90 + ("" if kind == tarfile.USTAR_FORMAT else "é" * 80)
    path = write(tmp_path / "a.tar", (f"{name}.PNG", png(X[0])), (f"{name}.cls", b"0"), kind=kind)
    assert_array_equal(load(path).read(0), X[0])


def test_what_is_no_sample_is_passed_over_and_told(tmp_path: Path):
    more = [("._1.png", b""), ("noending", b""), ("e/9.png", png(X[5])), ("e/8.cls", b"0")]
    more += [("e/8.seg.png", b"no image of its own"), ("e/7.cls", b""), ("e/7.png", png(X[1]))]
    data = load(write(tmp_path / "a.tar", *samples(0, 1), *more))
    assert len(data) == 2 and len(data.notes) == 1
    assert data.notes[0].startswith("3 samples of wds:") and "first a.tar/e/9 " in data.notes[0]
    with pytest.raises(UserError, match=r"no image with a class \(b\.tar/e/9 is none\)"):
        load(write(tmp_path / "b.tar", *more))


def test_links_devices_and_folders_are_no_images(tmp_path: Path):
    path = write(tmp_path / "a.tar", *samples(0))
    with tarfile.open(path, "a") as tar:
        for i, kind in enumerate(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
        ):
            info = tarfile.TarInfo(f"l{i}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
            add(tar, f"l{i}.cls", b"1")
    data = load(path)
    assert len(data) == 1 and data.class_names == ("0",)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("x-{08..11}.tar", ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar"]),
        ("x-{11..09}.tar", ["x-11.tar", "x-10.tar", "x-09.tar"]),
        ("{y,x}-{08,09}.tar", ["y-08.tar", "y-09.tar", "x-08.tar", "x-09.tar"]),
        ("x-0*.tar", ["x-08.tar", "x-09.tar"]),
        ("", ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar", "y-08.tar", "y-09.tar"]),
    ],
)
def test_patterns_are_those_of_a_shell(tmp_path: Path, pattern: str, wanted: list[str]):
    for name in ("x-08", "x-09", "x-10", "x-11", "y-08", "y-09"):
        (tmp_path / f"{name}.tar").touch()
    found = shard_paths(str(tmp_path / pattern), "train")
    assert [path.name for path in found] == wanted
    assert shard_paths(str(tmp_path / "{split}-08.tar").replace("{split}", "x"), "train")
    with pytest.raises(UserError, match="no shard is called"):
        shard_paths(str(tmp_path / "x-{08..12}.tar"), "train")


@pytest.mark.parametrize("pattern", ["{0..999999999}.tar", "{a,b}" * 19, "{" * 5000, "{a}" * 21])
def test_a_pattern_of_too_many_is_refused_at_once(pattern: str):
    with pytest.raises(UserError, match=r"over|no shard"):
        shard_paths(pattern, "train")


def test_a_split_is_in_the_pattern(tmp_path: Path):
    write(tmp_path / "pets-val.tar", *samples(0))
    with pytest.raises(NoSplitError, match=r"no shard of split 'test': there are .*pets-val\.tar"):
        load(tmp_path / "pets-{split}.tar", split="test")
    assert len(load(tmp_path / "pets-{split}.tar", split="val")) == 1
    with pytest.raises(NoSplitError, match="not divided into splits"):
        load(tmp_path / "pets-val.tar", split="val")


def test_a_shard_cut_anywhere_or_with_a_bit_changed_in_a_header_is_refused(tmp_path: Path):
    whole = write(tmp_path / "a.tar", *samples(0, 1)).read_bytes()
    path, end = tmp_path / "b.tar", whole.rstrip(b"\0")
    end_mark = -(-len(end) // 512) * 512
    for cut in (*range(0, end_mark, 256), end_mark, end_mark + 511):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"cannot read .*b\.tar as a tar file"):
            load(path)
    path.write_bytes(whole[: end_mark + 512])
    headers = [member.offset - 512 for member in members(path)]
    assert len(load(path)) == 2 and len(headers) == 4
    for start in headers:
        for at in (start + 1, start + 125, start + 156):
            changed = bytearray(whole)
            changed[at] ^= 1
            path.write_bytes(changed)
            with pytest.raises(UserError, match=r"cannot read .*b\.tar as a tar file"):
                load(path)


def test_changed_bytes_of_an_image_are_an_unreadable_image(tmp_path: Path):
    path = write(tmp_path / "a.tar", ("0.png", b"no image"), ("0.cls", b"0"), *samples(0))
    data = load(path, image_size=4)
    kept, bad = readable_indices(data, np.arange(2), skip_bad=True)
    assert kept.tolist() == [1] and bad[0].startswith("a.tar/0.png: it is no image")
    path.write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"a\.tar/d/0\.png"):
        data.read(1)


def test_what_takes_memory_or_no_end_is_refused(tmp_path: Path):
    path = tmp_path / "a.tar"
    big = tarfile.TarInfo("0.png")
    big.size = 1 << 40
    path.write_bytes(big.tobuf() + bytes(1024))
    with pytest.raises(UserError, match=r"ends within '0\.png'"):
        load(path)
    big.name, big.type = "x", tarfile.XHDTYPE  # a header of names, of a terabyte
    path.write_bytes(big.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match=f"declares {1 << 40} bytes"):
        load(path)
    back = tarfile.TarInfo("0.png")
    back.size = -512  # leads back to itself
    path.write_bytes(back.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match="as a tar file"):
        load(path)
    with open(path, "wb") as stream:  # sparse on disk
        big = tarfile.TarInfo("0.png")
        big.size = (1 << 28) + 1
        stream.write(big.tobuf())
        stream.truncate((1 << 28) + 4096)
    with pytest.raises(UserError, match="over 256 MiB"):
        load(path)
    with pytest.raises(UserError, match="over 1000 bytes"):
        load(write(path, ("0.cls", b"x" * 1001)))
    with pytest.raises(UserError, match="two images"):
        load(write(path, ("0.png", png(X[0])), ("0.jpg", b"")))
    with pytest.raises(UserError, match="label 100000"):
        load(write(path, *samples(100_000)))
    with pytest.raises(UserError, match="as a tar file"):
        load(write(path, ("0.png", png(X[0])), ("0.cls", b"\xff\xfe")))


def test_a_compressed_one_and_a_pipe_are_refused(tmp_path: Path):
    path = write(tmp_path / "a.tar", *samples(0))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UserError, match="without compression"):
        load(path)
    os.mkfifo(tmp_path / "b.tar")
    with pytest.raises(UserError, match="no regular file"):
        load(tmp_path / "b.tar")


def test_shards_read_as_the_library_reads_them(tmp_path: Path):
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    path = write(tmp_path / "a.tar", *samples(2, 0, 1, 1))
    data = load(path)
    with open(path, "rb") as stream:
        files = [{"__url__": "a"} | one for one in tar_file_iterator(stream)]
    rows = list(group_by_keys(files))
    assert len(rows) == len(data) == 4
    for i, row in enumerate(rows):
        assert int(row["cls"]) == data.labels[i]
        assert_array_equal(decode_image(row["png"], row["__key__"]), data.read(i))
