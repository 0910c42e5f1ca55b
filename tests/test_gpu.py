"""What a GPU gives is what the CPU gives, but for rounding. Skipped where there is no GPU."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clarep.clarid.clarid import Clarid
from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.data.labelled import LabelledImages
from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.geometry.precision import differentiable
from clarep.robustness.suite.suite import robustness_suite
from clarep.robustness.suite.suite_config import QUICK_ATTACKS, SuiteConfig
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher_config import TrainConfig
from clarep.teachers.teacher_run import TeacherRun
from clarep.teachers.unet import UNetShape
from clarep.teachers.zoo import load_teacher

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CONFIG = TrainConfig(
    steps=60,
    batch_size=32,
    checkpoint_every=20,
    warmup_steps=5,
    unet=UNetShape(widths=(16, 32), embed_dim=32),
)
GPU = TeacherOptions(device="cuda")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10
    shade = 20 * labels[:, None, None, None]
    pixels = (rng.integers(0, 64, (60, 32, 32, 3)) + shade).clip(0, 255).astype(np.uint8)
    sources = [f"shades/{i}" for i in range(60)]
    return LabelledImages("shades", labels, CLASS_NAMES, sources, lambda i: pixels[i])


def losses(run):
    return [record["loss"] for record in run.records()]


def relative(got, want):
    return float((got.double().cpu() - want.double().cpu()).norm() / want.double().norm())


def test_training_is_that_of_the_cpu(data, tmp_path):
    on_cpu = losses(TeacherRun(data, data, CONFIG, tmp_path / "cpu"))
    on_gpu = losses(TeacherRun(data, data, CONFIG, tmp_path / "gpu", "cuda"))
    assert np.allclose(on_gpu, on_cpu, rtol=2e-2)


def test_training_goes_on_where_the_other_device_stopped(data, tmp_path):
    whole = losses(TeacherRun(data, data, CONFIG, tmp_path / "whole", "cuda"))
    for first, then in (("cpu", "cuda"), ("cuda", "cpu")):
        out = tmp_path / f"{first} first"
        next(TeacherRun(data, data, CONFIG, out, first).records())  # checkpoint of step 40
        resumed = TeacherRun(data, data, CONFIG, out, then)
        assert resumed.step == 40
        assert np.allclose(losses(resumed)[-1], whole[-1], rtol=5e-2)


@pytest.fixture(scope="module", params=["backdrops", "cifar10"])
def teachers(request):
    return load_teacher(request.param), load_teacher(request.param, GPU)


def test_clarid_is_that_of_the_cpu(teachers, data):
    images, labels = data.images([0, 1]), torch.tensor([0, 1])
    found = []
    for teacher in teachers:
        clarid = Clarid(teacher, t=0.85, k=16, steps=4, tolerance=0.001)
        x_te, quality = clarid.invert(images, labels)
        J = clarid.jacobian(x_te, labels)
        V = clarid.directions(x_te, labels).V
        found.append((x_te, quality, J, V, clarid(images, labels)))
    (x, psnr, J, V, reps), (x_gpu, psnr_gpu, _, V_gpu, reps_gpu) = found
    assert relative(x_gpu, x) < 1e-3 and torch.allclose(psnr_gpu.cpu(), psnr.cpu(), atol=0.5)
    captured, best = (J.matmat(v.cpu()).square().sum((1, 2)) for v in (V_gpu, V))
    assert torch.allclose(captured, best, rtol=5e-3)
    for one, other in zip(reps, reps_gpu, strict=True):
        assert relative(other.singular_values, one.singular_values) < 2e-3


def test_forward_mode_is_exact(teachers):
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()
    labels, sigma = torch.tensor([0, 1]).cuda(), torch.ones(2).cuda()
    engine, findings = probe_engine(lambda y: teachers[1].features(y, sigma, labels, "mid"), x)
    assert engine == "forward", findings
    assert float(findings["forward"].split()[-1]) < 1e-5


@pytest.mark.parametrize("channels", [8, 32, 40, 64, 72, 128])
@pytest.mark.parametrize("tokens", [32, 96, 256, 1024])
def test_flash_attention_is_plain_attention(channels, tokens):
    flash = pytest.importorskip("clarep.teachers.flash")
    pytest.importorskip("jvp_flash_attention")
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, tokens, channels, generator=generator).cuda() for _ in range(7)]
    qkv, tangents, cotangent = parts[:3], parts[3:6], parts[6]
    attend = F.scaled_dot_product_attention
    with differentiable():
        exact = [[part.double() for part in some] for some in (qkv, tangents)]
        want, want_tangent = torch.func.jvp(attend, *map(tuple, exact))
        want_cotangents = torch.func.vjp(attend, *exact[0])[1](cotangent.double())
        with flash.FlashAttention():
            got, got_tangent = torch.func.jvp(attend, tuple(qkv), tuple(tangents))
            leaves = [part.clone().requires_grad_() for part in qkv]
            got_cotangents = torch.autograd.grad(attend(*leaves), leaves, cotangent)
    assert relative(got, want) < 1e-5 and relative(got_tangent, want_tangent) < 1e-5
    for one, other in zip(got_cotangents, want_cotangents, strict=True):
        assert relative(one, other) < 1e-5


def test_flash_gives_a_transformers_jacobian(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("jvp_flash_attention")
    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=72,
        in_channels=4,
        num_layers=2,
        sample_size=32,
        num_embeds_ada_norm=10,
    )
    with torch.no_grad():  # layers that start at zero would hide those before them
        for parameter in transformer.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.05 * torch.randn(parameter.shape))
    vae = diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=4)
    diffusers.DiTPipeline(transformer, vae, diffusers.DDIMScheduler()).save_pretrained(tmp_path)
    plain, flashed = (
        load_teacher(f"dit:{tmp_path}", TeacherOptions(device="cuda", attention=attention))
        for attention in ("math", "flash")
    )
    tap = "transformer_blocks.1"
    x = torch.randn(2, *plain.latent_shape, device="cuda")
    sigma, cond = torch.ones(2, device="cuda"), plain.condition(torch.tensor([1, 2]).cuda())
    J, K = (Jacobian(lambda y, t=t: t.features(y, sigma, cond, tap), x) for t in (plain, flashed))
    V, U = (torch.randn(2, size, 3, device="cuda") for size in (J.n, J.m))
    assert relative(K.matmat(V), J.matmat(V)) < 1e-4
    assert relative(K.rmatmat(U), J.rmatmat(U)) < 1e-4
    assert K.adjoint_error() < 1e-5


def test_the_commands_take_a_device(tmp_path, capsys):
    made = tmp_path / "canon"
    main(
        f"identify --device cuda --fraction 0.002 --k 8 --steps 2 --control-images 0 --out {made} "
        "--json".split()
    )
    assert json.loads(capsys.readouterr().out)
    assert json.loads((made / "canon/manifest.json").read_text())
    main(
        "train-teacher --device cuda --data garments --train.steps 60 --train.batch-size 8 "
        f"--train.unet.widths 8 16 --sample-every 50 --out {tmp_path / 'teacher'}".split()
    )
    assert (tmp_path / "teacher/samples/step_000050.png").exists()
    capsys.readouterr()
    main(["doctor", "--teacher", "cifar10", "--device", "cuda", "--k", "16", "--json"])
    answer = json.loads(capsys.readouterr().out.strip())
    assert "gpu_memory_mb" in json.dumps(answer)


def test_an_evaluation_is_that_of_the_cpu(data, tmp_path):
    """All groups that these images have, AutoAttack too: figures as on the CPU, arrays on it."""
    attack = replace(QUICK_ATTACKS, eps_255=(2.0,), eps_l2=(0.25,), autoattack_eps_255=(2.0,))
    config = SuiteConfig(
        groups=("clean", "calibration", "attacks", "corruptions"),
        attack_images=20,
        corruption_images=20,
        severities=(3,),
        corruptions=("brightness",),
        attack=replace(attack, check_images=10),
    )
    student = build_student(StudentInfo("resnet8-half", CLASS_NAMES, (3, 32, 32)))
    found = {}
    for device in ("cpu", "cuda"):
        student, reference = student.to(device), copy.deepcopy(student).to(device)
        found[device] = robustness_suite(student, data, config, reference=reference)
    for one in found["cpu"].measurements:
        assert abs(found["cuda"][one.key].value - one.value) < 0.11, one.key
    assert all(array.device.type == "cpu" for array in found["cuda"].arrays.values())
    close = (found["cuda"].arrays[key] - found["cpu"].arrays[key] for key in ("probabilities",))
    assert all(difference.abs().max() < 1e-3 for difference in close)
