"""`clarep convert edm` from a pickle to a teacher, and what it refuses."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from clarep.cli.main import main
from clarep.teachers.families.edm_net import DhariwalShape, EDMUNet
from clarep.teachers.zoo import load_teacher

KWARGS = dict(
    img_resolution=8,
    img_channels=3,
    label_dim=2,
    model_type="DhariwalUNet",
    model_channels=32,
    channel_mult=[1, 2],
    num_blocks=1,
    attn_resolutions=[4],
    use_fp16=True,
)
TRUSTED = "--i-trust-this-file"


@pytest.fixture(scope="session")
def pickles():
    path = Path(__file__).parents[1] / "teachers" / "edm_pickles.py"
    spec = importlib.util.spec_from_file_location("edm_pickles", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["edm_pickles"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    shape = DhariwalShape(
        8, 3, 2, model_channels=32, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,)
    )
    return EDMUNet(shape).requires_grad_(False)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pickled(pickles, network):
    content = pickles.snapshot(network, KWARGS, source="open('ran', 'w')")
    del content["ema"].model._modules["map_augment"]  # the network of ImageNet has none
    return pickles.dump(Path("net.pkl"), content)


def test_a_pickle_becomes_a_teacher(pickled, network, capsys):
    arguments = ["convert", "edm", str(pickled), "--out", "net.safetensors", TRUSTED, "--json"]
    assert main(arguments) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["wrote"] == "net.safetensors"
    assert answer["weights"] == len(network.state_dict())
    assert printed.err.startswith("clarep: warning: net.pkl is a PICKLE")
    assert "NO sandbox" in printed.err
    assert ("unshare" in printed.err) != answer["offline"]
    teacher = load_teacher("edm:net.safetensors")
    x, time, classes = torch.randn(2, 3, 8, 8), torch.tensor([0.1, -1.0]), torch.eye(2)
    assert torch.equal(teacher.network(x, time, classes), network(x, time, classes))
    assert not Path("ran").exists()


def test_a_malicious_pickle_is_refused_and_does_not_run(pickles, network, capsys):
    content = pickles.snapshot(network, KWARGS) | dict(extra=pickles.touch("mark"))
    pickles.dump(Path("bad.pkl"), content)
    assert main(["convert", "edm", "bad.pkl", "--out", "bad.safetensors", TRUSTED]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    last = printed.err.splitlines()[-1]
    assert last.endswith("it was refused and did not run; do not trust this file")
    assert "asks for posix.system" in last
    assert not Path("mark").exists()
    assert not Path("bad.safetensors").exists()


REFUSED = {
    "not trusted": ("net.pkl --out x.safetensors", "add --i-trust-this-file"),
    "no file": (f"none.pkl --out x.safetensors {TRUSTED}", "there is no file none.pkl"),
    "suffix": (f"net.pkl --out x.pt {TRUSTED}", "--out x.pt is no .safetensors"),
    "no out": (f"net.pkl {TRUSTED}", "--out"),
    "family": ("", "Expected one of {edm}"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_read_before_all_is_right(case, pickled, capsys, monkeypatch):
    def fail(*_):
        raise AssertionError("the pickle was read")

    monkeypatch.setattr("clarep.cli.convert.convert", fail)
    more, words = REFUSED[case]
    assert main(["convert", *(["edm"] if more else []), *more.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clarep: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err


def test_the_pickle_is_never_overwritten(pickled, capsys):
    named = pickled.rename("net.safetensors")
    before = named.read_bytes()
    assert main(["convert", "edm", str(named), "--out", str(named), TRUSTED]) == 2
    assert "is the pickle itself" in capsys.readouterr().err
    assert named.read_bytes() == before
