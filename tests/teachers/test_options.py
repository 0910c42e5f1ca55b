"""What may be said of a teacher: refused, recorded, and passed on by every command."""

import json
import shutil
import sys
import types
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from clarep.clarid.canonical_set import CanonicalSet
from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.engine.devices import check_device
from clarep.errors import UserError
from clarep.study.plan import Study
from clarep.study.recipe import load_recipe
from clarep.teachers.families import FAMILIES, Family
from clarep.teachers.options import (
    TeacherOptions,
    check_options,
    fingerprint_with,
    read_class_names,
    recorded,
)
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import load_unet, save_unet
from clarep.teachers.zoo import load_teacher

GIVEN = TeacherOptions(
    device="cuda:1",
    bf16=True,
    class_names=Path("names.txt"),
    template="{name}",
    offload=True,
    vae_slicing=True,
)
QUICK = "--t 0.85 --k 0.04 --fraction 0.002 --steps 1 --kind none --control-images 0"
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def unet_path(tmp_path_factory) -> Path:
    """An untrained U-Net of garments with 128 features at mid, so that Jacobians are quick."""
    generator = torch.Generator().manual_seed(0)
    net = UNet(UNetConfig(patch=8, widths=(8,), embed_dim=16))
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # freshly made, these hide the layers before them
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    path = tmp_path_factory.mktemp("small") / "teacher.safetensors"
    save_unet(net, path, CLASS_NAMES, 0.01, 80.0)
    return path


# On their own


def test_what_a_family_has_no_use_for_is_refused():
    check_options(TeacherOptions(), "dit", ())
    check_options(TeacherOptions(bf16=True), "dit", ("device", "bf16"))
    told = (
        r"^`bf16=True` means nothing to a edm: teacher: leave it out \(it takes `class_names`, `dev"
    )
    with pytest.raises(UserError, match=told):
        check_options(TeacherOptions(bf16=True), "edm", ("device", "class_names"))


def test_what_changes_no_result_is_not_recorded():
    assert recorded(TeacherOptions()) == {}
    expected = {"bf16": True, "class_names": "names.txt", "template": "{name}"}
    assert recorded(GIVEN) == expected
    assert json.loads(json.dumps(expected)) == expected


def test_the_fingerprint_follows_what_counts():
    plain = fingerprint_with(TeacherOptions(device="cuda", offload=True), "ab", ("x",))
    assert plain == "ab"
    changed = {
        fingerprint_with(options, "ab", names)
        for options in (
            TeacherOptions(bf16=True),
            TeacherOptions(template="{name}"),
            TeacherOptions(guided_channels="first3"),
            TeacherOptions(class_names=Path("a")),
        )
        for names in (("x",), ("y",))
    }
    assert len(changed) == 5  # the names count where they are given
    by_place = [
        fingerprint_with(TeacherOptions(class_names=Path(p)), "ab", ("x",)) for p in ("a", "b")
    ]
    assert by_place[0] == by_place[1]


