"""`--classifier` of `clarep identify` and `clarep select`: a student in the judge's place."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.engine.artefacts import sha256_file
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, load_student, save_student, student_path
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import save_unet

NAMES = ("red", "green", "blue", "unused")
KNOWN = (
    "evidence",
    "null_share",
    "judge_accuracy",
    "sample_within",
    "feature_within",
    "nmi_conditional",
    "nmi_null",
)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Images of three of four classes, an untrained teacher of them, and a student's run."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 128, (120, 16, 16, 3))
    images[np.arange(120), :, :, labels] += 64
    np.savez(home / "tiny.npz", x=images.astype(np.uint8), y=labels, classes=np.array(NAMES))
    net = UNet(UNetConfig(image_size=16, num_classes=4, widths=(8, 16), embed_dim=16))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_unet(net, home / "teacher.safetensors", NAMES, 0.01, 80.0)
    options = "--method vanilla --train.epochs 2 --train.batch-size 32 --train.learning-rate 0.05"
    distill = ["distill", "--data", str(home / "tiny.npz"), "--out", str(home / "run")]
    assert main([*distill, *options.split()]) == 0
    return home


def measured_rows() -> list:
    return json.loads(Path("out/report/measures.json").read_text())["rows"]


@pytest.fixture
def command(home):
    """Build the arguments of a run, with the student unless another classifier is given."""

    def build(name, more="", classifier=home / "run"):
        small = {
            "identify": "--fraction 0.15 --k 4 --steps 2 --control-images 12",
            "select": "--t 0.6 --k 4 --kind top --seeds 0 1 --images 12 --steps 2",
        }
        given = [] if classifier is None else ["--classifier", str(classifier)]
        teacher = ["--teacher", str(home / "teacher.safetensors")]
        base = [name, "--data", str(home / "tiny.npz"), *teacher, "--out", "out", *given]
        return [*base, *small[name].split(), *more.split()]

    return build


def test_identify_measures_its_row_and_its_controls(command, home, capsys):
    assert main(command("identify", "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = {row["kind"]: row for row in answer["measures"]}
    assert list(rows) == ["top", "none", "reconstruction", "random", "scrambled"]
    assert list(rows.values()) == measured_rows()
    for row in rows.values():
        assert row["images"] == 12
        assert all(row[name] is not None for name in KNOWN)
        assert (
            row["background_area"] is row["removed_on_background"] is row["background_r2"] is None
        )
    assert len({row["judge_confidence"] for row in rows.values()}) == 5

    # By a loop over what is stored: the first four images of each class that has any.
    student = load_student(home / "run")
    canonical, pixels = CanonicalSet.load("out/canon"), np.load(home / "tiny.npz")["x"]
    seen, right, originals = {0: 0, 1: 0, 2: 0}, 0, 0
    for i, label in enumerate(canonical.tensors["label"].tolist()):
        seen[label] += 1
        if seen[label] <= 4:
            original = (
                torch.from_numpy(pixels[canonical.tensors["index"][i]]).permute(2, 0, 1) / 255
            )
            sample = canonical.tensors["sample"][i : i + 1]
            with torch.no_grad():
                right += int(student((sample.clamp(-1, 1) + 1) / 2).argmax()) == label
                originals += int(student(original[None]).argmax()) == label
    assert min(seen.values()) > 4
    assert rows["top"]["judge_accuracy"] == pytest.approx(right / 12)
    recorded = json.loads(Path("out/report/classifier.json").read_text())
    assert recorded == answer["classifier"]
    assert (recorded["student"], recorded["sha256"]) == (
        "resnet8",
        sha256_file(student_path(home / "run")),
    )
    assert recorded["originals"]["images"] == 12
    assert recorded["originals"]["judge_accuracy"] == pytest.approx(originals / 12)
    assert originals > 6  # the student has learnt the colours


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_program_of_anyone_s_judges(command, home, capsys):
    """As a CIFAR-10 ResNet from elsewhere would; it is told by its bytes."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4)).eval()
    script = home / "judge.pt"
    torch.jit.save(torch.jit.trace(net, torch.rand(2, 3, 16, 16)), script)
    of_a_program = {"classifier": f"torchscript:{script}"}
    other = f"data:{home / 'tiny.npz'}"
    assert main(command("identify", f"--json --controls none {other}", **of_a_program)) == 0
    answer = json.loads(capsys.readouterr().out)
    judge, rows = answer["classifier"], {row["kind"]: row for row in answer["measures"]}
    assert judge["student"] == of_a_program["classifier"] and len(judge["sha256"]) == 64
    measured = CanonicalSet.load("out/canon").balanced(12)
    with torch.no_grad():
        said = net((measured.sample.clamp(-1, 1) + 1) / 2).argmax(1)
    right = float((said == measured.label).float().mean())
    assert rows["top"]["judge_accuracy"] == pytest.approx(right)
    assert list(rows) == ["top", "none", other] and rows[other]["images"] == 12
    assert main(command("select", **of_a_program)) == 0
    capsys.readouterr()
    torch.manual_seed(1)
    for outputs, code in ((4, 0), (3, 2)):  # of other weights, of other classes
        other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, outputs)).eval()
        torch.jit.save(torch.jit.trace(other, torch.rand(2, 3, 16, 16)), script)
        assert main(command("identify", "--json", **of_a_program)) == code
        printed = capsys.readouterr()
        if code == 0:
            assert json.loads(printed.out)["classifier"]["sha256"] != judge["sha256"]
    assert printed.err.startswith("clarep: ") and printed.err.count("\n") == 1


