"""From NVlabs' pickle to safetensors: read without running it, and refused where it would run."""

import builtins
import importlib.util
import io
import json
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.engine import offline
from clarep.errors import UserError
from clarep.teachers.families import edm_convert
from clarep.teachers.families.edm import build_network, read_spec
from clarep.teachers.families.edm_convert import convert, convert_here, read_pickle
from clarep.teachers.families.edm_net import EDMUNet, SongShape
from clarep.teachers.zoo import load_teacher

KWARGS = dict(
    img_resolution=8,
    img_channels=3,
    label_dim=3,
    model_type="SongUNet",
    embedding_type="fourier",
    encoder_type="residual",
    decoder_type="standard",
    channel_mult_noise=2,
    resample_filter=[1, 3, 3, 1],
    model_channels=8,
    channel_mult=[1, 2],
    num_blocks=1,
    attn_resolutions=[4],
    augment_dim=9,
    dropout=0.13,
    use_fp16=False,
)


def _load_helper():
    path = Path(__file__).parent / "edm_pickles.py"
    spec = importlib.util.spec_from_file_location("edm_pickles", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["edm_pickles"] = module
    spec.loader.exec_module(module)
    return module


pickles = _load_helper()


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    shape = SongShape(
        8,
        3,
        3,
        model_channels=8,
        channel_mult=(1, 2),
        num_blocks=1,
        attn_resolutions=(4,),
        embedding_type="fourier",
        encoder_type="residual",
        channel_mult_noise=2,
        resample_filter=(1.0, 3.0, 3.0, 1.0),
    )
    network = EDMUNet(shape).requires_grad_(False)
    network.map_noise.freqs.copy_(16 * torch.randn(8))
    return network


@pytest.fixture
def source(network, tmp_path):
    """A snapshot whose source would leave a mark, if it ran."""
    code = f"open({str(tmp_path / 'ran')!r}, 'w')"
    return pickles.dump(tmp_path / "net.pkl", pickles.snapshot(network, KWARGS, source=code))


def test_the_weights_and_arguments_are_those_of_the_pickle(network, source, tmp_path):
    class_name, arguments, weights = read_pickle(source)
    assert class_name == "EDMPrecond"
    assert arguments == KWARGS
    ours = {f"model.{name}": value for name, value in network.state_dict().items()}
    assert set(weights) == set(ours) | {"model.map_augment.weight"}
    for name, value in ours.items():
        assert torch.equal(weights[name], value), name
    assert not (tmp_path / "ran").exists()


def test_the_file_is_a_teacher_of_the_same_network(network, source, tmp_path):
    out = tmp_path / "net.safetensors"
    assert convert_here(source, out) == len(network.state_dict()) + 1
    teacher = load_teacher(f"edm:{out}")
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([0.1, -1.0])
    classes = torch.eye(3)[:2]
    assert torch.equal(teacher.network(x, time, classes), network(x, time, classes))
    once = out.read_bytes()
    convert_here(source, out)
    assert out.read_bytes() == once


def test_numpy_numbers_views_and_half_precision(network, tmp_path):
    content = pickles.snapshot(network, KWARGS | dict(dropout=np.float64(0.1)))
    layer = content["ema"].model.map_layer1
    turned = torch.nn.Parameter(torch.randn(32, 64).half()[:, ::2].T)  # neither whole nor in order
    layer.weight = turned
    _, arguments, weights = read_pickle(pickles.dump(tmp_path / "net.pkl", content))
    assert arguments["dropout"] == 0.1
    assert torch.equal(weights["model.map_layer1.weight"], turned)
    build_network(read_spec("EDMPrecond", arguments, tmp_path), weights, tmp_path)


# ---- pickles that would run something


def assert_refused(path, words=""):
    with pytest.raises(UserError) as refused:
        read_pickle(path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_command_in_the_pickle_does_not_run(network, tmp_path):
    mark = tmp_path / "mark"
    for name, place in {
        "top": lambda content: content.update(extra=pickles.touch(mark)),
        "instead": lambda content: content.update(ema=pickles.touch(mark)),
        "argument": lambda content: content["ema"]._init_kwargs.update(x=pickles.touch(mark)),
        "attribute": lambda content: setattr(content["ema"].model, "x", pickles.touch(mark)),
    }.items():
        content = pickles.snapshot(network, KWARGS)
        place(content)
        path = pickles.dump(tmp_path / f"{name}.pkl", content)
        assert_refused(path, "asks for posix.system, which no network of NVlabs' edm needs")
        assert not mark.exists(), name
    pickle.loads(pickle.dumps(pickles.touch(mark)))  # in the usual way it does run
    assert mark.exists()


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        ((eval, "1"), "builtins.eval"),
        ((getattr, "", "join"), "builtins.getattr"),
        ((builtins.open, "mark", "w"), "io.open"),
        ((torch.load, "mark"), "torch.serialization.load"),
        ((np.load, "mark"), "numpy.load"),
        ((subprocess.run, "true"), "subprocess.run"),
    ],
)
def test_no_other_name_is_looked_up(call, asked, tmp_path):
    path = pickles.dump(tmp_path / "bad.pkl", dict(ema=pickles.Call(*call)))
    assert_refused(path, f"asks for {asked}")


