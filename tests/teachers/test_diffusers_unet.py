"""`diffusers:`: UNet2DModel against diffusers' own schedulers, hooks and finite differences."""

import json
import shutil
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.cli.main import main
from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.sampling.ode import integrate
from clarep.teachers.options import TeacherOptions
from clarep.teachers.zoo import load_teacher
from compiled_law import assert_compiled_as_eager

NAMES = ["cat", "dog", "owl"]
SIDE = 16
BETAS = {"num_train_timesteps": 100, "beta_start": 1e-3, "beta_end": 0.15}
SHAPE = {
    "sample_size": SIDE,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "num_class_embeds": len(NAMES) + 1,
}


@pytest.fixture(scope="module")
def diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import diffusers

        _ = diffusers.UNet2DModel, diffusers.DDPMPipeline, diffusers.DDIMScheduler
        _ = diffusers.DDIMInverseScheduler, diffusers.DDPMScheduler
    return diffusers


def random_unet(diffusers, **shape):
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**SHAPE | shape).eval()
    torch.set_rng_state(torch_state)
    return unet.requires_grad_(False)


def save_pipeline(diffusers, folder: Path, unet, schedule: dict, names=NAMES) -> Path:
    """Save unet and schedule as diffusers does, with names beside them."""
    scheduler = diffusers.DDPMScheduler(**BETAS | schedule)
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(folder)
    if names is not None:
        (folder / "class_names.json").write_text(json.dumps(names))
    return folder


@pytest.fixture(scope="module")
def saved(diffusers, tmp_path_factory) -> Path:
    """A pipeline whose last embedding is the null label."""
    folder = tmp_path_factory.mktemp("diffusers") / "pipeline"
    return save_pipeline(diffusers, folder, random_unet(diffusers), {})


@pytest.fixture
def teacher(saved):
    return load_teacher(f"diffusers:{saved}")


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def noisy(batch=2, sigma=1.5):
    generator = torch.Generator().manual_seed(1)
    x = (1 + sigma**2) ** 0.5 * torch.randn(batch, 3, SIDE, SIDE, generator=generator)
    return x, torch.full((batch,), sigma), torch.arange(batch) % len(NAMES)