def test_identify_prints_a_table_of_what_is_known(command, capsys):
    assert main(command("identify")) == 0
    printed = capsys.readouterr()
    lines, kinds = printed.out.splitlines(), ["top", "none", "reconstruction", "random"]
    for question in ("latent", "judge", "together"):
        first = next(i for i, line in enumerate(lines) if question in line)
        assert lines[first + 1].startswith("directions")
        rows = lines[first + 2 : first + 7]
        assert [row.split()[0] for row in rows] == [*kinds, "scrambled"]
    words = " ".join(printed.out.split())
    assert "judge accuracy" in words and "garment" not in words
    assert "the given classifier, resnet8" in words
    assert "classifier in out/report/classifier.json" in printed.out
    with open("out/report/measures.csv", newline="") as stream:
        first = next(csv.DictReader(stream))
    assert first["background_area"] == first["removed_low"] == ""
    assert float(first["judge_low"]) <= float(first["judge_accuracy"])
    manifest = json.loads(Path("out/canon/manifest.json").read_text())
    assert "classifier" not in json.dumps(manifest)  # the set does not depend on it


def test_a_student_replaces_the_judge_on_backdrops(tiny_teacher_path, capsys):
    """The masks stay exact; run again without it, the judge's table names no student."""
    student = build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 32, 32)))
    save_student(student, Path("student.safetensors"))
    options = "--fraction 0.004 --k 4 --steps 1 --controls none --control-images 20 --out out"
    identify = ["identify", "--teacher", str(tiny_teacher_path), *options.split()]
    assert main([*identify, "--classifier", "student.safetensors"]) == 0
    assert "the given classifier" in " ".join(capsys.readouterr().out.split())
    ours = measured_rows()
    assert main(identify) == 0
    assert "an independent classifier" in " ".join(capsys.readouterr().out.split())
    theirs = measured_rows()
    assert not Path("out/report/classifier.json").exists()
    for mine, its in zip(ours, theirs, strict=True):
        other = {name for name in mine if mine[name] != its[name]}
        assert "judge_confidence" in other
        assert {name.split("_")[0] for name in other} <= {"judge", "null", "swap"}
        assert mine["background_area"] > 0


def test_select_keeps_the_objects(command, home, capsys):
    assert main(command("select")) == 0
    printed = capsys.readouterr().out
    assert "judge accuracy" in printed
    best = json.loads(Path("out/best.json").read_text())
    assert best["config"]["judge_sha256"] == sha256_file(student_path(home / "run"))
    for cell in Path("out/cells").iterdir():
        for row in json.loads(cell.read_text())["rows"]:
            assert all(row[name] is not None for name in KNOWN)


def test_select_does_not_mix_cells_of_other_judges(command, home, capsys):
    assert main(command("select", classifier=None)) == 0
    assert "judge accuracy" not in capsys.readouterr().out
    stored = {path: path.read_bytes() for path in Path("out/cells").iterdir()}
    assert "classifier" not in json.loads(next(iter(stored.values())))["config"]
    assert main(command("select")) == 2
    assert 'judge_sha256: null there, "' in capsys.readouterr().err
    assert main(command("select", classifier=None)) == 0  # it stays valid
    assert stored == {path: path.read_bytes() for path in Path("out/cells").iterdir()}


def make_students() -> None:
    """Write students that do not fit the teacher, and a folder that holds none."""
    for folder, names, shape in (
        ("more", (*NAMES, "more"), (3, 16, 16)),
        ("renamed", ("red", "green", "azure", "unused"), (3, 16, 16)),
        ("wide", NAMES, (3, 32, 32)),
        ("grey", NAMES, (1, 16, 16)),
    ):
        student = build_student(StudentInfo("resnet8", names, shape))
        save_student(student, Path(folder, "student.safetensors"))
    Path("empty").mkdir()


WRONG = {
    "more": "those of the teacher (5 classes there, 4 here)",
    "renamed": "the classifier's classes are not those of the teacher ('azure' there, 'blue' here)",
    "wide": "of the teacher 3x16x16: give --image-size 32",
    "grey": "images are 1x16x16 (channels x height x width) and those of the teacher 3x16x16",
    "empty": "empty holds no student.safetensors",
    "nowhere": "there is no student at nowhere",
}


@pytest.mark.parametrize("name", ["identify", "select"])
@pytest.mark.parametrize("classifier", WRONG)
def test_a_classifier_that_does_not_fit(name, classifier, command, capsys, monkeypatch):
    make_students()
    monkeypatch.setattr(Clarid, "invert", lambda *_: pytest.fail("found after something expensive"))
    assert main(command(name, classifier=classifier)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: ") and printed.err.count("\n") == 1
    assert WRONG[classifier] in printed.err
    assert not Path("out").exists()


def test_too_few_images_to_measure_on(command, capsys):
    """Two of each class that has images: of the fourth there are none."""
    assert main(command("identify", "--control-images 5")) == 2
    assert (
        "--control-images 5 are too few to measure on: give at least 6" in capsys.readouterr().err
    )
