"""Class folders, split folders, ImageNet's layout with a class list."""

import re
from pathlib import Path

import pytest
from PIL import Image

from clarep.data.files import load_class_folders, read_classes_file
from clarep.errors import UserError


def write(path: Path, colour: str = "red", size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    write(root / "dog" / "b.png", "red")
    write(root / "dog" / "a.JPEG", "lime")
    write(root / "cat" / "sub" / "c.bmp", "blue")
    (root / "dog" / "notes.txt").write_text("no image")
    (root / "dog" / "._a.png").write_text("left by a Mac")
    (root / ".cache").mkdir()
    return root


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    root = tmp_path / "imagenet"
    for wnid in ("n01440764", "n02102040", "n03000684"):
        for i in range(2):
            write(root / "train" / wnid / f"{wnid}_{i}.JPEG", size=(20 + i, 30))
        write(root / "val" / wnid / f"ILSVRC2012_val_{wnid}.JPEG", size=(50, 40))
    return root


def test_an_undivided_folder_says_how_a_divided_one_looks(flat: Path):
    with pytest.raises(UserError, match="folders train/ and test/ in it, which hold"):
        load_class_folders(flat, "test")


def test_classes_and_images_are_sorted(flat: Path):
    data = load_class_folders(flat)
    assert data.class_names == ("cat", "dog")
    assert [Path(source).name for source in data.sources] == ["c.bmp", "a.JPEG", "b.png"]
    assert data.labels.tolist() == [0, 1, 1]
    images = data.images([0, 2])
    assert images.shape == (2, 3, 8, 8)
    assert images[:, :, 0, 0].tolist() == [[0, 0, 255], [255, 0, 0]]


def test_order_does_not_depend_on_the_disk(tmp_path: Path):
    names = [f"{i:02d}.png" for i in range(12)]
    for name in names[1::2] + names[6::2] + names[4::-2]:
        write(tmp_path / "a" / name)
    data = load_class_folders(tmp_path)
    assert [Path(source).name for source in data.sources] == names


def test_images_are_decoded_when_they_are_read(flat: Path):
    data = load_class_folders(flat)
    write(flat / "dog" / "b.png", "white")
    assert data.read(2)[0, 0].tolist() == [255, 255, 255]


def test_mixed_sizes_need_an_image_size(flat: Path):
    write(flat / "dog" / "c.png", size=(9, 8))
    with pytest.raises(UserError, match=r"8x8.*c.png is 9x8.*`image_size`"):
        load_class_folders(flat)
    assert load_class_folders(flat, image_size=6).images(range(4)).shape == (4, 3, 6, 6)


def test_a_common_size_is_kept_square_or_not(tmp_path: Path):
    write(tmp_path / "a" / "x.png", size=(7, 5))
    assert load_class_folders(tmp_path).images([0]).shape == (1, 3, 5, 7)


def test_alpha_is_composed_on_the_given_colour(tmp_path: Path):
    (tmp_path / "a").mkdir()
    Image.new("RGBA", (2, 2), (9, 9, 9, 0)).save(tmp_path / "a" / "x.png")
    assert load_class_folders(tmp_path).read(0)[0, 0].tolist() == [255, 255, 255]
    assert load_class_folders(tmp_path, alpha_colour="red").read(0)[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(UserError, match="'rde' is no colour"):
        load_class_folders(tmp_path, alpha_colour="rde")


def test_splits_are_sub_folders(imagenet: Path):
    train = load_class_folders(imagenet, "train", image_size=16)
    val = load_class_folders(imagenet, "val", image_size=16)
    assert (len(train), len(val)) == (6, 3)
    assert train.class_names == val.class_names == ("n01440764", "n02102040", "n03000684")
    assert train.name != val.name
    with pytest.raises(UserError, match=r"unknown split .* 'vla': did you mean val"):
        load_class_folders(imagenet, "vla", image_size=16)


def test_a_label_means_the_same_in_each_split(imagenet: Path):
    for path in (imagenet / "val" / "n01440764").iterdir():
        path.unlink()
    (imagenet / "val" / "n01440764").rmdir()
    val = load_class_folders(imagenet, "val")
    assert val.class_names[val.labels[0]] == "n02102040"
    assert len(val.class_names) == 3
    (note,) = val.notes
    assert "1 classes" in note and note.endswith("n01440764")
    assert load_class_folders(imagenet, "train", image_size=8).notes == ()


def test_a_flat_folder_is_no_test_set(flat: Path):
    with pytest.raises(UserError, match="counts as 'train'"):
        load_class_folders(flat, "test")


def test_a_class_list_chooses_names_and_order(imagenet: Path, tmp_path: Path):
    listed = tmp_path / "two.txt"
    listed.write_text("# two of them\nn03000684 chain saw\n\nn01440764  # tench\n")
    data = load_class_folders(imagenet, "train", 16, listed)
    assert data.class_names == ("chain saw", "n01440764")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert "n03000684" in data.sources[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n01440763\n", "did you mean n01440764"),
        ("# nothing\n", "names no class"),
        ("n01440764\nn01440764 tench\n", "twice"),
        ("n01440764 fish\nn02102040 fish\n", "twice"),
    ],
)
def test_a_wrong_class_list_is_named(imagenet: Path, tmp_path: Path, text: str, words: str):
    listed = tmp_path / "list.txt"
    listed.write_text(text)
    with pytest.raises(UserError, match=words):
        load_class_folders(imagenet, "train", 16, listed)


@pytest.mark.parametrize(
    ("line", "folder", "name"),
    [
        ("golden retriever", "golden retriever", "golden retriever"),
        ("golden", "golden", "golden"),
        ("golden retriever a dog", "golden retriever", "a dog"),
        ("golden a dog", "golden", "a dog"),
        ("golden  retriever", "golden", "retriever"),
        ("C#", "C#", "C#"),
        ("C# see sharp # a key", "C#", "see sharp"),
        ("C#  # a key", "C#", "C#"),
        ("golden F#", "golden", "F#"),
        ("#1", "#1", "#1"),
        ("# golden", "", ""),
        ("\ufeffgolden\r", "golden", "golden"),
        ("gold", "gold", "gold"),  # unknown: whoever lists the images says so
    ],
)
def test_the_whole_line_is_a_folder_first(tmp_path: Path, line: str, folder: str, name: str):
    listed = tmp_path / "list.txt"
    listed.write_bytes(f"{line}\ncat\n".encode())
    found = read_classes_file(listed, ["golden", "golden retriever", "C#", "#1", "cat"])
    assert found == ({folder: name} if folder else {}) | {"cat": "cat"}


def test_a_line_means_the_same_in_each_split(tmp_path: Path):
    write(tmp_path / "train" / "golden retriever" / "0.png")
    write(tmp_path / "test" / "golden" / "0.png")
    listed = tmp_path / "list.txt"
    listed.write_text("golden retriever\n")
    assert len(load_class_folders(tmp_path, "train", classes_file=listed)) == 1
    with pytest.raises(UserError, match=r"unknown class folder .* 'golden retriever'"):
        load_class_folders(tmp_path, "test", classes_file=listed)


def test_an_unreadable_class_list_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.txt"):
        read_classes_file(tmp_path / "gone.txt", ["a"])
    with pytest.raises(UserError, match="cannot read the class list"):
        read_classes_file(Path("nul\0.txt"), ["a"])
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"bytes\.txt"):
        read_classes_file(tmp_path / "bytes.txt", ["a"])


