"""`clarep identify` from images to a stored set, killed, fed with mistakes, and looked at."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarep.clarid.canonical_set import MANIFEST, CanonicalSet
from clarep.clarid.canonical_shards import find_manifest
from clarep.clarid.clarid import Clarid
from clarep.cli.main import main
from clarep.data.backdrops import load_backdrops
from clarep.data.garments import CLASS_NAMES
from clarep.engine.artefacts import read_json, sha256_file, write_json
from clarep.engine.places import Folder
from clarep.engine.progress import progress
from clarep.students.student_files import judge_card
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import save_unet
from forked import COMMAND

QUICK = "--fraction 0.002 --steps 2 --k 4 --shard-size 5 --control-images 0"  # an image a class


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory) -> Path:
    """An untrained U-Net of 32 pixels and, for the sake of speed, 256 features at mid."""
    generator = torch.Generator().manual_seed(0)
    net = UNet(UNetConfig(patch=4, widths=(8, 16), embed_dim=16))
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # freshly made, these hide the layers before them
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            elif parameter.ndim > 1:
                scale = parameter[0].numel() ** -0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_unet(net, path, CLASS_NAMES, 0.01, 80.0)
    return path


@pytest.fixture
def command(teacher_path: Path):
    """Build the arguments of a run with that teacher."""

    def build(more: str = "", options: str = QUICK, out: str = "out") -> list[str]:
        base = ["identify", "--teacher", str(teacher_path), "--out", out]
        return [*base, *options.split(), *more.split()]

    return build


@pytest.fixture(scope="session")
def finished(teacher_path: Path, tmp_path_factory) -> Path:
    """The folder of a finished run of `command()`, in two shards; to be copied."""
    out = tmp_path_factory.mktemp("finished") / "out"
    arguments = ["identify", "--teacher", str(teacher_path), "--out", str(out), *QUICK.split()]
    assert main(arguments) == 0
    return out


def shard_bytes(out: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(out, "canon").glob("shard-*.safetensors")}


def assert_one_line(printed, words: str) -> None:
    assert printed.out == ""
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert "Traceback" not in printed.err


def assert_picture(path: str, rows: int) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        assert picture.height > 100 * rows
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_the_whole_road_on_backdrops(command, teacher_path, capsys):
    controls = "--controls none reconstruction random bottom middle --control-images 20"
    options = f"--fraction 0.004 --steps 2 --k 4 --seed 3 --t 0.7 {controls}"
    assert main(command(options=options)) == 0
    printed = capsys.readouterr()
    for line in (
        "canonical set in out/canon",
        "picture in out/report/canonical.png",
        "spectrum in out/report/spectrum.png",
        "table in out/report/measures.csv",
        "20 images, ",
    ):
        assert line in printed.out
    assert "identify: 20/20 images" in printed.err
    assert "measure: 6/6 rows" in printed.err
    measuring = [line for line in printed.err.splitlines() if line.startswith("measure: ")]
    assert measuring[0] == "measure: 0/6 rows, 0 s so far, now top"
    assert not [line for line in measuring if " left" in line]  # a row may cost a hundred others
    assert "now bottom (exact Jacobians of 20 images, slow)" in printed.err
    assert printed.err.index("20 images to do") < printed.err.index("identify: 20/20 images")
    assert "now its pictures" in printed.err
    assert "docs/method.md#measures" in printed.out
    assert "note" not in printed.err  # the classes are the teacher's

    canonical = CanonicalSet.load("out/canon")
    assert len(canonical) == 20
    config = canonical.manifest["config"]
    assert (config["tap"], config["num_dirs"], config["seed"]) == ("mid", 4, 3)
    assert config["sigma_te"] == pytest.approx(np.tan(0.35 * np.pi))
    assert config["clarid"]["steps"] == 2
    assert config["teacher_sha256"] == sha256_file(teacher_path)
    assert config["data_options"]["data"] == "backdrops"
    # Heun, 2 steps: 4 up, 4 down, and 5 with guidance, which takes two.
    assert canonical.manifest["cost"]["denoiser_evaluations"] == 20 * (4 + 4 + 2 * 5)
    assert canonical.manifest["cost"]["jacobian_products"] >= 20 * 4 * 4
    labels = canonical.tensors["label"]
    assert labels.bincount().tolist() == [2] * 10
    data = load_backdrops("train")
    assert data.labels[canonical.tensors["index"].numpy()].tolist() == labels.tolist()

    stored = json.loads(Path("out/report/measures.json").read_text())
    assert stored["config"]["judge_sha256"] == judge_card()["sha256"]
    rows = {row["kind"]: row for row in stored["rows"]}
    assert list(rows) == ["top", "none", "reconstruction", "random", "bottom", "middle"]
    assert all(row["images"] == 20 for row in rows.values())
    assert any(row["nmi_null"] < 0.99 for row in rows.values())  # of one image a class it is 1
    assert {kind for kind, row in rows.items() if row["removed_on_background"] is None} == {
        "none",
        "reconstruction",
    }
    assert len({row["background_spread"] for row in rows.values()}) == 6  # all did other things
    assert all(kind in printed.out for kind in rows)
    assert_picture("out/report/canonical.png", rows=10)
    assert_picture("out/report/spectrum.png", rows=1)


def test_rows_are_measured_once(command, capsys, monkeypatch):
    """Killed between two rows, or asked for one more, the same command measures what is missing."""
    from clarep.report import measures_table

    measured, measure_set = [], measures_table.measure_set

    def counted(clarid, judge, data, subset, control, **rest):
        if len(measured) == 2 and control == "random":
            raise KeyboardInterrupt
        measured.append(control)
        return measure_set(clarid, judge, data, subset, control, **rest)

    monkeypatch.setattr(measures_table, "measure_set", counted)
    options = "--fraction 0.004 --steps 1 --k 4 --control-images 20 --controls none random"
    assert main(command(options=options)) == 130
    assert measured == [None, "none"]
    monkeypatch.setattr(
        measures_table,
        "measure_set",
        lambda *given, **named: (measured.append(given[4]), measure_set(*given, **named))[1],
    )
    assert main(command(options=options)) == 0
    assert measured == [None, "none", "random"]
    assert main(command(options=f"{options} reconstruction")) == 0
    assert measured == [None, "none", "random", "reconstruction"]
    fewer, all_kinds = options.replace(" random", ""), ["top", "none", "random", "reconstruction"]
    for again in (fewer, f"{options} reconstruction"):  # fewer controls lose no row
        assert main(command(options=again)) == 0
        rows = json.loads(Path("out/report/measures.json").read_text())["rows"]
        assert sorted(row["kind"] for row in rows) == sorted(all_kinds)
    assert len(measured) == 4
    assert main(command(options=options.replace("20", "30"))) == 0  # other images: all anew
    assert measured[4:] == [None, "none", "random"]
    rows = json.loads(Path("out/report/measures.json").read_text())["rows"]
    assert [row["kind"] for row in rows] == ["top", "none", "random"]


def test_one_image_of_a_class_is_not_measured(command, finished, capsys):
    """k-means on one image a class finds the classes whatever the features."""
    shutil.copytree(finished, "out")
    capsys.readouterr()
    assert main(command("--control-images 20")) == 0
    printed = capsys.readouterr()
    note = "clarep: note: class 't-shirt' has 1 of the 10 images that would be measured"
    assert note in printed.err
    assert "a larger --fraction gives it" in printed.err
    assert "table" not in printed.out
    assert not Path("out/report/measures.csv").exists()


def test_a_teacher_of_other_classes_is_not_judged(teacher_path, capsys):
    from clarep.teachers.unet_teacher import load_unet

    unet = load_unet(teacher_path)
    save_unet(unet.net, Path("letters.safetensors"), tuple("abcdefghij"), 0.01, 80.0)
    options = "--teacher letters.safetensors --fraction 0.004 --steps 1 --k 4 --control-images 20"
    assert main(["identify", *options.split(), "--out", "out"]) == 0
    printed = capsys.readouterr()
    notes = [line for line in printed.err.splitlines() if "note" in line]
    assert len(notes) == 1
    assert "(t-shirt, trouser, pullover ... against a, b, c ...)" in notes[0]
    assert "the judge knows the ten garments alone" in notes[0]
    assert "Is the class still in the latent?" in printed.out  # the teacher itself can be asked
    assert "judge" not in printed.out
    rows = json.loads(Path("out/report/measures.json").read_text())["rows"]
    assert [row["kind"] for row in rows] == ["top", "none", "reconstruction", "random", "scrambled"]
    assert all(row["judge_accuracy"] is None is row["null_share"] for row in rows)
    assert all(row["evidence"] is not None for row in rows)


def test_the_stored_set_is_what_the_api_gives(command, teacher_path):
    from clarep.clarid.identify import identify_steps
    from clarep.data.class_balance import class_balanced_choice
    from clarep.teachers.zoo import load_teacher

    assert main(command("--seed 1 --shard-size 4")) == 0
    stored = CanonicalSet.load("out/canon")
    data = load_backdrops("train")
    chosen = class_balanced_choice(data.labels, 0.002, 1)
    assert stored.tensors["index"].tolist() == chosen.tolist()
    clarid = Clarid(load_teacher(str(teacher_path)), steps=2, k=4)
    part = chosen[4:8]
    reps = clarid(
        data.images(part),
        data.labels[part],
        seed=1 + int(part[0]),
    )
    assert torch.equal(stored[4:8].latent, reps.latent)
    assert torch.equal(stored[4:8].sample, reps.sample)
    steps = list(identify_steps(clarid, data, "api", chosen, seed=1, shard_size=4))
    assert [(step.done, step.new, step.total) for step in steps] == [
        (0, 0, 10),
        (4, 4, 10),
        (8, 4, 10),
        (10, 2, 10),
    ]
    ours, theirs = CanonicalSet.load("api"), CanonicalSet.load("out/canon")
    for name, tensor in ours.tensors.items():
        assert torch.equal(tensor, theirs.tensors[name])
    assert ours.manifest["config"]["data_sha256"] == theirs.manifest["config"]["data_sha256"]


def test_json(command, capsys):
    assert main(command("--json --kind random")) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["images"] == 10
    assert answer["measures"] == answer["skipped"] == []
    assert answer["cost"]["images"] == 10
    assert answer["cost"]["jacobian_products"] == 0
    assert answer["round_trip_psnr_median"] > 0
    assert answer["wrote"] == {"canonical set": "out/canon", "picture": "out/report/canonical.png"}
    assert all(Path(path).exists() for path in answer["wrote"].values())


def test_a_share_of_energy_is_settled_and_paid_for(command, capsys):
    assert main(command("--json --k energy:0.3")) == 0
    answer = json.loads(capsys.readouterr().out)
    canonical = CanonicalSet.load("out/canon")
    k = canonical.manifest["config"]["num_dirs"]
    assert 1 <= k < 256
    assert canonical.tensors["singular_values"].shape == (10, k)
    first, second = (shard["cost"] for shard in canonical.manifest["shards"])
    dense = 4 * 256  # the exact Jacobian of four images
    assert first["jacobian_products"] > dense
    assert answer["cost"]["jacobian_products"] == sum(
        cost["jacobian_products"] for cost in (first, second)
    )
    assert "resolve k" not in second["seconds"]


def test_killed_it_goes_on_and_ends_with_the_same_bytes(command, programs, capsys, monkeypatch):
    options = "--fraction 0.004 --steps 2 --k 4 --control-images 0 --shard-size 2"
    run = programs.start(COMMAND, *command(options=options, out="killed"), OMP_NUM_THREADS="1")
    deadline = time.monotonic() + 60
    while not shard_bytes("killed") and time.monotonic() < deadline:
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert json.loads(Path("killed/canon", MANIFEST).read_text())["complete"] is False
    stored = len(find_manifest(Folder(Path("killed/canon")))["shards"])
    assert len(shard_bytes("killed")) < 10
    before = {
        path: path.stat().st_mtime_ns for path in Path("killed/canon").glob("shard-*.safetensors")
    }

    capsys.readouterr()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(command(options=options, out="killed")) == 0
        assert f"identify: {2 * stored + 2}/20 images" in capsys.readouterr().err
        assert main(command(options=options, out="whole")) == 0
    finally:
        torch.set_num_threads(threads)
    kept = [path for path, changed in before.items() if path.stat().st_mtime_ns == changed]
    assert len(kept) >= stored
    assert len(shard_bytes("whole")) == 10
    assert shard_bytes("killed") == shard_bytes("whole")
    assert not list(Path("killed").rglob("*.tmp"))


def test_done_it_computes_nothing_again(command, finished, monkeypatch):
    shutil.copytree(finished, "out")
    whole = shard_bytes("out")
    Path("out/report/canonical.png").unlink()

    def never(*_, **__):
        raise AssertionError("it inverted images again")

    monkeypatch.setattr(Clarid, "invert", never)
    assert main(command()) == 0
    assert shard_bytes("out") == whole
    assert Path("out/report/canonical.png").exists()


def make_photographs(root: str, classes: int = 10, count: int = 2) -> None:
    """Write photographs, smooth colours with some noise, of odd and different sizes."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = Path(root, f"class{label:02d}")
        folder.mkdir(parents=True)
        for i in range(count):
            height, width = rng.integers(33, 60, size=2)
            shade = np.linspace(0, 200, height)[:, None, None] + rng.integers(0, 50, size=3)
            noisy = shade.repeat(width, 1) + rng.normal(0, 5, (height, width, 3))
            pixels = noisy.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"photo{i}.png")


