"""Classifiers of other libraries as students: each against the untouched model itself."""

import argparse
import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from clarep.engine.tensors import sha256_state
from clarep.errors import UserError
from clarep.robustness.tested_student import fingerprint, under_test
from clarep.students.foreign_students import is_foreign, load_foreign
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

NAMES = ("top", "bag", "shoe")
SHAPE = (3, 16, 16)
MODELS = {
    "vit": lambda names: transformers.ViTForImageClassification(
        transformers.ViTConfig(
            image_size=16,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            **names,
        )
    ),
    "resnet": lambda names: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **names
        )
    ),
    "convnext": lambda names: transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(
            patch_size=4, num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], **names
        )
    ),
}
PROCESSORS = {
    "vit": lambda: transformers.ViTImageProcessor(
        size={"height": 16, "width": 16}, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    ),
    "convnext": lambda: transformers.ConvNextImageProcessor(
        size={"shortest_edge": 16}, crop_pct=0.8
    ),
    "mobilevit": lambda: transformers.MobileViTImageProcessor(  # blue first, not normalised
        size={"shortest_edge": 18}, crop_size={"height": 16, "width": 16}
    ),
    "efficientnet": lambda: transformers.EfficientNetImageProcessor(  # normalises twice
        size={"height": 16, "width": 16}, include_top=True
    ),
}
AS_IS = {"do_resize": False, "do_center_crop": False}


def make_hf(folder: Path, model: str = "vit", processor: str = "vit", names=NAMES):
    """Save a classifier with random weights and its processor; return both."""
    labels = {"id2label": dict(enumerate(names))} if names else {"num_labels": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = MODELS[model](labels).eval()
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.3)  # freshly made, many are zero
    made.save_pretrained(folder)
    prepare = PROCESSORS[processor]()
    prepare.save_pretrained(folder)
    return made, prepare


def some_images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, 16, 16, 3), dtype=np.uint8)


