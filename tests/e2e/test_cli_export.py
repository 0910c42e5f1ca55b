"""`clarep export`: a folder, its lines, its JSON, and mistakes told in one sentence."""

import json
import signal
from pathlib import Path

import pytest
import torch

from clarep.cli.main import main
from clarep.teachers.zoo import BUNDLED, load_teacher


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def test_exported_and_loaded_back(tiny_teacher_path, capsys):
    assert main(["export", str(tiny_teacher_path), "--out", "folder"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "diffusers folder in folder" in printed.out
    assert "--teacher diffusers:folder" in printed.out
    ours, back = load_teacher(str(tiny_teacher_path)), load_teacher("diffusers:folder")
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sigma, label = torch.ones(1), torch.tensor([4])
    assert torch.equal(ours.denoise(x, sigma, label), back.denoise(x, sigma, label))


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_teacher_with_its_card(name, capsys):
    assert main(["export", name, "--out", "folder", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"wrote": {"folder": "folder"}}
    card = json.loads(Path("folder/card.json").read_text())
    assert card["name"] == name and card["quality"]
    readme = Path("folder/README.md").read_text()
    assert "license: mit" in readme and f"# {name}" in readme and "`card.json`" in readme
    size = Path("folder/unet/diffusion_pytorch_model.safetensors").stat().st_size
    assert size < (15.4e6 if name == "cifar10" else 7.2e6)  # fp16, as bundled
    ours, back = load_teacher(name), load_teacher("diffusers:folder")
    assert back.class_names == ours.class_names
    x, sigma, label = torch.ones(1, 3, 32, 32), torch.ones(1), torch.tensor([4])
    assert torch.equal(ours.features(x, sigma, label, "mid"), back.features(x, sigma, label, "mid"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["backdrop"], "unknown teacher 'backdrop': did you mean backdrops"),
        (["dit:some/where"], "dit:some/where is a checkpoint of another family"),
        (["backdrops", "--format", "onnx"], "invalid choice 'onnx'"),
        (["backdrops", "--out", "full"], "full holds other files"),
        (["backdrops", "--out", "full/a_file"], "cannot write"),
        ([], "TEACHER"),
    ],
)
def test_mistakes(arguments, words, capsys):
    Path("full").mkdir()
    Path("full/a_file").write_text("")
    assert main(["export", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert words in printed.err


def test_what_a_full_disk_left_is_gone_on_with(tiny_teacher_path, tiny_disk, capsys):
    out = tiny_disk("40k") / "export"
    assert main(["export", str(tiny_teacher_path), "--out", str(out)]) == 2
    assert "free some space and run the same command again" in capsys.readouterr().err
    assert not list(out.rglob(".*"))  # no half file, no lock
    tiny_disk("4m")
    assert main(["export", str(tiny_teacher_path), "--out", str(out)]) == 0
    load_teacher(f"diffusers:{out}")


def test_what_a_kill_left_is_gone_on_with(tiny_teacher_path, programs):
    killed = """
import os, signal, sys
from clarep.cli.main import main
from clarep.engine import artefacts
replace = os.replace
def until(source, target):
    if str(target).endswith(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = until
main(["export", sys.argv[2], "--out", "out"])
"""
    for last in ("unet/config.json", ".safetensors", "model_index.json"):  # from an old one, too
        assert programs.run(killed, last, tiny_teacher_path).returncode == -signal.SIGKILL
        assert list(Path("out").rglob(".*.tmp")) and Path("out/.lock").exists()
        assert not Path("out/model_index.json").exists()
        assert main(["export", str(tiny_teacher_path), "--out", "out"]) == 0
        assert not list(Path("out").rglob(".*"))
        load_teacher("diffusers:out")