def relative(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


SCHEDULES = [
    {"beta_schedule": "linear"},
    {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"},
    {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"},
    {"trained_betas": [0.01 + 0.001 * t for t in range(100)]},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_euler_is_ddim_on_the_untouched_unet(diffusers, schedule, tmp_path, ddim_sigmas):
    unet = random_unet(diffusers)
    save_pipeline(diffusers, tmp_path / "p", unet, schedule)
    teacher = load_teacher(f"diffusers:{tmp_path / 'p'}")
    ddim = diffusers.DDIMScheduler(**BETAS | schedule, clip_sample=False)
    ddim.set_timesteps(10)  # leading: 90, 80, ..., 0
    x, _, labels = noisy(3, sigma=0.0)
    sigmas = ddim_sigmas(ddim.alphas_cumprod, ddim.timesteps)
    start = x * torch.sqrt(1 + sigmas[0] ** 2).float()
    with torch.no_grad():
        ours = integrate(teacher.denoiser(labels), start, [*sigmas.tolist(), 0.0])
        theirs = x
        for t in ddim.timesteps:
            theirs = ddim.step(unet(theirs, t, labels).sample, t, theirs, eta=0.0).prev_sample
    assert relative(ours, theirs) < 1e-4
    assert relative(ours, x) > 0.1  # something was walked
    assert teacher.sigma_min == pytest.approx(float(sigmas[-1]), rel=1e-5)
    last = float(ddim.alphas_cumprod[ddim.alphas_cumprod > 1e-12][-1])
    assert teacher.sigma_max == pytest.approx((1 / last - 1) ** 0.5, rel=1e-3)


def test_rising_euler_is_inverse_ddim_on_the_untouched_unet(diffusers, saved, teacher, ddim_sigmas):
    unet = diffusers.UNet2DModel.from_pretrained(saved / "unet")
    inverse = diffusers.DDIMInverseScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False)
    inverse.set_timesteps(10)
    x, _, labels = noisy(3, sigma=0.0)
    sigmas = ddim_sigmas(inverse.alphas_cumprod, inverse.timesteps)
    first, last = (torch.sqrt(1 + sigma**2).float() for sigma in (sigmas[0], sigmas[-1]))
    times = inverse.timesteps.tolist()
    with torch.no_grad():
        ours = integrate(teacher.denoiser(labels), x * first, sigmas) / last
        theirs = x
        # Its step at timestep t goes from the level before t to t; its first stands still.
        for t, here in zip(times, [times[0], *times[:-1]], strict=True):
            output = unet(theirs, here, labels).sample
            theirs = inverse.step(output, t, theirs).prev_sample
    assert relative(ours, theirs) < 1e-4
    assert relative(ours, x) > 0.1


def test_time_between_whole_timesteps(diffusers, saved, teacher, ddim_sigmas):
    """At the noise level halfway, in its logarithm, the network is run at t + 1/2."""
    scheduler = diffusers.DDIMScheduler.from_pretrained(saved / "scheduler")
    low, high = ddim_sigmas(scheduler.alphas_cumprod, [40, 41]).tolist()
    x, _, labels = noisy()
    sigma = torch.full((2,), (low * high) ** 0.5)
    unet = diffusers.UNet2DModel.from_pretrained(saved / "unet")
    scaled = x / torch.sqrt(1 + sigma[0] ** 2)
    with torch.no_grad():
        eps = unet(scaled, torch.full((2,), 40.5), labels).sample
        at_forty = unet(scaled, torch.full((2,), 40.0), labels).sample
        ours = teacher.denoise(x, sigma, labels)
    assert torch.allclose(ours, x - sigma[0] * eps, atol=1e-4)
    assert not torch.allclose(ours, x - sigma[0] * at_forty, atol=1e-4)


def test_guidance_takes_the_last_embedding_for_no_class(teacher, saved, diffusers):
    assert teacher.class_names == tuple(NAMES) and teacher.null_label == len(NAMES)
    x, sigma, labels = noisy()
    with torch.no_grad():
        given, null = (
            teacher.denoise(x, sigma, teacher.condition(c)) for c in (labels, labels * 0 + 3)
        )
        guided = teacher.denoiser(labels, 3.0)(x, sigma)
    assert not torch.allclose(given, null, atol=1e-4)
    assert torch.allclose(guided, null + 3 * (given - null), atol=1e-4)


def test_features_are_what_a_hook_on_the_untouched_unet_sees(diffusers, saved, teacher):
    unet = diffusers.UNet2DModel.from_pretrained(saved / "unet")
    x, sigma, labels = noisy()
    scaled, time = teacher.parametrisation.network_input(x, sigma)
    taps = teacher.taps()
    assert list(taps) == [
        "down_blocks.0.resnets.0",
        "down_blocks.0",
        "down_blocks.1.resnets.0",
        "down_blocks.1.attentions.0",
        "down_blocks.1",
        "mid_block.resnets.0",
        "mid_block.attentions.0",
        "mid_block.resnets.1",
        "mid_block",
        "up_blocks.0.resnets.0",
        "up_blocks.0.attentions.0",
        "up_blocks.0.resnets.1",
        "up_blocks.0.attentions.1",
        "up_blocks.0",
        "up_blocks.1.resnets.0",
        "up_blocks.1.resnets.1",
        "up_blocks.1",
    ]
    assert teacher.default_tap == "mid_block"
    for tap, (channels, stride) in taps.items():
        seen, ran = [], []
        handle = unet.get_submodule(tap).register_forward_hook(
            lambda _m, _i, out, seen=seen: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        later = teacher.network.conv_norm_out.register_forward_hook(
            lambda *_, ran=ran: ran.append("later")
        )
        with torch.no_grad():
            unet(scaled, time, labels)
            ours = teacher.features(x, sigma, labels, tap)
        handle.remove()
        later.remove()
        assert torch.allclose(ours, seen[0], atol=1e-5)
        assert ours.shape == (2, channels, SIDE // stride, SIDE // stride)
        assert not ran  # the pass stopped


def test_compiled_products_are_the_eager_ones(teacher):
    assert_compiled_as_eager(teacher)


def test_jacobian_products_against_finite_differences(teacher):
    x, sigma, labels = noisy()
    teacher.taps()  # seen in float32
    teacher.network.double()
    x, sigma = x.double(), sigma.double()
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(2, x[0].numel(), 3, generator=generator, dtype=torch.float64)
    for tap in ("mid_block", "up_blocks.0", "down_blocks.1.attentions.0"):

        def features(y, tap=tap):
            return teacher.features(y, sigma, labels, tap)

        assert probe_engine(features, x)[0] == "forward"
        forward = Jacobian(features, x, "forward").matmat(directions)
        differences = Jacobian(features, x, "finite_difference").matmat(directions)
        assert relative(forward, differences) < 1e-6
        assert float(differences.abs().max()) > 1e-3


def test_clarid_end_to_end(teacher):
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    reps = Clarid(teacher, k=4, steps=2)(images, torch.tensor([0, 2]))
    assert reps.sample.shape == (2, *teacher.image_shape) == (2, 3, SIDE, SIDE)
    assert torch.isfinite(reps.sample).all() and reps.singular_values.shape == (2, 4)
    assert reps.tap == "mid_block" and not torch.equal(reps.latent, reps.x_te)


def test_identify_on_photographs(saved, photographs, tmp_path, capsys):
    options = f"--image-size {SIDE} --fraction 0.5 --steps 2 --k 4 --out {tmp_path / 'out'}"
    data = ["--data", str(photographs(NAMES))]
    assert main(["identify", "--teacher", f"diffusers:{saved}", *data, *options.split()]) == 0
    canonical = CanonicalSet.load(tmp_path / "out/canon")
    assert sorted(canonical.tensors["label"].tolist()) == [0, 1, 2]
    assert canonical.manifest["config"]["tap"] == "mid_block"
    assert canonical.manifest["config"]["teacher"] == f"diffusers:{saved}"
    assert "classes of the data" not in capsys.readouterr().err  # they are named alike


def test_doctor(saved, examined):
    answer = examined(f"diffusers:{saved}")
    assert answer["teacher"]["family"] == "diffusers"
    assert answer["taps"]["default"] == answer["differentiation"]["tap"] == "mid_block"
    assert answer["clarid"]["guidance"] == 3


def test_a_bare_model_with_its_schedule_in_it_or_beside(saved, teacher, tmp_path):
    x, sigma, labels = noisy()
    beside = load_teacher(f"diffusers:{saved / 'unet'}")
    bare = Path(shutil.copytree(saved / "unet", tmp_path / "bare"))
    shutil.copy(saved / "scheduler/scheduler_config.json", bare)
    inside = load_teacher(f"diffusers:{bare}")
    for other in (beside, inside):
        with torch.no_grad():
            ours = other.denoise(x, sigma, labels)
            assert torch.equal(ours, teacher.denoise(x, sigma, labels))
        assert other.fingerprint == teacher.fingerprint
    assert beside.class_names == tuple(NAMES)
    assert inside.num_classes == 4  # without names: see below


def test_without_names_every_embedding_is_a_class(copied):
    (copied / "class_names.json").unlink()
    teacher = load_teacher(f"diffusers:{copied}")
    assert teacher.class_names == ("0", "1", "2", "3")
    x, sigma, labels = noisy()
    with torch.no_grad():
        assert teacher.denoiser(labels + 2)(x, sigma).shape == x.shape
    with pytest.raises(
        UserError, match=r"no null class.*all its 4 label embeddings are taken.*`class_names`"
    ):
        teacher.denoiser(labels, 3.0)


def test_names_by_option_and_by_id2label(copied, tmp_path):
    (copied / "class_names.json").unlink()
    index = json.loads((copied / "model_index.json").read_text())
    index["id2label"] = {"1": "b", "0": "a", "2": "c"}
    (copied / "model_index.json").write_text(json.dumps(index))
    assert load_teacher(f"diffusers:{copied}").class_names == ("a", "b", "c")
    names = tmp_path / "names.txt"
    names.write_text("w\nx\ny\nz\n")
    four = load_teacher(f"diffusers:{copied}", TeacherOptions(class_names=names))
    assert four.class_names == ("w", "x", "y", "z")
    with pytest.raises(UserError, match="no null class"):
        four.condition(torch.tensor([4]))


def test_a_few_classes_by_number(copied, tmp_path):
    """Without names of the checkpoint's own, as many as there are rows, or one fewer, name all."""
    (copied / "class_names.json").unlink()
    names = tmp_path / "names.txt"
    names.write_text("3\n1\n")
    few = load_teacher(f"diffusers:{copied}", TeacherOptions(class_names=names))
    assert few.class_names == ("3", "1") and not few.has_null
    assert few.condition(torch.tensor([0, 1])).tolist() == [3, 1]
    whole = load_teacher(f"diffusers:{copied}")
    x, sigma, _ = noisy()
    ours, theirs = torch.tensor([0, 1]), torch.tensor([3, 1])
    with torch.no_grad():
        expected = whole.denoise(x, sigma, whole.condition(theirs))
        assert torch.equal(few.denoise(x, sigma, few.condition(ours)), expected)
    names.write_text("w\nx\ny\n")
    named = load_teacher(f"diffusers:{copied}", TeacherOptions(class_names=names))
    assert named.has_null and named.condition(torch.tensor([3, 0])).tolist() == [3, 0]


def test_labels_as_numbers(diffusers, tmp_path):
    unet = random_unet(diffusers, class_embed_type="timestep", num_class_embeds=None)
    folder = save_pipeline(diffusers, tmp_path / "p", unet, {})
    teacher = load_teacher(f"diffusers:{folder}")
    x, sigma, labels = noisy()
    scaled, time = teacher.parametrisation.network_input(x, sigma)
    with torch.no_grad():
        eps = unet(scaled, time, labels).sample
        assert torch.allclose(teacher.denoise(x, sigma, labels), x - 1.5 * eps, atol=1e-4)
    (folder / "class_names.json").unlink()
    with pytest.raises(UserError, match=r"class_embed_type timestep\) and does not say how many"):
        load_teacher(f"diffusers:{folder}")


def test_learned_variances_are_dropped(diffusers, tmp_path):
    unet = random_unet(diffusers, out_channels=6)
    folder = save_pipeline(diffusers, tmp_path / "p", unet, {"variance_type": "learned_range"})
    teacher = load_teacher(f"diffusers:{folder}")
    x, sigma, labels = noisy()
    scaled, time = teacher.parametrisation.network_input(x, sigma)
    with torch.no_grad():
        eps = unet(scaled, time, labels).sample[:, :3]
        assert torch.allclose(teacher.denoise(x, sigma, labels), x - 1.5 * eps, atol=1e-4)


def test_no_bottleneck(diffusers, tmp_path):
    unet = random_unet(diffusers, mid_block_type=None)
    teacher = load_teacher(f"diffusers:{save_pipeline(diffusers, tmp_path / 'p', unet, {})}")
    assert teacher.default_tap == "down_blocks.1"
    assert "mid_block" not in teacher.taps()


def test_other_schedulers_of_the_same_schedule(diffusers, copied, teacher):
    path = copied / "scheduler/scheduler_config.json"
    config = json.loads(path.read_text())
    scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    scheduler.save_pretrained(copied / "scheduler")
    assert json.loads(path.read_text())["_class_name"] == "EulerDiscreteScheduler"
    x, sigma, labels = noisy()
    with torch.no_grad():
        ours = load_teacher(f"diffusers:{copied}").denoise(x, sigma, labels)
        assert torch.equal(ours, teacher.denoise(x, sigma, labels))


def test_half_precision_weights(saved, copied, diffusers):
    unet = diffusers.UNet2DModel.from_pretrained(saved / "unet").half()
    unet.save_pretrained(copied / "unet")
    teacher = load_teacher(f"diffusers:{copied}")
    assert {p.dtype for p in teacher.network.parameters()} == {torch.float32}
    weight = teacher.network.conv_in.weight
    assert torch.equal(weight, weight.half().float())


def test_no_code_of_the_folder_runs(copied, tmp_path):
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').close()\n"
    for name in ("pipeline.py", "unet/unet_2d.py", "unet/diffusers.py", "scheduler/diffusers.py"):
        (copied / name).write_text(code)
    load_teacher(f"diffusers:{copied}")
    assert not mark.exists()


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_unet(**changes):
    return lambda folder: edit(folder / "unet/config.json", **changes)


def edit_scheduler(**changes):
    return lambda folder: edit(folder / "scheduler/scheduler_config.json", **changes)


def edit_index(**changes):
    return lambda folder: edit(folder / "model_index.json", **changes)


def truncate(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def drop_a_weight(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.bias"]
    save_file(weights, path, {"format": "pt"})


def only_a_pickle(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit_unet(_class_name="UNet2DConditionModel"), "holds a UNet2DConditionModel"),
        (edit_unet(num_class_embeds=None), "has 1 weights too many for class UNet2DModel .class_e"),
        (edit_unet(dual_attention=True), "has dual_attention True, which class UNet2DModel does"),
        (edit_unet(sample_size=None), "does not say how large its maps are"),
        (edit_unet(sample_size=[16]), "how large its maps are .sample_size is .16,?."),
        (
            edit_unet(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
            "has quantization_config {.*, which class UNet2DModel does not know",
        ),
        (edit_scheduler(timestep_type="continuous"), "has timestep_type continuous"),
        (edit_unet(num_class_embeds=9), "cannot load .*UNet2DModel"),
        (edit_unet(down_block_types=["DownBlock2D", "NoBlock"]), "cannot load .*UNet2DModel"),
        (
            edit_scheduler(_class_name="FlowMatchEulerDiscreteScheduler"),
            "FlowMatchEulerDiscreteScheduler: supp",
        ),
        (edit_scheduler(prediction_type="flow_prediction"), "unknown prediction type"),
        (edit_scheduler(beta_schedule="sine"), "cannot make a noise schedule"),
        (
            edit_index(_class_name="DiTPipeline", vae=["diffusers", "AutoencoderKL"]),
            r"holds a DiTPipeline of scheduler, unet, vae: .* give dit:",
        ),
        (edit_index(unet=[None, None]), "holds a DDPMPipeline of scheduler: diffusers: takes"),
        (truncate, "cannot load .*UNet2DModel"),
        (drop_a_weight, r"lacks 1 weights of .*UNet2DModel \(conv_in.bias"),
        (only_a_pickle, "only pickles, which clarep never opens"),
        (lambda f: (f / "class_names.json").write_text('["a", "b"]'), "2 class names are given"),
        (lambda f: (f / "class_names.json").write_text("{}"), "holds no list of names"),
        (lambda f: (f / "class_names.json").write_text("["), "cannot read .*class_names.json"),
        (lambda f: (f / "unet/config.json").unlink(), "there is no .*config.json"),
        (lambda f: (f / "scheduler/scheduler_config.json").unlink(), "there is no .*scheduler_con"),
        (lambda f: (f / "model_index.json").write_text("{"), "cannot read .*model_index.json"),
    ],
)
def test_checkpoints_that_are_refused(copied, change, words, capfd):
    change(copied)
    with pytest.raises(UserError, match=words) as caught:
        load_teacher(f"diffusers:{copied}")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"num_class_embeds": None}, "has no class embeddings"),
        (
            {"num_class_embeds": None, "class_embed_type": "identity"},
            "takes vectors for classes",
        ),
    ],
)
def test_conditions_that_are_refused(diffusers, tmp_path, shape, words):
    folder = save_pipeline(diffusers, tmp_path / "p", random_unet(diffusers, **shape), {})
    with pytest.raises(UserError, match=words):
        load_teacher(f"diffusers:{folder}")


def flatten(folder: Path) -> Path:
    """Lay all files of a pipeline into one folder, as google's DDPM repositories have them."""
    for path in [*(folder / "unet").iterdir(), *(folder / "scheduler").iterdir()]:
        path.rename(folder / path.name)
    (folder / "unet").rmdir()
    (folder / "scheduler").rmdir()
    return folder


def test_all_files_in_one_folder(diffusers, copied, teacher, tmp_path):
    flat = load_teacher(f"diffusers:{flatten(copied)}")
    assert flat.fingerprint == teacher.fingerprint
    assert flat.class_names == tuple(NAMES) and flat.has_null
    unet = random_unet(diffusers, num_class_embeds=None)
    folder = flatten(save_pipeline(diffusers, tmp_path / "p", unet, {}, names=None))
    with pytest.raises(UserError, match="has no class embeddings"):
        load_teacher(f"diffusers:{folder}")


def test_a_checkpoint_in_the_midst_of_training(saved, teacher, tmp_path):
    """Diffusers' training script leaves the schedule two folders above the averaged model."""
    bare = tmp_path / "run/checkpoint-500/unet_ema"
    shutil.copytree(saved / "unet", bare)
    with pytest.raises(UserError, match=r"no scheduler_config\.json in .*two folders above: copy"):
        load_teacher(f"diffusers:{bare}")
    shutil.copytree(saved / "scheduler", tmp_path / "run/scheduler")
    assert load_teacher(f"diffusers:{bare}").fingerprint == teacher.fingerprint


def test_weights_of_one_variant_alone(diffusers, saved, copied):
    weights = copied / "unet/diffusion_pytorch_model.safetensors"
    weights.unlink()
    unet = diffusers.UNet2DModel.from_pretrained(saved / "unet").half()
    unet.save_pretrained(copied / "unet", variant="fp16")
    half = copied / "unet/diffusion_pytorch_model.fp16.safetensors"
    teacher = load_teacher(f"diffusers:{copied}")
    assert torch.equal(teacher.network.conv_in.weight, unet.conv_in.weight.float())
    shutil.copy(half, half.with_name("diffusion_pytorch_model.bf16.safetensors"))
    with pytest.raises(UserError, match="no plain safetensors but variants, bf16, fp16: leave one"):
        load_teacher(f"diffusers:{copied}")
    shutil.copy(saved / "unet" / weights.name, weights)
    plain = load_teacher(f"diffusers:{copied}").network.conv_in.weight
    assert torch.equal(plain, load_file(weights)["conv_in.weight"])


def test_sharded_weights_of_a_variant(diffusers, saved, copied, teacher):
    (copied / "unet/diffusion_pytorch_model.safetensors").unlink()
    unet = diffusers.UNet2DModel.from_pretrained(saved / "unet")
    unet.save_pretrained(copied / "unet", variant="fp16", max_shard_size="50KB")
    assert len(list((copied / "unet").glob("*fp16-*.safetensors"))) > 1
    assert load_teacher(f"diffusers:{copied}").fingerprint == teacher.fingerprint


def test_time_embeddings_that_are_refused(diffusers, tmp_path):
    unet = random_unet(diffusers, time_embedding_type="fourier")
    folder = save_pipeline(diffusers, tmp_path / "p", unet, {})
    with pytest.raises(UserError, match="embeds time by 'fourier': supported is 'positional'"):
        load_teacher(f"diffusers:{folder}")


def test_no_such_folder_and_no_such_option(tmp_path, saved):
    with pytest.raises(UserError, match="there is no folder"):
        load_teacher(f"diffusers:{tmp_path / 'nowhere'}")
    with pytest.raises(UserError, match="`offload=True` means nothing to a diffusers: teacher"):
        load_teacher(f"diffusers:{saved}", TeacherOptions(offload=True))


def test_nothing_is_printed(saved, capfd):
    load_teacher(f"diffusers:{saved}")
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


@pytest.mark.parametrize("bars", [True, False])
def test_what_diffusers_says_is_silenced_meanwhile_and_no_longer(
    diffusers, saved, capfd, monkeypatch, bars
):
    from diffusers.utils import logging

    def loud(load, *given, **more):
        logging.get_logger("diffusers.models").error("an error that is none")
        warnings.warn("a warning", FutureWarning, stacklevel=1)
        list(logging.tqdm(range(3)))
        return load(*given, **more)

    for kind, name in (
        (diffusers.UNet2DModel, "from_pretrained"),
        (diffusers.DDIMScheduler, "from_config"),
    ):
        monkeypatch.setattr(kind, name, partial(loud, getattr(kind, name)))
    level = logging.get_verbosity()
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
    try:
        load_teacher(f"diffusers:{saved}")
        assert capfd.readouterr() == ("", "")
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bars)
    finally:
        logging.enable_progress_bar()