def test_a_name_within_an_allowed_one_is_not_allowed(tmp_path):
    path = tmp_path / "dotted.pkl"
    path.write_bytes(
        b"\x80\x04\x8c\x0btorch._utils\x8c\x1e_rebuild_tensor_v2.__globals__\x93.".replace(
            b"\x8c\x0b", b"\x8c\x0c"
        )
    )
    with pytest.raises(KeyError):  # the usual reader would hand it out
        pickle.loads(path.read_bytes())["no such name"]
    assert_refused(path, "asks for torch._utils._rebuild_tensor_v2.__globals__")


def test_a_command_inside_a_storage_does_not_run(network, tmp_path):
    mark = tmp_path / "mark"
    for save in (pickle.dumps, _torch_saved):
        bad = pickles.Call(torch.storage._load_from_bytes, save(pickles.touch(mark)))
        tensor = pickles.Call(torch._utils._rebuild_tensor_v2, bad, 0, (1,), (1,), False, None)
        content = pickles.snapshot(network, KWARGS)
        del content["ema"].model.map_layer0.bias
        content["ema"].model.map_layer0._parameters["bias"] = tensor
        assert_refused(pickles.dump(tmp_path / "bad.pkl", content), "is no whole pickle of an EDM")
        assert not mark.exists()


def _torch_saved(value):
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def test_a_tensor_larger_than_its_storage(network, tmp_path):
    storage = torch.ones(4).__reduce_ex__(4)[1][0]
    content = pickles.snapshot(network, KWARGS)
    for size, offset in (((9,), 0), ((4,), 3)):
        call = (torch._utils._rebuild_tensor_v2, storage, offset, size, (1,), False, None)
        content["ema"].model.map_layer0._parameters["bias"] = pickles.Call(*call)
        assert_refused(pickles.dump(tmp_path / "bad.pkl", content), "out of bounds")


# ---- files that are none


