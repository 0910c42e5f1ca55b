"""`clarep data`, run in this process: exit codes, one line on stderr, what lies on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clarep.cli.main import main


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for name, colour in (("cat", "red"), ("dog", "blue")):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (16, 16), colour).save(root / name / f"{i}.png")
    return root


def test_show_backdrops_writes_a_sheet(capsys: pytest.CaptureFixture[str]):
    assert main(["data", "show", "backdrops"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "5,000 images of 32x32, 10 classes" in printed.out
    assert "ankle boot" in printed.out
    assert printed.out.endswith("wrote sheet.png\n")
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 10 * 100
        assert sheet.height > 10 * 100
        assert len(sheet.getcolors(1 << 24)) > 1000


def test_show_tells_of_what_was_passed_over(pets: Path, capsys: pytest.CaptureFixture[str]):
    (pets / "cat" / "x.png?raw=true").write_bytes(b"")
    (pets / "dog" / "mine").symlink_to(pets / "cat")
    assert main(["data", "show", str(pets), "--json"]) == 0
    printed = capsys.readouterr()
    notes = json.loads(printed.out)["notes"]
    assert "3 of the 9 images" in notes[0] and "2 of the files" in notes[1]
    assert printed.err == "".join(f"clarep: note: {note}\n" for note in notes)


def test_show_prints_json(capsys: pytest.CaptureFixture[str]):
    command = "data show backdrops --split test --variant only_bg --columns 2 --json --out x/y.png"
    assert main(command.split()) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["out"] == "x/y.png"
    assert summary["images"] == 1000
    assert summary["image_size"] == [32, 32]
    assert summary["images_per_class"]["bag"] == 100
    assert "only_bg" in summary["name"]
    assert Path("x/y.png").is_file()


def test_the_same_command_writes_the_same_bytes():
    def sheet(*more: str) -> bytes:
        assert main(["data", "show", "garments", "--columns", "2", *more]) == 0
        return Path("sheet.png").read_bytes()

    assert sheet("--seed", "1") == sheet("--seed", "1")
    assert sheet("--seed", "1") != sheet("--seed", "2")


def test_show_a_folder(pets: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "show", str(pets), "--columns", "3"]) == 0
    assert "6 images of 16x16, 2 classes" in capsys.readouterr().out


def test_help_is_no_mistake(capsys: pytest.CaptureFixture[str]):
    assert main(["data", "show", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "NAME" in shown
    assert all(name in shown for name in ("garments,", "backdrops,", "noise-backdrops)"))


WRONG = {
    "unknown name": ("data show backdrp", "did you mean backdrops"),
    "unknown variant": ("data show backdrops --variant mixed_nxt", "did you mean mixed_next"),
    "unknown split": ("data show garments --split tset", "did you mean test"),
    "correlation": ("data show backdrops --correlation 2", "outside [0, 1]"),
    "does not apply": ("data show garments --correlation 0.5", "does not apply to garments"),
    "size": ("data show backdrops --image-size 64", "32x32"),
    "seed": ("data show garments --seed -1", "seed -1 is below 0"),
    "data seed": ("data show backdrops --data-seed -1", "-1 is below 0"),
    "columns": ("data show backdrops --columns 0", "--columns 0 is below 1"),
    "out": ("data show backdrops --out sheet.docx", ".png"),
    "out is a folder": ("data show garments --out made.png", "cannot write made.png (Is a dir"),
    "out in a file": ("data show garments --out bad.npz/sheet.png", "cannot write bad.npz"),
    "value": ("data show backdrops --columns many", "--columns"),
    "option": ("data show backdrops --colums 3", "--columns"),
    "subcommand": ("data shw backdrops", "show"),
    "no subcommand": ("data", "show"),
    "no name": ("data show", "NAME"),
    "empty folder": ("data show empty", "empty holds no class folders"),
    "empty split": ("data show divided --split test", "divided/test holds no class folders"),
    "no such user": ("data show ~nosuchuser/x", "unknown data set '~nosuchuser/x'"),
    "bad npz": ("data show bad.npz", "cannot read bad.npz"),
    "label": ("data show label.npz", "label 5 of image 0"),
    "mixed sizes": ("data show mixed", "--image-size"),
    "zero bytes": ("data show zero", "x.png: it is empty (zero bytes); --skip-bad"),
    "truncated": ("data show cut", "x.png"),
    "not an image": ("data show text", "x.png: it is no image"),
    "nothing left": ("data show zero --skip-bad", "is left"),
}


def make_bad_data() -> None:
    Path("empty").mkdir()
    Path("made.png").mkdir()
    Path("bad.npz").write_bytes(b"PK\x03\x04 and then nothing")
    names, x = np.array(["a", "b"]), np.zeros((1, 4, 4), np.uint8)
    np.savez("label.npz", x=x, y=np.array([5]), classes=names)
    Path("divided/test").mkdir(parents=True)
    for name in ("mixed", "zero", "cut", "text", "divided/train"):
        Path(name, "a").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save("cut/a/x.png")
    whole = Path("cut/a/x.png").read_bytes()
    Path("cut/a/x.png").write_bytes(whole[: len(whole) // 2])
    Path("zero/a/x.png").write_bytes(b"")
    Path("text/a/x.png").write_text("hello")
    Image.new("L", (4, 4)).save("mixed/a/x.png")
    Image.new("L", (5, 4)).save("mixed/a/y.png")


@pytest.mark.parametrize("case", WRONG)
def test_a_users_mistake_is_one_line_and_exit_code_2(case: str, capsys: pytest.CaptureFixture[str]):
    make_bad_data()
    command, words = WRONG[case]
    assert main(command.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert not Path("sheet.png").exists()


def test_skip_bad_goes_on_and_lists(pets: Path, capsys: pytest.CaptureFixture[str]):
    (pets / "dog" / "1.png").write_bytes(b"")
    assert main(["data", "show", str(pets)]) == 2
    assert "dog/1.png: it is empty" in capsys.readouterr().err
    assert main(["data", "show", str(pets), "--skip-bad"]) == 0
    printed = capsys.readouterr().out
    assert f"skipped {pets}/dog/1.png: it is empty (zero bytes)" in printed
    assert "5 images of 16x16, 2 classes" in printed
    assert "      3  cat\n        2  dog\n" in printed


def test_what_is_skipped_is_not_counted_though_it_is_not_shown(
    pets: Path, capsys: pytest.CaptureFixture[str]
):
    (pets / "dog" / "2.png").write_bytes(b"")
    command = ["data", "show", str(pets), "--columns", "1", "--json"]
    assert main(command) == 0  # the first of each class can be read
    assert json.loads(capsys.readouterr().out)["images"] == 6
    assert main([*command, "--skip-bad"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], summary["images_per_class"]) == (5, {"cat": 3, "dog": 2})
    assert len(summary["skipped"]) == 1


def test_a_bad_image_leaves_its_place_to_the_next(pets: Path):
    def sheet(*more: str) -> bytes:
        assert main(["data", "show", str(pets), "--columns", "2", *more]) == 0
        with Image.open("sheet.png") as picture:
            return picture.convert("RGB").crop((0, 0, picture.width, picture.height - 30)).tobytes()

    whole = sheet()
    (pets / "dog" / "0.png").write_bytes(b"")
    assert sheet("--skip-bad") == whole


def test_a_sheet_that_does_not_fit(no_file_above, capsys: pytest.CaptureFixture[str]):
    with no_file_above(4096):
        assert main(["data", "show", "garments"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("clarep: cannot write sheet.png (File too large): free some")
    assert printed.err.count("\n") == 1
    assert list(Path().iterdir()) == []