def test_a_folder_of_photographs(command, capsys):
    make_photographs("photos")
    options = "--data photos --image-size 32 --fraction 0.5 --steps 2 --k 0.002"
    assert main(command(options=options)) == 0
    printed = capsys.readouterr()
    assert "labels are matched by number" in printed.err
    warnings = [line for line in printed.err.splitlines() if line.startswith("clarep: warning: ")]
    assert len(warnings) == 2
    assert "the teacher does not know these classes" in warnings[0]
    assert "the teacher does not know such images" in warnings[1]
    assert "clarep train-teacher --image-size 32 --data photos" in warnings[1]
    assert "table" not in printed.out  # without masks there is nothing to measure
    canonical = CanonicalSet.load("out/canon")
    assert sorted(canonical.tensors["label"].tolist()) == list(range(10))
    assert canonical.tensors["singular_values"].shape == (10, 6)
    assert canonical.manifest["config"]["data_options"]["data"] == str(Path("photos").resolve())
    assert_picture("out/report/canonical.png", rows=10)


def test_a_broken_photograph(command, capsys, monkeypatch):
    make_photographs("photos")
    broken = Path("photos/class03/photo1.png")
    broken.write_bytes(broken.read_bytes()[:200])
    Path("photos/class05/photo0.png").write_bytes(b"")
    options = "--data photos --image-size 32 --fraction 1 --steps 2 --k 4"
    with monkeypatch.context() as patch:
        patch.setattr(Clarid, "invert", lambda *_: pytest.fail("found after something expensive"))
        assert main(command(options=options)) == 2
    assert_one_line(capsys.readouterr(), str(broken))
    assert not Path("out").exists()

    assert main(command("--skip-bad", options=options)) == 0
    printed = capsys.readouterr()
    assert f"skipped {broken}: " in printed.out
    assert "skipped photos/class05/photo0.png: it is empty (zero bytes)" in printed.out
    canonical = CanonicalSet.load("out/canon")
    assert len(canonical) == 18
    skipped = canonical.manifest["config"]["skipped"]
    assert len(skipped) == 2 and skipped[0].startswith(f"{broken}: ")
    assert main(command("--skip-bad --json", options=options)) == 0
    assert len(json.loads(capsys.readouterr().out)["skipped"]) == 2


