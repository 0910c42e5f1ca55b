"""What of a folder becomes its images: links, loops, what is passed over, what is no class."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from clarep.data.cifar import load_cifar10
from clarep.data.files import load_class_folders
from clarep.data.labelled import UnreadableImage, readable_indices
from clarep.data.npy_files import read_npy
from clarep.data.npz import load_npz
from clarep.data.sets.natural import read_real
from clarep.engine.tensors import read_tensors
from clarep.errors import UserError
from clarep.teachers.checkpoint_files import read_weights
from clarep.teachers.families.edm_convert import read_pickle
from clarep.teachers.options import read_class_names


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(path, "PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write(root / "cat" / "0.png", root / "cat" / "1.png", root / "dog" / "0.png")
    return root


def names(root: Path, label: int) -> list[str]:
    data = load_class_folders(root)
    return [
        Path(source).relative_to(root).as_posix()
        for source, its in zip(data.sources, data.labels, strict=True)
        if its == label
    ]


def as_torchvision_lists(folder: Path) -> int:
    """How many images torchvision's ImageFolder takes from a class folder."""
    return sum(
        name.endswith(".png") for _, _, names in os.walk(folder, followlinks=True) for name in names
    )


def test_linked_folders_are_followed_and_what_lies_elsewhere_is_told(root: Path, tmp_path: Path):
    store = tmp_path / "store"
    write(store / "a" / "0.png", store / "a" / "deep" / "1.png", store / "b" / "0.png")
    (root / "cat" / "part_a").symlink_to(store / "a")
    (root / "cat" / "part_b").symlink_to(os.path.relpath(store / "b", root / "cat"))
    data = load_class_folders(root)
    assert (data.labels == 0).sum() == 5 == as_torchvision_lists(root / "cat")
    assert names(root, 0)[2:] == ["cat/part_a/0.png", "cat/part_a/deep/1.png", "cat/part_b/0.png"]
    assert list(data.notes) == [
        f"3 of the 6 images of {root} come by links that lead out of their class folder, first "
        f"{root}/cat/part_a/0.png ({store}/a/0.png)"
    ]


def test_a_link_within_the_class_folder_is_not_told_and_a_folder_is_read_once(root: Path):
    write(root / "cat" / "real" / "2.png")
    (root / "cat" / "again").symlink_to("real")
    (root / "cat" / "3.png").symlink_to("0.png")
    data = load_class_folders(root)
    assert names(root, 0) == ["cat/0.png", "cat/1.png", "cat/3.png", "cat/again/2.png"]
    assert len(data.notes) == 1 and "passed over: cat/real " in data.notes[0]


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_a_loop_ends_and_is_told(root: Path, target: str):
    (root / "cat" / "loop").symlink_to(target)
    data = load_class_folders(root)
    assert names(root, 0) == ["cat/0.png", "cat/1.png"]
    assert len(data.notes) == 1 and "passed over: cat/loop " in data.notes[0]


def test_a_link_to_itself_leads_nowhere(root: Path):
    for place in (root, root / "cat"):
        (place / "self").symlink_to("self")
    (root / "cat" / "9.png").symlink_to("9.png")
    data = load_class_folders(root)
    assert data.class_names == ("cat", "dog") and len(data) == 4
    assert "1 of the files" in data.notes[0] and "over: cat/self " in data.notes[0]
    with pytest.raises(UnreadableImage, match=r"9\.png: Too many levels"):
        data.read(2)


def test_two_folders_that_link_each_other_end(root: Path, tmp_path: Path):
    write(tmp_path / "x" / "0.png", tmp_path / "y" / "0.png")
    (tmp_path / "x" / "y").symlink_to(tmp_path / "y")
    (tmp_path / "y" / "x").symlink_to(tmp_path / "x")
    (root / "cat" / "x").symlink_to(tmp_path / "x")
    assert names(root, 0) == ["cat/0.png", "cat/1.png", "cat/x/0.png", "cat/x/y/0.png"]


@pytest.mark.parametrize("target", ["..", "../.."])
def test_a_class_that_links_above_itself_is_refused(root: Path, target: str):
    (root / "elk").symlink_to(target)
    with pytest.raises(UserError, match=r"elk holds no images: .*passed over: elk "):
        load_class_folders(root)