def test_class_names_from_a_file():
    Path("names.txt").write_text("tench\n\n  great white shark \nhen\n")
    assert read_class_names(Path("names.txt")) == ("tench", "great white shark", "hen")
    Path("empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match=r"empty\.txt holds no class names: write one a line"):
        read_class_names(Path("empty.txt"))
    with pytest.raises(UserError, match=r"cannot read class names from none\.txt"):
        read_class_names(Path("none.txt"))
    Path("bytes.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"cannot read class names from bytes\.txt"):
        read_class_names(Path("bytes.txt"))


def test_devices():
    assert check_device("cpu") == torch.device("cpu")
    for wrong in ("gpu", "cuda:x", ""):
        with pytest.raises(UserError, match=f"unknown device '{wrong}': give cpu, cuda or cuda:1"):
            check_device(wrong)
    with pytest.raises(UserError, match="device 'meta' is not supported"):
        check_device("meta")
    with pytest.raises(UserError, match=r"device 'cuda:77' is not here \(\d+ GPUs are seen\)"):
        check_device("cuda:77")


# Of the bundled U-Nets


def test_our_own_take_a_device_alone(unet_path):
    spec = str(unet_path)
    teacher = load_teacher(spec, TeacherOptions(device="cpu"))
    assert teacher.device == torch.device("cpu")
    assert teacher.fingerprint == load_teacher(spec).fingerprint
    told = (
        r"^`bf16=True` means nothing to a U-Net of clarep's own: leave it out \(it takes `device`\)"
    )
    with pytest.raises(UserError, match=told):
        load_teacher(spec, TeacherOptions(bf16=True))
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        load_teacher(spec, TeacherOptions(device="gpu"))


@no_gpu
def test_without_a_gpu(unet_path):
    with pytest.raises(UserError, match=r"device 'cuda' is not here \(0 GPUs are seen\)"):
        load_teacher(str(unet_path), TeacherOptions(device="cuda"))


def test_a_family_by_name_and_place():
    with pytest.raises(UserError, match="unknown teacher family 'dti': did you mean dit"):
        load_teacher("dti:somewhere")
    with pytest.raises(UserError, match="teacher dit: names no place: give dit:PATH"):
        load_teacher("dit:")
    with pytest.raises(UserError, match="FAMILY:PLACE, of diffusers, dit, sd"):
        load_teacher("nonsense")


# Through the commands, with a family that takes what our U-Net would refuse


def load_tiny(place: str, options: TeacherOptions):
    check_options(options, "tiny", ("device", "bf16", "class_names"))
    teacher = load_unet(Path(place))
    if options.class_names is not None:
        teacher.class_names = read_class_names(options.class_names)
    teacher.fingerprint = fingerprint_with(options, teacher.fingerprint, teacher.class_names)
    teacher.bf16 = options.bf16
    return teacher


@pytest.fixture
def spec(unet_path, monkeypatch) -> str:
    module = types.ModuleType("clarep.teachers.families.tiny")
    module.load = load_tiny
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(FAMILIES, "tiny", Family("tiny"))
    monkeypatch.setattr("clarep.cli.identify.draw_set", lambda *_: {})  # takes seconds
    Path("names.txt").write_text("\n".join(CLASS_NAMES))
    return f"tiny:{unet_path}"


def run(text: str) -> None:
    assert main(text.split()) == 0


def refused(capsys, text: str, *words: str) -> None:
    capsys.readouterr()
    assert main(text.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    for word in words:
        assert word in printed.err


def test_identify_records_what_was_given(spec, capsys):
    options = "--bf16 --class-names names.txt --device cpu"
    command = f"identify --teacher {spec} {QUICK} --out out"
    run(f"{command} {options}")
    canonical = CanonicalSet.load("out/canon")
    expected = {"bf16": True, "class_names": "names.txt"}
    assert canonical.manifest["config"]["teacher_options"] == expected
    run(f"{command} {options}")  # goes on with it
    refused(capsys, command, "another configuration (teacher_sha256: ")
    refused(capsys, f"{command} --bf16", 'another configuration (class_names: "names.txt" there')


def test_nothing_given_is_nothing_recorded(spec, unet_path, capsys):
    """A folder of a run made before there were options is gone on with."""
    run(f"identify --teacher {unet_path} {QUICK} --out out")
    manifest = json.loads(Path("out/canon/manifest.json").read_text())
    assert "teacher_options" not in manifest["config"]
    assert all(shard["cost"]["device"] == "cpu" for shard in manifest["shards"])
    run(f"identify --teacher {unet_path} {QUICK} --device cpu --out out")
    plain = f"identify --teacher {spec} {QUICK} --out other"
    run(plain)
    assert "teacher_options" not in json.loads(Path("other/canon/manifest.json").read_text())
    refused(capsys, f"{plain} --bf16", 'teacher_options: null there, {"bf16": true} now')
    shutil.rmtree("other")
    refused(capsys, f"{plain} --template x", "--template x means nothing to a tiny: teacher")
    assert not Path("other").exists()


def test_select_and_bench(spec, unet_path, garments_path, capsys):
    grid = f"--data {garments_path} --t 0.6 --k 2 --seeds 0 --images 20 --steps 1"
    run(f"select --teacher {spec} --bf16 {grid} --out select")
    (cell,) = Path("select/cells").glob("*.json")
    assert json.loads(cell.read_text())["config"]["teacher_options"] == {"bf16": True}
    refused(
        capsys, f"select --teacher {spec} {grid} --out select", "another configuration (teacher_"
    )
    sizes = "--ks 2 --batches 1 --images 1 --max-iterations 2"
    run(f"bench subspace --teacher {spec} --class-names names.txt {sizes} --out bench")
    config = json.loads(Path("bench/bench_subspace.json").read_text())["config"]
    assert config["teacher_options"] == {"class_names": "names.txt"}
    refused(
        capsys,
        f"bench subspace --teacher {unet_path} --offload --out bench",
        "--offload means nothing to a U-Net of clarep's own",
    )


def test_distill(spec, garments_path, capsys):
    train = "--train.epochs 1 --train.warmup-share 0 --train.validation-share 0.25"
    command = f"distill --data {garments_path} {train} --out out"
    refused(capsys, f"{command} --method vanilla --bf16", "no --teacher is: give one, or leave")
    rivals = "--method diffusion-features --train.rivals.diffusion-share 1"
    refused(capsys, f"{command} {rivals} --teacher {spec} --vae-slicing", "--vae-slicing means")
    run(f"{command} {rivals} --teacher {spec} --bf16")
    assert Path("out/student/student.safetensors").exists()


def test_a_recipe(spec, write_recipe, capsys):
    path = write_recipe(teacher=f'"{spec}"')
    plain = path.read_text()
    study = Study(load_recipe(path), Path("study"))
    assert study.recipe.teacher_options == TeacherOptions()
    path.write_text(plain + "[teacher_options]\nbf16 = true\nclass_names = 'names.txt'\n")
    changed = Study(load_recipe(path), Path("study"))
    assert changed.teacher.bf16
    folders = [{job.folder for job in one.jobs} for one in (study, changed)]
    sets = [{folder for folder in some if folder.parent.name == "store"} for some in folders]
    assert len(sets[0]) == 2 and not sets[0] & sets[1]
    path.write_text(plain + "[teacher_options]\nbf16 = 1\n")
    refused(capsys, f"run {path}", "[teacher_options] bf16 = 1 is of the wrong type")
    path.write_text(plain + "[teacher_options]\nbf = true\n")
    refused(capsys, f"run {path}", "[teacher_options] unknown key 'bf': did you mean bf16")
    path.write_text(plain + "[teacher_options]\noffload = true\n")
    refused(capsys, f"run {path}", "`offload=True` means nothing to a tiny: teacher")


def test_every_option_has_its_help(capsys):
    assert main(["identify", "--help"]) == 0
    printed = capsys.readouterr().out
    for field in fields(TeacherOptions):
        assert f"--{field.name.replace('_', '-')}" in printed
