import argparse
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clarep.errors import UserError
from clarep.teachers.checkpoint_files import Checkpoint, read_checkpoint, read_weights

WEIGHTS = {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.ones(3)}
KNOWN = {"heads": int, "vae": str, "class_names": list}


def same(found, expected=WEIGHTS):
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def others():
    return {name: -value for name, value in WEIGHTS.items()}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_the_same_weights_from_every_kind_of_file(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(WEIGHTS, path, {"made": "here"})
    else:
        torch.save(WEIGHTS, path)
    weights, metadata, arguments = read_weights(path)
    assert same(weights) and arguments == {}
    assert metadata == ({"made": "here"} if path.suffix == ".safetensors" else {})


@pytest.mark.parametrize(
    "file",
    [
        {"model": others(), "ema": WEIGHTS, "opt": {"state": {0: {"step": 3}}}},
        {"state_dict": others(), "model": WEIGHTS},
        {"epoch": 3, "state_dict": WEIGHTS},
        {f"module.{name}": value for name, value in WEIGHTS.items()},
        {"model": {f"_orig_mod.{name}": value for name, value in WEIGHTS.items()}},
        # As the training scripts of DiT, SiT and REPA leave it.
        {"ema": WEIGHTS, "model": others(), "args": argparse.Namespace(model="SiT-S/2")},
        {"weight": WEIGHTS["weight"], "bias": WEIGHTS["bias"], "step": 7},
    ],
)
def test_weights_nested_as_training_scripts_leave_them(tmp_path, file):
    torch.save(file, tmp_path / "w.pt")
    assert same(read_weights(tmp_path / "w.pt")[0])


def test_arguments_of_the_training(tmp_path):
    args = argparse.Namespace(path_type="GVP", lr=1e-4)
    torch.save({"ema": WEIGHTS, "args": args}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt")[2] == {"path_type": "GVP", "lr": 1e-4}
    found = read_checkpoint(str(tmp_path / "w.pt"), {"path_type": str}, "Net")
    assert found.arguments["path_type"] == "GVP" and found.settings == {}


@pytest.mark.parametrize("archive", [True, False])
def test_a_training_checkpoint_is_mapped_where_it_can_be(tmp_path, monkeypatch, archive):
    """The optimiser's state, twice the weights, is then never in memory."""
    file, asked, load = {"ema": WEIGHTS, "opt": others()}, {}, torch.load
    torch.save(file, tmp_path / "w.pt", _use_new_zipfile_serialization=archive)
    monkeypatch.setattr(
        torch, "load", lambda *given, **more: asked.update(more) or load(*given, **more)
    )
    assert same(read_weights(tmp_path / "w.pt")[0])
    assert asked["mmap"] is archive


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"ema": WEIGHTS, "ema_model": Hostile(trap)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt holds a \w+.* which clarep does not unpickle"):
        read_weights(tmp_path / "w.pt")
    assert not trap.exists()
    assert torch.load(tmp_path / "w.pt", weights_only=False)  # the trap is one
    assert trap.exists()


def test_a_whole_network_is_not_opened(tmp_path):
    torch.save(nn.Linear(2, 3), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"holds a torch\.nn\.modules\.linear\.Linear"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.97])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated(tmp_path, suffix, kept):
    path = tmp_path / f"w{suffix}"
    save_file(WEIGHTS, path) if suffix == ".safetensors" else torch.save(WEIGHTS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match=r"cannot read .*: give a whole file"):
        read_weights(path)


def test_places_without_weights(tmp_path):
    (tmp_path / "w.onnx").touch()
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": 1}))
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    torch.save({"ema": {"decay": 0.9}, "step": 3}, tmp_path / "shadow.pt")
    torch.save({}, tmp_path / "empty.pt")
    save_file({}, tmp_path / "empty.safetensors")
    for place, words in {
        "": "is a folder: give the weights' file in it",
        "nowhere.pt": "there is no file",
        "w.onnx": r"ends in '\.onnx': give a file of weights",
        "w.pt": "cannot read",
        "list.pt": "holds no state dict but a list",
        "shadow.pt": "holds no state dict but a dictionary of ema, step",
        "empty.pt": "holds no state dict but a dict:",
        "empty.safetensors": "holds no tensors",
    }.items():
        with pytest.raises(UserError, match=words) as refused:
            read_weights(tmp_path / place)
        assert "\n" not in str(refused.value)


def test_settings_come_from_metadata_then_side_file_then_query(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(WEIGHTS, path, {"heads": "2", "vae": "12", "class_names": '["a"]', "format": "pt"})
    assert read_checkpoint(str(path), KNOWN, "Net").settings == {
        "heads": 2,
        "vae": "12",  # a text stays one
        "class_names": ["a"],
    }
    side = tmp_path / "w.safetensors.json"
    side.write_text(json.dumps({"heads": 3, "class_names": ["b", "c"]}))
    found = read_checkpoint(f"{path}?vae=a+b/c=d e&heads=4", KNOWN, "Net")
    assert found.settings == {"heads": 4, "vae": "a+b/c=d e", "class_names": ["b", "c"]}
    assert found.path == path
    assert same(found.weights)


def test_a_file_may_have_a_question_mark_in_its_name(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w?heads=3.pt")
    assert read_checkpoint(str(tmp_path / "w?heads=3.pt"), KNOWN, "Net").settings == {}


@pytest.mark.parametrize(
    ("query", "side", "words"),
    [
        ("?head=3", "{}", "unknown setting of .*'head': did you mean heads"),
        ("?heads=three", "{}", "the setting heads of .* is 'three': give a whole number"),
        ("?heads=", "{}", "the setting heads of .* is '': give a whole number"),
        ("?heads=true", "{}", "is True: give a whole number"),
        ("", '{"vae": 3}', "the setting vae of .* is 3: give a text"),
        ("", '{"class_names": ["a", 1]}', "give a list of texts"),
        ("", '{"heads": 3', r"cannot read .*w\.pt\.json .*give a whole file"),
        ("", "[3]", "no JSON object"),
        ("", '{"depth": 3}', "unknown setting of .*'depth'"),
    ],
)
def test_settings_that_are_none(tmp_path, query, side, words):
    torch.save(WEIGHTS, tmp_path / "w.pt")
    (tmp_path / "w.pt.json").write_text(side)
    with pytest.raises(UserError, match=words):
        read_checkpoint(f"{tmp_path}/w.pt{query}", KNOWN, "Net")


def checkpoint(**changed):
    weights = {name: value for name, value in (WEIGHTS | changed).items() if value is not None}
    return Checkpoint(Path("w.pt"), weights, {}, family="Net")


def test_filling_a_network():
    network = nn.Linear(2, 3, device="meta")
    checkpoint().fill(network)
    x = torch.tensor([[1.0, 10.0]])
    assert network(x).tolist() == [[11.0, 33.0, 55.0]]  # [[0, 1], [2, 3], [4, 5]] x + 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"bias": None}, "holds no Net that clarep knows: it lacks bias"),
        ({"bias": torch.ones(4)}, r"its bias is \(4,\), where \(3,\) is asked for"),
        ({"bias": torch.ones(3, dtype=torch.int8)}, r"bias of w\.pt are torch\.int8"),
        ({"a": torch.ones(1), "b": torch.ones(1)}, "it has 2 tensors that a Net has not, a first"),
    ],
)
def test_weights_of_another_network(changed, words):
    with pytest.raises(UserError, match=words):
        checkpoint(**changed).fill(nn.Linear(2, 3, device="meta"))


def test_shapes_and_blocks():
    weights = {f"blocks.{i}.{name}": torch.ones(2) for i in (0, 1, 10) for name in "ab"}
    found = Checkpoint(Path("w.pt"), weights | {"my_blocks.3.a": torch.ones(1)}, {})
    assert found.count("blocks") == 3
    assert found.shape("blocks.10.a", 1) == (2,)
    with pytest.raises(UserError, match=r"it has no stem of 4 dimensions; its first is blocks\.0"):
        found.shape("stem", 4)
    with pytest.raises(UserError, match=r"it has no blocks\.0\.a of 2 dimensions"):
        found.shape("blocks.0.a", 2)