def test_a_split_without_images_is_named(imagenet: Path, tmp_path: Path):
    (imagenet / "test").mkdir()
    hollow = r"test holds no class folders: put its images in one folder a class"
    with pytest.raises(UserError, match=hollow):
        load_class_folders(imagenet, "test", 16)
    write(imagenet / "test" / "loose.png")
    listed = tmp_path / "one.txt"
    listed.write_text("n01440764\n")
    with pytest.raises(UserError, match=hollow):
        load_class_folders(imagenet, "test", 16, listed)
    assert len(load_class_folders(imagenet, "train", 16)) == 6


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_a_class_may_have_the_name_of_a_split(tmp_path: Path, name: str):
    classes = sorted([name, "bus", "car"])
    for folder in classes:
        write(tmp_path / folder / "1.png")
    (tmp_path / name / ".cache").mkdir()
    data = load_class_folders(tmp_path)
    assert data.class_names == tuple(classes) and data.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_without_class_folders_are_no_classes(tmp_path: Path, split: str):
    for name in ("train", "test"):
        write(tmp_path / name / "1.png")
    (tmp_path / ".cache").mkdir()
    with pytest.raises(UserError, match="holds no class folders: put the images in one folder a"):
        load_class_folders(tmp_path, split)


def test_hidden_folders_within_a_class_are_passed_over(flat: Path):
    write(flat / "dog" / ".ipynb_checkpoints" / "a-checkpoint.png")
    write(flat / "cat" / "sub" / ".thumbs" / "deep" / "c.png")
    data = load_class_folders(flat)
    assert [Path(source).name for source in data.sources] == ["c.bmp", "a.JPEG", "b.png"]


def test_empty_folders_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="holds no class folders"):
        load_class_folders(tmp_path)
    write(tmp_path / "full" / "a.png")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(UserError, match=r"hollow holds no images"):
        load_class_folders(tmp_path)


def test_images_without_class_folders_are_not_a_data_set(tmp_path: Path):
    write(tmp_path / "a.png")
    with pytest.raises(UserError, match="in one folder a class"):
        load_class_folders(tmp_path)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ("training/a validation/a training/b", "training/ and validation/ with the same folders"),
        ("seg_train/a seg_test/a", "seg_test/ and seg_train/"),
        ("Train/a Test/a", "call splits train, test or val"),
        ("train/a validation/a", "train/ and validation/"),
        ("cat/train cat/test dog/train dog/test", "/train/cat"),
        ("pets/train pets/val", "give .*pets/pets if that is the whole set"),
    ],
)
def test_splits_that_would_be_taken_for_classes(tmp_path: Path, paths: str, words: str):
    root = tmp_path / "pets"
    for path in paths.split():
        write(root / path / "x.png")
    with pytest.raises(UserError, match=words):
        load_class_folders(root)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ("train/a test/a valid/a", "divided into train, test: passed over are valid"),
        ("train/a train/b extra/c", "divided into train: passed over are extra"),
        ("images/cat images/dog", "one class, images, .* cat, dog: .* give .*pets/images"),
        ("train/images/cat train/images/dog test/images/x", "give .*pets/train/images"),
    ],
)
def test_folders_that_are_perhaps_no_classes_are_told(tmp_path: Path, paths: str, words: str):
    root = tmp_path / "pets"
    for path in paths.split():
        write(root / path / "x.png")
    (note,) = load_class_folders(root).notes
    assert re.search(words, note)


def test_classes_with_names_like_those_of_splits(tmp_path: Path):
    for path in ("trains/x.png", "trains/old/x.png", "valleys/x.png", "contest/new/x.png"):
        write(tmp_path / "pets" / path)
    assert load_class_folders(tmp_path / "pets").notes == ()
    write(tmp_path / "pets/valleys/old/x.png")
    (tmp_path / "list.txt").write_text("trains\nvalleys\n")
    data = load_class_folders(tmp_path / "pets", classes_file=tmp_path / "list.txt")
    assert data.class_names == ("trains", "valleys") and data.notes == ()