def test_files_that_are_no_network(source, tmp_path):
    whole = source.read_bytes()
    for content, words in {
        b"": "is no whole pickle of an EDM network (EOFError",
        whole[: len(whole) // 2]: "is no whole pickle",
        b"<html>404</html>": "is no whole pickle",
        pickle.dumps(dict(net=1)): "(KeyError: 'ema')",
        pickle.dumps(dict(ema=[1])): "is no whole pickle",
        pickle.dumps([1]): "is no whole pickle",
    }.items():
        path = tmp_path / "file.pkl"
        path.write_bytes(content)
        assert_refused(path, words)
    with pytest.raises(UserError, match="No such file or directory"):
        read_pickle(tmp_path / "none.pkl")


def test_a_module_that_holds_itself(network, tmp_path):
    content = pickles.snapshot(network, KWARGS)
    container = torch.nn.ModuleDict()
    container._modules["again"] = container
    content["ema"].model._modules["loop"] = container
    assert_refused(pickles.dump(tmp_path / "loop.pkl", content), "RecursionError")


def test_an_unsupported_network_writes_nothing(network, tmp_path):
    out = tmp_path / "out.safetensors"
    for class_name, kwargs, words in (
        ("iDDPMPrecond", KWARGS, "unknown preconditioning 'iDDPMPrecond'"),
        ("EDMPrecond", KWARGS | dict(label_dim=0), "without classes"),
        ("EDMPrecond", KWARGS | dict(num_blocks=2), "lacks model."),
    ):
        content = pickles.snapshot(network, kwargs, class_name)
        with pytest.raises(UserError, match=words):
            convert_here(pickles.dump(tmp_path / "net.pkl", content), out)
        assert not out.exists()


# ---- the process


@pytest.fixture
def started(monkeypatch):
    """Record what `convert` would start, and answer for it."""
    seen = {}

    def run(command, **options):
        if command[-1] == "true":
            return subprocess.CompletedProcess(command, seen.get("unshare", 0), b"", b"")
        seen.update(command=command, options=options)
        answer = seen["answer"].encode()
        return subprocess.CompletedProcess(command, seen.get("code", 0), answer, b"boom")

    monkeypatch.setattr(offline.subprocess, "run", run)
    monkeypatch.setattr(offline.shutil, "which", lambda _: "/usr/bin/unshare")
    offline.offline_prefix.cache_clear()
    yield seen
    offline.offline_prefix.cache_clear()


def test_the_process_is_isolated(started, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    started["answer"] = 'a library spoke\n{"weights": 3}\n'
    assert convert(Path("a.pkl"), tmp_path / "b.safetensors") == dict(weights=3, offline=True)
    command, options = started["command"], started["options"]
    assert command[:4] == ["unshare", "--net", sys.executable, "-I"]
    assert command[-2:] == [str(Path("a.pkl").resolve()), str(tmp_path / "b.safetensors")]
    assert set(options["env"]) <= {"PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"}
    assert options["input"] == b""
    started["unshare"] = 1
    offline.offline_prefix.cache_clear()
    assert convert(Path("a.pkl"), tmp_path / "b.safetensors")["offline"] is False
    assert started["command"][0] == sys.executable


def test_the_process_finds_what_is_installed_for_the_user_alone(source, tmp_path, monkeypatch):
    """Isolated and without site, Python knows its own library alone; the paths are told to it."""
    run = subprocess.run

    def without_site(command, **options):
        if command[0] == sys.executable:
            command = [sys.executable, "-S", *command[1:]]
        return run(command, **options)

    monkeypatch.setattr(offline, "offline_prefix", tuple)
    monkeypatch.setattr(offline.subprocess, "run", without_site)
    assert convert(source, tmp_path / "net.safetensors")["weights"] > 0
    program = edm_convert._PROGRAM.replace("sys.path += ", "sys.path or ")
    monkeypatch.setattr(edm_convert, "_PROGRAM", program)
    words = r"\(ModuleNotFoundError: No module named 'clarep'\): .* install clarep and torch in one"
    with pytest.raises(UserError, match=words) as refused:
        convert(source, tmp_path / "net.safetensors")
    assert "\n" not in str(refused.value)


def test_what_the_process_refuses_and_that_it_died(started, tmp_path):
    started.update(answer='{"refused": "a sentence"}\n', code=2)
    with pytest.raises(UserError, match=r"^a sentence$"):
        convert(Path("a.pkl"), tmp_path / "b.safetensors")
    started.update(answer="", code=-9)
    with pytest.raises(UserError, match=r"that read a\.pkl ended with -9 \(boom\): nothing was"):
        convert(Path("a.pkl"), tmp_path / "b.safetensors")


def test_no_network_in_the_process():
    prefix = offline.offline_prefix()
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        program = f"import socket; socket.create_connection({place!r}, 2)"
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
        closed = offline.run_offline(program)
        assert offline.last_line(closed) == "OSError: no network in this process"
        if not prefix:
            pytest.skip("this system lets no process be cut off from the network")
        assert subprocess.run([*prefix, sys.executable, "-c", program], check=False).returncode


def test_the_process_answers_in_json(network, source, tmp_path, monkeypatch, capsys):
    file = tmp_path / "a_file"
    file.write_text("")
    for target, words in (
        (tmp_path / "net.safetensors", f'{{"weights": {len(network.state_dict()) + 1}}}'),
        (file / "net.safetensors", "cannot write"),
    ):
        monkeypatch.setattr(sys, "argv", ["-c", str(source), str(target)])
        assert edm_convert.main() == (2 if "cannot" in words else 0)
        assert words in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["-c", str(file), str(target)])
    assert edm_convert.main() == 2
    assert json.loads(capsys.readouterr().out)["refused"].startswith(f"{file} is no whole pickle")
