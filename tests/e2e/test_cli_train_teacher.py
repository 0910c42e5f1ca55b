import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clarep.cli.main import main
from clarep.data.decode_image import decode_image
from clarep.data.held_out import load_held_out
from clarep.data.load import DataConfig, load_data
from clarep.teachers.zoo import load_teacher

TINY = "--train.steps 3 --train.batch-size 4 --train.unet.widths 8 16 --train.unet.embed-dim 16"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Class folders of 16-pixel noise, six cats and six dogs a split."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "pets"


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:60])
    return path


def train(pets: Path, out: Path, *options: str) -> int:
    return main(["train-teacher", "--data", str(pets), "--out", str(out), *TINY.split(), *options])


def test_a_truncated_file_is_found_before_training(pets, tmp_path, capsys):
    bad = truncate(pets / "train" / "dog" / "3.png")
    assert train(pets, tmp_path / "run") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot read {bad}" in message and "--skip-bad goes on without it" in message
    assert not (tmp_path / "run").exists()


def test_skip_bad_goes_on_and_lists(pets, tmp_path, capsys):
    bad = [truncate(pets / split / "cat" / "0.png") for split in ("train", "test")]
    assert train(pets, tmp_path / "run", "--skip-bad", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert [reason.split(": ")[0] for reason in record["skipped"]] == [str(path) for path in bad]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"].endswith("without 1 unreadable")

    assert train(pets, tmp_path / "run", "--skip-bad") == 0  # it is finished: prints, no more
    printed = capsys.readouterr().out
    assert printed.count("skipped ") == 2 and f"skipped {bad[0]}: " in printed
    assert load_teacher(str(tmp_path / "run")).class_names == ("cat", "dog")


def test_each_image_is_decoded_once(pets, tmp_path, monkeypatch, capsys):
    from clarep.data import files

    decoded = []

    def decode(path, *how):
        decoded.append(path)
        return decode_image(path, *how)

    monkeypatch.setattr(files, "decode_image", decode)
    assert train(pets, tmp_path / "run") == 0
    assert sorted(decoded) == sorted(pets.rglob("*.png"))
    assert f"reading the 12 images of {pets / 'train'}\n" in capsys.readouterr().err


def test_data_read_in_another_way_is_another_training(pets, tmp_path, capsys):
    listed = tmp_path / "classes.txt"
    listed.write_text("cat\ndog\n")
    options = ["--classes-file", str(listed), "--alpha-colour", "black"]
    assert train(pets, tmp_path / "run", *options) == 0
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    recorded = card["recipe"]["data_options"]
    assert recorded["alpha_colour"] == "black" and recorded["data"] == str(pets)
    assert train(pets, tmp_path / "run", *options) == 0  # it is finished

    assert train(pets, tmp_path / "run", *options[:2]) == 0  # opaque images: the same pixels
    with Image.open(some := pets / "train" / "cat" / "0.png") as image:
        seen_through = image.convert("RGBA")
    seen_through.putalpha(128)
    seen_through.save(some)
    capsys.readouterr()
    assert train(pets, tmp_path / "run", *options[:2]) == 2
    assert 'alpha_colour: "black" there, "white" now; ' in capsys.readouterr().err
    listed.write_text("dog\ncat\n")
    assert train(pets, tmp_path / "run", *options) == 2
    assert "another configuration (classes_file_sha256: " in capsys.readouterr().err


def test_what_a_kill_left_is_removed(pets, tmp_path):
    samples = tmp_path / "run" / "samples"
    samples.mkdir(parents=True)
    (samples / f".final.png.{2**22}.tmp").write_bytes(b"half")
    assert train(pets, tmp_path / "run") == 0
    assert [path.name for path in samples.iterdir()] == ["final.png"]


def test_what_the_data_decide_is_no_option(pets, tmp_path, capsys):
    for option in ("num-classes", "image-size", "image-channels"):
        assert train(pets, tmp_path / "run", f"--train.unet.{option}", "3") == 2
        assert f"--train.unet.{option}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert train(pets, tmp_path / "run") == 0
    unet = json.loads((tmp_path / "run" / "config.json").read_text())["train"]["unet"]
    assert (unet["image_size"], unet["image_channels"], unet["num_classes"]) == (16, 3, 2)


@pytest.mark.parametrize(
    "option", ["--train.steps 0", "--train.unet.patch 0", "--train.seed -1", "--sample-every 0"]
)
def test_settings_that_cannot_be_trained_with(tmp_path, capsys, option):
    nowhere = str(tmp_path / "run")
    assert main(["train-teacher", "--out", nowhere, *option.split()]) == 2
    message = capsys.readouterr().err
    assert message.startswith("clarep: ") and message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_sample_grid_with_the_next_record(pets, tmp_path):
    options = ["--train.steps", "60", "--sample-every", "30"]
    assert train(pets, tmp_path / "run", *options) == 0
    grids = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert grids == ["final.png", "step_000050.png", "step_000060.png"]


def test_data_without_a_test_split(tmp_path, capsys):
    """A tenth of every class is held out, and not trained on."""
    path = tmp_path / "undivided.npz"
    np.savez(path, x=np.zeros((60, 16, 16, 3), np.uint8), y=np.arange(60) % 3)
    assert train(path, tmp_path / "run") == 0
    assert "6 of its 60 images, a tenth of every class, are held out" in capsys.readouterr().err
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["recipe"]["data"] == f"{path}/train without a tenth"
    data = load_data(DataConfig(data=str(path)))
    trained, held_out = load_held_out(tmp_path / "run", data)
    assert np.bincount(held_out.labels).tolist() == [2, 2, 2]
    assert sorted([*trained.sources, *held_out.sources]) == sorted(data.sources)


def test_the_loss_is_measured_on_val_where_there_is_no_test(pets, tmp_path):
    (pets / "test").rename(pets / "val")
    assert train(pets, tmp_path / "run") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"] == str(pets / "train")


def test_test_images_that_are_trained_on_are_told_and_recorded(pets, tmp_path, capsys):
    for i in range(2):  # under other names
        shutil.copy(pets / "train/cat" / f"{i + 2}.png", pets / "test/cat" / f"{i}.png")
    assert train(pets, tmp_path / "run") == 0
    told = f"the model is trained on 2 of 12 images of {pets}/test"
    assert f"warning: {told}" in capsys.readouterr().err
    assert told in json.loads((tmp_path / "run/config.json").read_text())["data_notes"]


def test_a_class_of_one_image_without_a_test_split(tmp_path, capsys):
    path = tmp_path / "undivided.npz"
    np.savez(path, x=np.zeros((5, 16, 16, 3), np.uint8), y=np.array([0, 0, 1, 1, 2]))
    assert train(path, tmp_path / "run") == 2
    assert "class '2' has 1 of the images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train-teacher", "--data", "garments", "--device", "cuda:77", "--out", str(out)])
    assert "device 'cuda:77' is not here" in capsys.readouterr().err and not out.exists()