def as_student_sees(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def message(*arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_foreign(*arguments, **options).student(NAMES, SHAPE)
    return str(caught.value)


# transformers


@pytest.mark.parametrize(
    ("model", "processor"),
    [
        ("vit", "vit"),
        ("resnet", "convnext"),
        ("convnext", "convnext"),
        ("resnet", "mobilevit"),
        ("vit", "efficientnet"),
    ],
)
def test_hf_gives_the_logits_of_the_model_behind_its_own_processor(tmp_path, model, processor):
    untouched, prepare = make_hf(tmp_path, model, processor)
    student = load_foreign(f"hf:{tmp_path}").student(NAMES, SHAPE)
    images = some_images()
    seen = []
    head = [m for m in untouched.modules() if isinstance(m, nn.Linear) and m.out_features == 3][-1]
    head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        pixels = prepare(images=list(images), return_tensors="pt", **AS_IS)["pixel_values"]
        expected = untouched(pixel_values=pixels).logits
        features, logits = student.both(as_student_sees(images))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(features, seen[0].flatten(1), rtol=1e-4, atol=1e-4)
        assert torch.equal(student(as_student_sees(images)), logits)
        assert torch.equal(student.features(as_student_sees(images)), features)
    assert expected.std() > 1e-2  # or anything would be close
    assert student.info == StudentInfo(f"hf:{tmp_path}", NAMES, SHAPE)
    assert student.feature_dim == features.shape[1] == 16
    assert not student.training


def test_hf_takes_whatever_a_processor_does_to_the_order_of_channels(tmp_path, monkeypatch):
    untouched, prepare = make_hf(tmp_path)
    plain = type(prepare).__call__

    def rolled(self, *arguments, **options):
        found = plain(self, *arguments, **options)
        found["pixel_values"] = found["pixel_values"].roll(1, dims=1)
        return found

    monkeypatch.setattr(type(prepare), "__call__", rolled)
    student = load_foreign(f"hf:{tmp_path}").student(NAMES, SHAPE)
    images = some_images()
    pixels = prepare(images=list(images), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = untouched(pixel_values=pixels).logits
        torch.testing.assert_close(student(as_student_sees(images)), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(untouched(pixel_values=pixels.roll(1, dims=1)).logits, expected)


def test_gradients_go_through_and_modes_come_back(tmp_path):
    make_hf(tmp_path)
    student = load_foreign(f"hf:{tmp_path}").student(NAMES, SHAPE)
    x = as_student_sees(some_images()).requires_grad_(True)
    with under_test(student) as subject:
        subject(x).square().sum().backward()
    assert x.grad is not None and x.grad.abs().min(dim=0).values.max() > 0
    assert all(parameter.grad is None for parameter in student.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_a_fingerprint_tells_weights_configuration_and_classes_but_not_the_folder(tmp_path):
    make_hf(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "heads")
    config = json.loads((tmp_path / "a/config.json").read_text())
    (tmp_path / "heads/config.json").write_text(json.dumps(config | {"num_attention_heads": 4}))
    shutil.copytree(tmp_path / "a", tmp_path / "mean")
    for path in (tmp_path / "mean").glob("*processor*.json"):
        path.write_text(path.read_text().replace("0.3", "0.25"))
    found = {
        name: fingerprint(load_foreign(f"hf:{tmp_path / name}").student(NAMES, SHAPE))
        for name in ("a", "b", "heads", "mean")
    }
    assert found["a"] == found["b"]
    assert len(set(found.values())) == 3
    turned = load_foreign(f"hf:{tmp_path / 'a'}").student(NAMES[::-1], SHAPE)
    assert fingerprint(turned) not in found.values()


def test_transformers_says_nothing_and_its_settings_stay(tmp_path, capfd):
    make_hf(tmp_path)
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    capfd.readouterr()
    load_foreign(f"hf:{tmp_path}")
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_hf(tmp_path / "made")
    return tmp_path / "made"


def test_refused_a_place_that_is_none(folder: Path):
    assert "there is no folder" in message("hf:no/such/folder/here")
    assert "hf: names no model" in message("hf:")
    # not a timm model of that name
    assert "'torchscrip': did you mean torchscript" in message("torchscrip:model.ts")
    config = folder / "config.json"
    assert "is a file: give the folder that holds its config.json" in message(f"hf:{config}")
    config.unlink()
    assert "holds no config.json" in message(f"hf:{folder}")


def test_refused_pickles_alone(folder: Path):
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "no weights as safetensors, and pickled ones are never" in message(f"hf:{folder}")


def test_refused_weights_cut_off_or_without_their_head(folder: Path):
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["classifier.bias"]
    save_file(weights, file, {"format": "pt"})
    said = message(f"hf:{folder}")
    assert "lacks 1 of the weights of ViTForImageClassification (classifier.bias" in said
    file.write_bytes(file.read_bytes()[:-100])
    assert "no image classifier that transformers can load" in message(f"hf:{folder}")


@pytest.mark.parametrize("change", [lambda v: (100 * v).to(torch.int8), lambda v: v * torch.nan])
def test_refused_weights_of_integers_or_nan(folder: Path, change):
    file = folder / "model.safetensors"
    weights = load_file(file)
    changed = {"classifier.weight": change(weights["classifier.weight"])}
    save_file(weights | changed, file, {"format": "pt"})
    assert "classifier.weight" in message(f"hf:{folder}")


def test_refused_a_model_that_classifies_no_images(folder: Path):
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    said = message(f"hf:{folder}")
    assert "no image classifier that transformers can load" in said
    assert len(said) < 450 and "\n" not in said


def test_refused_code_beside_a_checkpoint_is_not_run(folder: Path, tmp_path: Path):
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "mine.C", "AutoModelForImageClassification": "mine.M"}
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "mine", "auto_map": own})
    )
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert "no image classifier that transformers can load" in message(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_refused_no_image_processor(folder: Path):
    for path in folder.glob("*processor*.json"):
        path.unlink()
    assert "no image processor that transformers can load" in message(f"hf:{folder}")


def test_refused_a_processor_that_does_more_to_colours(folder: Path, monkeypatch):
    kind = type(transformers.AutoImageProcessor.from_pretrained(folder))
    plain = kind.__call__

    def squared(self, *arguments, **options):
        found = plain(self, *arguments, **options)
        found["pixel_values"] = found["pixel_values"] ** 2
        return found

    monkeypatch.setattr(kind, "__call__", squared)
    assert "does more to colours than scale and normalise" in message(f"hf:{folder}")


def test_refused_a_processor_of_another_size_than_the_model(folder: Path):
    transformers.ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(folder)
    assert "takes no images of 24x24 with 3 channels" in message(f"hf:{folder}")
    transformers.ViTImageProcessor(size={"height": 16, "width": 24}).save_pretrained(folder)
    assert "makes images of 24x16 with 3 channels" in message(f"hf:{folder}")


def test_refused_classes_that_are_not_the_datas(folder: Path, tmp_path: Path):
    model = load_foreign(f"hf:{folder}")
    with pytest.raises(UserError, match="tells 3 classes apart and the data hold 4"):
        model.student(("top", "bag", "shoe", "hat"), SHAPE)
    with pytest.raises(UserError, match=r"knows no class 'hat' of the data .*`class_names`"):
        model.student(("top", "bag", "hat"), SHAPE)
    names = tmp_path / "names.txt"
    names.write_text("top\nbag\n")
    said = message(f"hf:{folder}", class_names=str(names))
    assert "`class_names` gives 2 names and" in said and "tells 3 classes apart" in said
    names.write_text("top\nbag\nbag\n")
    assert "twice: name each class once" in message(f"hf:{folder}", class_names=str(names))
    missing = str(tmp_path / "none.txt")
    assert "cannot read class names" in message(f"hf:{folder}", class_names=missing)


def test_refused_without_the_library(folder: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install '.[diffusers]'" in message(f"hf:{folder}")


def test_refused_weights_beside_it(folder: Path):
    said = message(f"hf:{folder}", weights=Path("w.pt"))
    assert "`weights=w.pt` means nothing to hf:" in said


# timm


@pytest.fixture
def resnet():
    """timm's small test model of three classes with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return timm.create_model("test_resnet", num_classes=3).eval()


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


FILES = {
    "w.pt": lambda raw, ema: raw,
    "ddp.pth": lambda raw, ema: prefixed("module.", raw),
    "compiled.pth": lambda raw, ema: prefixed("_orig_mod.module.", raw),
    "wrapped.pth": lambda raw, ema: prefixed("module._orig_mod.", raw),
    "model.bin": lambda raw, ema: {"model": raw, "epoch": 3},
    "l.ckpt": lambda raw, ema: {"state_dict": prefixed("model.", raw), "epoch": 1},
    "own.pth.tar": lambda raw, ema: {
        "state_dict": raw,
        "args": argparse.Namespace(lr=0.1, opt="sgd"),
        "metric": np.float64(50.0),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "ema.pth.tar": lambda raw, ema: {
        "epoch": 3,
        "state_dict": raw,
        "args": argparse.Namespace(lr=0.1),
        "state_dict_ema": prefixed("module.", ema),
    },
    "shadow.pth": lambda raw, ema: {
        "model": raw,
        "model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.", ema)},
    },
}


@pytest.mark.parametrize("name", ["w.safetensors", *FILES])
def test_timm_takes_the_users_weights(tmp_path, resnet, name):
    """In whatever wrapping; of raw and averaged weights the averages, which is said."""
    path, state = tmp_path / name, resnet.state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        raw = {key: value + (key == "fc.bias") for key, value in state.items()}
        has_ema = name in ("ema.pth.tar", "shadow.pth")
        torch.save(FILES[name](raw if has_ema else state, state), path)
    model = load_foreign("timm:test_resnet", weights=path, image_size=32)
    student = model.student(NAMES, (3, 32, 32))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    config = resnet.pretrained_cfg
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(student(x), resnet((x - mean) / std), rtol=1e-5, atol=1e-5)
        pooled = resnet.forward_head(resnet.forward_features((x - mean) / std), pre_logits=True)
        torch.testing.assert_close(student.features(x), pooled, rtol=1e-5, atol=1e-5)
    told = [note for note in student.notes if "EMA" in note]
    assert [str(path) in note for note in told] == [True] * (name in ("ema.pth.tar", "shadow.pth"))
    assert not student.training


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: (value * 100).to(torch.int8), ["torch.int8", "fc.weight", "quantised"]),
        (lambda value: value / 0, ["fc.weight", "infinity"]),
    ],
)
def test_refused_weights_that_are_no_numbers_of_a_network(tmp_path, resnet, change, words):
    state = resnet.state_dict()
    torch.save(state | {"fc.weight": change(state["fc.weight"])}, tmp_path / "w.pt")
    said = message("timm:test_resnet", weights=tmp_path / "w.pt")
    assert all(word in said for word in words)


def test_timm_takes_its_size_from_timm(tmp_path, resnet):
    torch.save(resnet.state_dict(), tmp_path / "w.pt")
    assert load_foreign("timm:test_resnet", weights=tmp_path / "w.pt").side == 160


def test_timms_own_weights_come_from_the_hubs_cache(tmp_path, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        own = timm.create_model("test_vit", img_size=160).eval()
    asked = []

    def folder_of(identifier: str) -> Path:
        asked.append(identifier)
        if len(asked) == 1:
            raise UserError("no network: give a folder")
        return tmp_path

    monkeypatch.setattr("clarep.students.timm_student.checkpoint_folder", folder_of)
    assert "folder; in place of a folder timm:test_vit takes `weights=FILE`" in message(
        "timm:test_vit"
    )
    assert "holds no model.safetensors" in message("timm:test_vit")
    save_file(own.state_dict(), tmp_path / "model.safetensors")
    model = load_foreign("timm:test_vit")
    assert set(asked) == {timm.get_pretrained_cfg("test_vit").hf_hub_id}
    assert asked[0].startswith("timm/test_vit.")
    # the wnids of ImageNet, whose ends and number are known
    assert len(model.class_names) == 1000 and list(model.class_names) == sorted(model.class_names)
    wnids = [name.split(", ")[0] for name in model.class_names]
    assert (wnids[0], wnids[-1]) == ("n01440764", "n15075141")
    student = model.student(wnids, (3, 160, 160))
    x = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    normalise = torch.tensor(own.pretrained_cfg["mean"]), torch.tensor(own.pretrained_cfg["std"])
    with torch.no_grad():
        expected = own((x - normalise[0].view(3, 1, 1)) / normalise[1].view(3, 1, 1))
        torch.testing.assert_close(student(x), expected, rtol=1e-5, atol=1e-5)


def test_refused_weights_that_do_not_fit(tmp_path, resnet):
    path, state = tmp_path / "w.safetensors", resnet.state_dict()
    save_file(state | {"more": torch.zeros(1)}, path)
    said = message("timm:test_resnet", weights=path)
    assert "no timm:test_resnet that clarep knows: it has 1 tensors" in said and "more" in said
    save_file({k: v for k, v in state.items() if not k.startswith("layer1")}, path)
    said = message("timm:test_resnet", weights=path)
    assert "lacks layer1.0.conv1.weight" in said and "`image_size`" in said
    save_file(state | {"conv1.0.weight": torch.zeros(2, 2)}, path)
    said = message("timm:test_resnet", weights=path)
    assert "its conv1.0.weight is (2, 2), where " in said
    save_file({"conv1.0.weight": state["conv1.0.weight"]}, path)
    assert "it lacks its head (fc.weight)" in message("timm:test_resnet", weights=path)


def test_refused_another_number_of_classes(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "w.safetensors")
    model = load_foreign("timm:test_resnet", weights=tmp_path / "w.safetensors", image_size=32)
    with pytest.raises(UserError, match="tells 3 classes apart and the data hold 2"):
        model.student(("0", "1"), (3, 32, 32))


def test_refused_pickles_are_not_unpickled(tmp_path, resnet):
    torch.save(resnet, tmp_path / "whole.pt")
    said = message("timm:test_resnet", weights=tmp_path / "whole.pt")
    assert "which clarep does not unpickle" in said


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_refused_a_file_that_is_missing_empty_or_cut_off(tmp_path, resnet, name):
    path = tmp_path / name
    assert "there is no file" in message("timm:test_resnet", weights=path)
    path.write_bytes(b"")
    assert str(path) in message("timm:test_resnet", weights=path)
    (save_file if name == "w.safetensors" else torch.save)(resnet.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5000])
    said = message("timm:test_resnet", weights=path)
    assert "cannot read" in said and str(path) in said


def test_refused_a_file_of_other_things(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    said = message("timm:test_resnet", weights=tmp_path / "list.pt")
    assert "holds no state dict" in said


def test_refused_models_that_are_none(tmp_path, monkeypatch):
    assert "did you mean resnet10t" in message("timm:resnet10tt")
    assert "unknown timm model 'hf-hub:a/b'" in message("timm:hf-hub:a/b")
    assert "Invalid pretrained tag" in message("timm:test_vit.xyz")
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install '.[timm]'" in message("timm:test_vit")


# TorchScript


class Small(nn.Module):
    """Three logits of two layers, with normalisation inside."""

    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 3)
        self.sharpness = sharpness

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x * 2 - 1).relu().mean(dim=(2, 3))
        return self.last(hidden) * self.sharpness


def save_script(path: Path, net: nn.Module, traced_for: int = 0, freeze: bool = False) -> None:
    """Write a module, scripted or traced for some images, without torch's word on TorchScript."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        example = torch.zeros(max(traced_for, 1), *SHAPE)
        made = torch.jit.trace(net, example) if traced_for else torch.jit.script(net.eval())
        torch.jit.save(torch.jit.freeze(made) if freeze else made, path)


@pytest.fixture
def small():
    with torch.random.fork_rng(devices=[]):
        return Small().eval()


@pytest.mark.parametrize("how", [{}, {"traced_for": 1}, {"freeze": True}])
def test_torchscript_gives_its_own_logits(tmp_path, small, how):
    save_script(tmp_path / "m.pt", small, **how)
    model = load_foreign(f"torchscript:{tmp_path / 'm.pt'}")
    student = model.student(NAMES, SHAPE)
    x = as_student_sees(some_images()).requires_grad_(True)
    features, logits = student.both(x)
    torch.testing.assert_close(logits, small(x), rtol=1e-6, atol=1e-6)
    assert torch.equal(features, logits) and student.layer == "logits"
    assert student.info == StudentInfo(f"torchscript:{tmp_path / 'm.pt'}", NAMES, SHAPE)
    with under_test(student) as subject:
        (gradient,) = torch.autograd.grad(subject(x)[:, 0].sum(), x)
    (expected,) = torch.autograd.grad(small(x)[:, 0].sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    assert expected.abs().max() > 0


def test_torchscripts_of_other_code_are_other_students(tmp_path, small):
    save_script(tmp_path / "a.pt", small)
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")
    with torch.random.fork_rng(devices=[]):
        save_script(tmp_path / "sharper.pt", Small(2.0).eval())  # the same weights
    found = [
        fingerprint(load_foreign(f"torchscript:{tmp_path / name}").student(NAMES, SHAPE))
        for name in ("a.pt", "b.pt", "sharper.pt")
    ]
    assert found[0] == found[1] != found[2]


class Pair(Small):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.first(x * 2 - 1).relu().mean(dim=(2, 3))
        return self.last(hidden), hidden


class Named(Small):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.first(x * 2 - 1).relu().mean(dim=(2, 3))
        return {"hidden": hidden, "logits": self.last(hidden)}


class Unnamed(Small):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.last(self.first(x).mean(dim=(2, 3)))}


class Maps(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x)


class One(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).mean(dim=(2, 3)).reshape(1, 4))


@pytest.mark.parametrize("kind", [Pair, Named])
def test_logits_are_found_in_tuples_and_dictionaries(tmp_path, small, kind):
    with torch.random.fork_rng(devices=[]):
        save_script(tmp_path / "m.pt", kind())
    student = load_foreign(f"torchscript:{tmp_path / 'm.pt'}").student(NAMES, SHAPE)
    x = as_student_sees(some_images())
    torch.testing.assert_close(student(x), small(x), rtol=1e-6, atol=1e-6)


def test_torchscripts_that_are_refused(tmp_path, small):
    path = tmp_path / "m.pt"
    spec = f"torchscript:{path}"
    assert "there is no file" in message(spec)
    path.write_bytes(b"not a program")
    assert "cannot read TorchScript from" in message(spec)
    torch.save(small.state_dict(), path)
    assert "weights alone are for timm:NAME, with `weights=FILE`" in message(spec)
    save_script(path, small)
    path.write_bytes(path.read_bytes()[:-300])
    assert "cannot read TorchScript from" in message(spec)
    with torch.random.fork_rng(devices=[]):
        save_script(path, Unnamed())
        assert "answers with a dict of out" in message(spec)
        save_script(path, Maps())
        assert "an answer of shape (2, 4, 4, 4) for two images" in message(spec)
        save_script(path, One(), traced_for=1)
        assert "takes no images of 16x16 with 3 channels, or not two at once" in message(spec)
    save_script(path, small)
    with pytest.raises(UserError, match="takes no images of 16x16 with 1 channel"):
        load_foreign(spec).student(NAMES, (1, 16, 16))
    with pytest.raises(UserError, match="tells 3 classes apart and the data hold 4"):
        load_foreign(spec).student((*NAMES, "hat"), SHAPE)


def test_what_is_foreign():
    assert is_foreign("hf:a/b") and is_foreign("timm:x") and is_foreign("torchscript:x.pt")
    assert not any(map(is_foreign, ("runs/x", "hf", "dit:a/b", "C:/runs")))


def test_the_fingerprint_of_our_own_students_is_the_one_hash_of_their_weights():
    student = build_student(StudentInfo("resnet8", NAMES, SHAPE))
    assert fingerprint(student) == sha256_state(student)