def test_a_class_or_a_file_of_another_class_or_split_is_told(root: Path, tmp_path: Path):
    (root / "elk").symlink_to("cat")
    (root / "dog" / "cat.png").symlink_to("../cat/1.png")
    (note,) = load_class_folders(root).notes
    assert note.startswith("3 of the 6 images")
    divided = tmp_path / "divided"
    write(divided / "train" / "cat" / "0.png")
    (divided / "test").symlink_to("train")
    assert load_class_folders(divided, "train").notes == ()
    assert "1 of the 1 images" in load_class_folders(divided, "test").notes[0]


def test_a_folder_that_is_itself_a_link_is_told_nothing_of(root: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(root)
    assert load_class_folders(tmp_path / "link").notes == ()


def test_what_is_passed_over_is_counted_and_named(root: Path):
    assert load_class_folders(root).notes == ()
    for name in ("a.heic", "noext", "x.png?raw=true", "y.jpg_large", "notes.txt"):
        (root / "cat" / name).write_bytes((root / "cat" / "0.png").read_bytes())
    (root / "dog" / "gone").symlink_to("nowhere")
    write(root / "loose.png")
    (root / "README.md").write_text("what this is")
    data = load_class_folders(root)
    assert len(data) == 3 and len(data.notes) == 1
    assert data.notes[0].startswith(
        f"7 of the files and links in {root} are passed over: cat/a.heic, cat/noext, cat/notes.txt"
    )


def test_a_class_of_unknown_endings_says_what_lies_there(root: Path):
    write(root / "elk" / "a.heic")
    with pytest.raises(UserError, match=r"elk holds no images.*passed over: elk/a\.heic "):
        load_class_folders(root)


@pytest.mark.parametrize(
    "name", [".git", "@eaDir", "__MACOSX", ".ipynb_checkpoints", "lost+found", "#recycle"]
)
def test_folders_of_systems_and_tools_are_no_classes(root: Path, name: str):
    write(root / name / "0.png", root / "cat" / name / "2.png", root / "cat" / "._0.png")
    data = load_class_folders(root)
    assert (data.class_names, len(data), data.notes) == (("cat", "dog"), 3, ())


@pytest.mark.parametrize("where", ["file", "class", "root"])
def test_names_that_are_no_utf8_are_refused_at_loading(root: Path, where: str):
    if where == "file":
        os.rename(root / "cat" / "1.png", os.fsencode(root) + b"/cat/for\xeat.png")
    elif where == "class":
        os.rename(root / "cat", os.fsencode(root) + b"/for\xeat")
    else:
        os.rename(root, os.fsencode(root.parent) + b"/for\xeat")
        root = Path(os.fsdecode(os.fsencode(root.parent) + b"/for\xeat"))
    with pytest.raises(UserError, match=r"for.*t.* is no UTF-8: rename") as caught:
        load_class_folders(root)
    str(caught.value).encode()


def test_a_pipe_or_socket_is_no_image_and_skipped_as_such(root: Path):
    os.mkfifo(root / "cat" / "pipe.png")
    held = socket.socket(socket.AF_UNIX)
    there = os.getcwd()
    os.chdir(root / "dog")  # a socket's path is short
    held.bind("s.png")
    os.chdir(there)
    data = load_class_folders(root)
    held.close()
    with pytest.raises(UnreadableImage, match=r"pipe\.png: it is no regular file"):
        data.read(2)
    kept, bad = readable_indices(data, data.labels.argsort(), skip_bad=True)
    assert len(kept) == 3
    assert [reason.split(": ")[1] for reason in bad] == [
        "it is no regular file (a pipe, device or socket)"
    ] * 2


def test_pipes_are_no_archives_and_no_lists(root: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(UserError, match=r"pipe\.npz.* no regular file"):
        load_npz(tmp_path / "pipe.npz")
    with pytest.raises(UserError, match=r"class list .*pipe\.npz"):
        load_class_folders(root, classes_file=tmp_path / "pipe.npz")
    batch = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    batch.parent.mkdir()
    os.mkfifo(batch)
    with pytest.raises(UserError, match=r"test_batch\.bin: it is no regular file"):
        load_cifar10(batch.parent, "test")


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_tensors(path, "weights"),
        read_weights,
        read_class_names,
        read_npy,
        lambda path: read_real(path, []),
        read_pickle,
    ],
)
def test_pipes_are_no_files_that_a_user_may_name(tmp_path: Path, read: Callable[[Path], object]):
    for name in ("pipe.safetensors", "pipe.pt"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match="pipe"):
            read(tmp_path / name)