def make_bad_data() -> None:
    make_photographs("many", classes=12, count=1)
    make_photographs("odd", classes=10, count=1)
    Path("empty").mkdir()
    Path("a_file").write_text("")
    Path("cut.safetensors").write_bytes(b"\x10\x00\x00")
    for label in range(10):
        Path("small", str(label)).mkdir(parents=True)
        Image.new("RGB", (16, 16), "red").save(Path("small", str(label), "x.png"))
        Path("zero", str(label)).mkdir(parents=True)
        Path("zero", str(label), "x.png").write_bytes(b"")


WRONG = {
    "teacher": ("--teacher backdrp", "unknown teacher 'backdrp': did you mean backdrops"),
    "teacher's path": ("--teacher no/such", "there is no teacher at no/such"),
    "truncated teacher": ("--teacher cut.safetensors", "cannot read a teacher from cut"),
    "data": ("--data backdrp", "unknown data set 'backdrp': did you mean backdrops"),
    "data's path": ("--data no/such", "no such file or folder"),
    "empty folder": ("--data empty", "empty holds no class folders"),
    "split": ("--split tset", "did you mean test"),
    "variant": ("--variant orignal", "did you mean original"),
    "tap": ("--tap midd", "unknown tap 'midd': did you mean mid"),
    "kind": ("--kind botom", "bottom"),
    "branch": ("--branch nul", "null"),
    "solver": ("--solver huen", "heun"),
    "control": ("--controls none randm", "unknown control 'randm': did you mean random"),
    "t too high": ("--t 1.5", "t 1.5 is outside (0, 1)"),
    "t too low": ("--t 0", "t 0 is outside (0, 1)"),
    "t of no trained level": ("--t 0.999", "outside the teacher's range (0.01, 80]"),
    "sigma too high": ("--sigma 100", "sigma 100 is outside the teacher's range (0.01, 80]"),
    "sigma too low": ("--sigma 0.001", "sigma 0.001 is outside"),
    "sigma is no number": ("--sigma nan", "--sigma nan is not finite"),
    "t and sigma": ("--t 0.5 --sigma 1", "both t and sigma are given"),
    "k too large": ("--k 5000", "outside 1 to 3072, the latent's dimension"),
    "k too small": ("--k 0", "k = 0 means 0 directions, outside 1 to 3072"),
    "k in between": ("--k 1.5", "k = 1.5 is neither a whole number nor a share"),
    "k infinite": ("--k inf", "--k inf is not finite"),
    "k in words": ("--k lots", "k = 'lots' is not understood"),
    "k of too much energy": ("--k energy:2", "between 0 and 1, of the energy (energy:0.8)"),
    "k of no energy": ("--k energy:much", "k = 'energy:much' is not understood"),
    "guidance": ("--guidance -1", "guidance -1.0 is below 0"),
    "guidance is no number": ("--guidance nan", "--guidance nan is not finite"),
    "control that is like none": ("--controls foo", "valid are none, reconstruction"),
    "steps": ("--steps 0", "--steps 0 is below 1"),
    "tolerance": ("--tolerance 2", "tolerance 2.0 is outside (0, 1)"),
    "memory": ("--memory-mb 0", "--memory-mb 0"),
    "fraction": ("--fraction 0", "fraction 0.0 is outside (0, 1]"),
    "seed": ("--seed -1", "-1 is below 0"),
    "shard size": ("--shard-size 0", "--shard-size 0 is below 1"),
    "control images": ("--control-images 19", "--control-images 19 are too few"),
    "control images below 0": ("--control-images -1", "--control-images -1 is below 0"),
    "fixed point": ("--inversion fixed_point", "choose --solver euler with it"),
    "seed of the data": ("--data-seed -1", "-1 is below 0"),
    "classes": ("--data many --image-size 32", "is outside the teacher's classes 0 to 9"),
    "mixed sizes": ("--data odd", "--image-size"),
    "size": ("--data small", "images are 3x16x16"),
    "zero bytes": ("--data zero --image-size 32", "it is empty (zero bytes); --skip-bad"),
    "nothing left": ("--data zero --image-size 32 --skip-bad", "is left"),
    "does not apply": ("--data small --correlation 0.5", "does not apply"),
    "out is a file": ("--out a_file", "/a_file (File exists): give another --out"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_users_mistake_is_one_line_and_exit_code_2(case, command, capsys):
    make_bad_data()
    more, words = WRONG[case]
    assert main(command(more)) == 2
    assert_one_line(capsys.readouterr(), words)
    assert not Path("out").exists()


def test_a_teacher_of_other_channels(command, capsys):
    grey = UNet(UNetConfig(image_channels=1, widths=(8,), embed_dim=8))
    save_unet(grey, Path("grey.safetensors"), tuple("abcdefghij"), 0.01, 80.0)
    assert main(command("--teacher grey.safetensors")) == 2
    assert_one_line(capsys.readouterr(), "images are 3x32x32")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--seed 1", "seed: 0 there, 1 now"),
        ("--k 5", "k: 4 there, 5 now"),
        ("--t 0.5", "t: null there, 0.5 now"),
        ("--kind random", 'kind: "top" there, "random" now'),
        ("--correlation 0.5", "correlation: 0.0 there, 0.5 now"),
        ("--fraction 0.004", "fraction: 0.002 there, 0.004 now"),
        ("--shard-size 3", "shard_size: 5 there, 3 now"),
    ],
)
def test_a_folder_of_another_configuration(command, finished, capsys, more, words):
    shutil.copytree(finished, "out")
    capsys.readouterr()
    whole = shard_bytes("out")
    assert main(command(more)) == 2
    printed = capsys.readouterr()
    assert_one_line(printed, words)
    assert "out/canon holds a canonical set of another configuration" in printed.err
    assert shard_bytes("out") == whole


