"""Our own teacher as a folder of diffusers': loaded there without clarep, and back here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clarep.errors import UserError
from clarep.sampling.ode import integrate, karras_sigmas
from clarep.teachers.export_unet import export_diffusers
from clarep.teachers.options import TeacherOptions
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import UNetTeacher, load_unet, save_unet
from clarep.teachers.zoo import load_teacher

CONFIG = UNetConfig(
    image_size=16, num_classes=3, widths=(8, 16), embed_dim=16, encoder_blocks=2, sigma_data=0.4
)
NAMES = ("cat", "dog", "größer")

# Run where clarep cannot be imported; reads the inputs, writes what diffusers makes of them.
_WITHOUT_CLAREP = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "clarep":
            raise ImportError("clarep is not here")

sys.meta_path.insert(0, Blocked())
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

folder, given, out = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(
    folder, custom_pipeline=folder, trust_remote_code=True
)
pipeline.set_progress_bar_config(disable=True)
inputs = load_file(given)
x, sigma, labels = inputs["x"], inputs["sigma"], inputs["labels"]
network, unet, scheduler = pipeline.unet.network, pipeline.unet, pipeline.scheduler
with torch.no_grad():
    found = {"denoised": network(x, sigma, labels)}
    found |= {tap: network.features(x, sigma, labels, tap) for tap in network.taps()}
    scaled = scheduler.precondition_inputs(x, sigma[0])
    raw = unet(scaled, scheduler.precondition_noise(sigma), labels).sample
    found["preconditioned"] = scheduler.precondition_outputs(x, raw, sigma[0])
for guidance in (1.0, 3.0):
    found[f"images {guidance:g}"] = pipeline(
        inputs["labels"].tolist(), guidance, 6, latents=inputs["noise"], output_type="pt"
    ).images
pictures = pipeline(["dog"], num_inference_steps=1).images
again = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)  # as the index says
assert type(again).__name__ == "ClarepPipeline", type(again)
assert pictures[0].size == (16, 16) and pictures[0].mode == "RGB"
assert not [name for name in sys.modules if name.split(".")[0] == "clarep"]
assert {p.dtype for p in unet.parameters()} == {torch.float32}
save_file({name: value.contiguous() for name, value in found.items()}, out)
"""