def test_a_tampered_shard(command, finished, capsys):
    shutil.copytree(finished, "out")
    whole = shard_bytes("out")
    shard = Path("out/canon/shard-00001.safetensors")
    changed = bytearray(whole[shard.name])
    changed[-1] ^= 1
    for damaged in (bytes(changed), whole[shard.name][:1000]):
        shard.write_bytes(damaged)
        capsys.readouterr()
        assert main(command()) == 2
        assert_one_line(capsys.readouterr(), f"shard {shard} is truncated or changed")
    shard.unlink()
    assert main(command()) == 0
    assert shard_bytes("out") == whole


def test_a_full_disk(command, finished, tiny_disk, capsys):
    """200 KiB a shard: the first fits, the second does not."""
    out = tiny_disk("300k") / "out"
    assert main(command(out=str(out))) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    last = printed.err.splitlines()[-1]
    assert last.startswith(f"clarep: cannot write {out}/canon/shard-00001.safetensors (No space")
    assert last.endswith("run the same command again; what is stored stays valid")
    whole = shard_bytes(str(finished))
    assert shard_bytes(str(out)) == {name: whole[name] for name in ["shard-00000.safetensors"]}
    assert not list(out.rglob(".*"))
    tiny_disk("8m")
    assert main(command(out=str(out))) == 0
    assert "5/10 images" not in capsys.readouterr().err  # the first five were not done again
    assert shard_bytes(str(out)) == whole