def random_net(config=CONFIG):
    net = UNet(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> UNetTeacher:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_unet(random_net(), path, NAMES, 0.02, 60.0)
    return load_unet(path)


@pytest.fixture
def exported(teacher, tmp_path) -> Path:
    export_diffusers(teacher, tmp_path / "export", "tiny")
    return tmp_path / "export"


def noisy():
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(2, 3, 16, 16, generator=generator)
    return x, torch.full((2,), 1.7), torch.tensor([2, 0])


def relative(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_loads_and_draws_without_clarep(teacher, exported, tmp_path):
    x, sigma, labels = noisy()
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    inputs = {"x": x, "sigma": sigma, "labels": labels, "noise": noise}
    save_file(inputs, tmp_path / "in.safetensors")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            _WITHOUT_CLAREP,
            str(exported),
            str(tmp_path / "in.safetensors"),
            str(tmp_path / "out.safetensors"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr
    theirs = load_file(tmp_path / "out.safetensors")
    with torch.no_grad():
        ours = {"denoised": teacher.denoise(x, sigma, labels)}
        ours |= {tap: teacher.features(x, sigma, labels, tap) for tap in teacher.taps()}
        ours["preconditioned"] = ours["denoised"]
        # EDMEulerScheduler starts at the whole variance, of data and noise.
        start = noise * (60.0**2 + 1) ** 0.5
        levels = [*karras_sigmas(5, 0.02, 60.0).tolist(), 0.0]
        for guidance in (1.0, 3.0):
            drawn = integrate(teacher.denoiser(labels, guidance), start, levels)
            ours[f"images {guidance:g}"] = (drawn / 2 + 0.5).clamp(0, 1)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert relative(value, theirs[name]) < 1e-4, name
    assert not torch.allclose(theirs["images 1"], theirs["images 3"], atol=1e-2)
    assert float((theirs["images 3"] % 1 > 0).float().mean()) > 0.01  # not all clamped


def test_loads_back_the_same_without_running_its_code(teacher, exported, tmp_path):
    mark = tmp_path / "ran"
    for name in ("pipeline.py", "unet/clarep_unet.py"):
        (exported / name).write_text(f"open({str(mark)!r}, 'w').close()\n")
    x, sigma, labels = noisy()
    for place in (exported, exported / "unet"):
        back = load_teacher(f"diffusers:{place}")
        assert type(back) is UNetTeacher and back.net.config == CONFIG
        assert back.class_names == NAMES and back.null_label == 3
        assert (back.sigma_min, back.sigma_max) == (0.02, 60.0)
        assert torch.equal(back.denoise(x, sigma, labels), teacher.denoise(x, sigma, labels))
        for tap in teacher.taps():
            ours = back.features(x, sigma, labels, tap)
            assert torch.equal(ours, teacher.features(x, sigma, labels, tap))
    assert not mark.exists()


def test_weights_are_stored_in_half_precision_only_where_nothing_is_lost(teacher, tmp_path):
    whole = UNetTeacher(random_net(), NAMES, 0.02, 60.0)
    for name, given, kind in (("a", teacher, torch.float16), ("b", whole, torch.float32)):
        export_diffusers(given, tmp_path / name, name)
        weights = load_file(tmp_path / name / "unet/diffusion_pytorch_model.safetensors")
        assert {value.dtype for value in weights.values()} == {kind}
        back = load_teacher(f"diffusers:{tmp_path / name}")
        for key, value in given.net.state_dict().items():
            assert torch.equal(back.net.state_dict()[key], value)


def test_the_folder_says_what_it_is(exported, teacher):
    index = json.loads((exported / "model_index.json").read_text())
    assert index["id2label"] == {"0": "cat", "1": "dog", "2": "größer"}
    readme = (exported / "README.md").read_text()
    assert readme.startswith("---\nlicense: other\n")
    assert "say here under which licence" in readme
    assert teacher.fingerprint in readme and "2. größer" in readme
    assert "trust_remote_code=True" in readme
    assert "clarep." not in (exported / "unet/clarep_unet.py").read_text()
    path = exported / "unet/diffusion_pytorch_model.safetensors"
    with safe_open(path, framework="pt") as archive:
        assert archive.metadata()["format"] == "pt"
    assert not (exported / "card.json").exists()


def test_an_export_is_written_over_an_earlier_one_alone(exported, teacher, tmp_path):
    card = tmp_path / "some.json"
    card.write_text('{"quality": 1}\n')
    export_diffusers(teacher, exported, "again", "mit", card)
    assert "license: mit" in (exported / "README.md").read_text()
    assert json.loads((exported / "card.json").read_text()) == {"quality": 1}
    export_diffusers(teacher, exported, "again")
    assert not (exported / "card.json").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("")
    with pytest.raises(UserError, match="other holds other files: give `out` a new folder"):
        export_diffusers(teacher, tmp_path / "other", "tiny")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (truncate, "cannot read an exported teacher"),
        (lambda f: (f / "unet/diffusion_pytorch_model.safetensors").unlink(), "cannot read an exp"),
        (lambda f: (f / "scheduler/scheduler_config.json").unlink(), "there is no .*scheduler_c"),
        (lambda f: edit(f / "unet/config.json", widths=[8, 24]), "no export that this clarep can"),
        (lambda f: edit(f / "unet/config.json", num_classes=4), "no export that this clarep can"),
        (lambda f: edit(f / "unet/config.json", widths=None), "no export that this clarep can"),
        (lambda f: edit(f / "model_index.json", id2label={"0": "a"}), "1 class names for 3"),
        (lambda f: edit(f / "model_index.json", id2label={"1": "a"}), "does not name classes 0"),
        (lambda f: edit(f / "model_index.json", id2label=None), "does not name classes 0"),
        (
            lambda f: edit(f / "scheduler/scheduler_config.json", sigma_min="low"),
            "no export that this clarep can",
        ),
    ],
)
def test_damaged_exports(exported, change, words):
    change(exported)
    with pytest.raises(UserError, match=words) as caught:
        load_teacher(f"diffusers:{exported}")
    assert "\n" not in str(caught.value)


def test_options_of_an_export(exported):
    with pytest.raises(UserError, match=r"`bf16=True` means nothing to a U-Net of clarep's own"):
        load_teacher(f"diffusers:{exported}", TeacherOptions(bf16=True))
    with pytest.raises(UserError, match="unknown device"):
        load_teacher(f"diffusers:{exported}", TeacherOptions(device="gpu"))