def test_no_more_fits(command, finished, no_file_above, capsys):
    """As `test_a_full_disk`, where no file system may be mounted."""
    shutil.copytree(finished, "out")
    whole = shard_bytes("out")
    Path("out/canon/shard-00001.safetensors").unlink()
    capsys.readouterr()
    with no_file_above(100_000):  # a shard takes twice as much, the manifest less
        assert main(command()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    last = printed.err.splitlines()[-1]
    assert last.startswith("clarep: cannot write out/canon/shard-00001.safetensors (File too large")
    assert last.endswith("run the same command again; what is stored stays valid")
    assert list(shard_bytes("out")) == ["shard-00000.safetensors"]
    assert not list(Path("out").rglob(".*"))
    assert main(command()) == 0
    assert shard_bytes("out") == whole


def test_an_unreadable_manifest(command, finished, capsys):
    shutil.copytree(finished, "out")
    capsys.readouterr()
    Path("out/canon", MANIFEST).write_text("{")
    assert main(command()) == 0  # it is made again from the shards, but for the cost
    assert "what 10 of the images cost is not known" in capsys.readouterr().out
    assert CanonicalSet.load("out/canon").sha256 == CanonicalSet.load(finished / "canon").sha256
    Path("out/canon", MANIFEST).write_text("{")
    for shard in Path("out/canon").glob("shard-*"):
        shard.unlink()
    assert main(command()) == 2
    assert_one_line(capsys.readouterr(), "cannot read out/canon/manifest.json")


def test_a_mistake_found_late_binds_no_one(command, capsys, monkeypatch):
    """A setting that fails at the first image must not hold the folder for itself."""
    from clarep.errors import UserError

    def fail(*_, **__):
        raise UserError("the features are not finite")

    with monkeypatch.context() as patch:
        patch.setattr(Clarid, "invert", fail)
        assert main(command("--k 5")) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "identify: 10 of 10 images to do, in shards of 5",
        "clarep: the features are not finite",
    ]
    assert main(command("--k 6")) == 0
    assert CanonicalSet.load("out/canon").manifest["config"]["num_dirs"] == 6


def test_progress_says_how_far_and_how_fast(capsys):
    with progress("walk", "steps", total=10, done=4) as advance:
        advance(0)  # no rate yet, and so no time left
        advance(3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "walk: 4/10 steps, 0.00 steps/s"
    assert lines[1].startswith("walk: 7/10 steps, ")
    assert lines[1].endswith(" s left")


def test_progress_of_uneven_units_tells_no_time_left(capsys):
    with progress("measure", "rows", total=3, even=False) as advance:
        advance(0, "now top")
        advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["measure: 0/3 rows, 0 s so far, now top", "measure: 1/3 rows, 0 s so far"]


def record(out: str, **findings: object) -> None:
    """Put other findings into a finished set's manifest."""
    path = Path(out, "canon", MANIFEST)
    manifest = read_json(path)
    write_json(path, manifest | {"findings": manifest["findings"] | findings}, sealed=True)


@pytest.mark.parametrize(
    "case",
    [(0.1, None, True), (-0.1, None, False), (0.1, 0.5, False), (0.1, 1.5, True)],
)
def test_a_round_trip_is_held_against_the_floor(command, finished, capsys, monkeypatch, case):
    """By how much it is below what is poor, and the autoencoder above it, in dB."""
    below, floor, warned = case
    shutil.copytree(finished, "out")
    trip = float(CanonicalSet.load("out/canon").tensors["round_trip_psnr"].quantile(0.5))
    monkeypatch.setattr("clarep.clarid.round_trip.POOR_PSNR", trip + below)
    record("out", autoencoder_psnr_median=None if floor is None else trip + floor)
    capsys.readouterr()
    assert main(command()) == 0
    printed = capsys.readouterr()
    assert ("the images do not come back" in printed.err) == warned
    beside = "" if floor is None else f" (the autoencoder alone {trip + floor:.1f} dB)"
    assert f"median round trip {trip:.1f} dB{beside}\n" in printed.out


def test_whether_the_teacher_knows_the_classes_is_recorded(command, finished, capsys):
    """Of one that has learnt nothing: warned of before the first shard, and each time again."""
    found = CanonicalSet.load(finished / "canon").manifest["findings"]["recognition"]
    assert found["verdict"] == "near chance" and found["images"] == found["labels"] == 10
    shutil.copytree(finished, "out")
    assert main(command("--json")) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["recognition"] == found
    warned = [line for line in printed.err.splitlines() if "does not know these classes" in line]
    assert len(warned) == 1 and found["said"] in warned[0]
    assert printed.err.index(warned[0]) < printed.err.index("0 of 10 images to do")


def test_what_the_teacher_knows_is_not_doubted_by_its_names(command, finished, capsys):
    make_photographs("photos")
    options = "--data photos --image-size 32 --fraction 0.5 --steps 2 --k 0.002"
    assert main(command(options=options)) == 0
    for verdict, warned in (("known", None), ("too few", "no class of the data (class00, ")):
        found = CanonicalSet.load("out/canon").manifest["findings"]["recognition"]
        record("out", recognition=found | {"verdict": verdict})
        capsys.readouterr()
        assert main(command(options=options)) == 0
        first = capsys.readouterr().err.split("identify: ")[0]
        assert warned in first if warned else "warning" not in first


def test_a_resumed_run_keeps_what_was_found(command, finished):
    """Where a set has none, of an earlier version say, it is found again; no shard changes."""
    shutil.copytree(finished, "out")
    path = Path("out/canon", MANIFEST)
    whole, manifest = shard_bytes("out"), read_json(path)
    without = {key: value for key, value in manifest.items() if key != "findings"}
    write_json(path, without, sealed=True)
    assert main(command()) == 0
    assert shard_bytes("out") == whole
    assert read_json(path) == manifest
