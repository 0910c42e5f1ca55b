import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.cli.main import main
from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.sampling.ode import integrate
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions
from clarep.teachers.zoo import load_teacher
from compiled_law import assert_compiled_as_eager

TAPS = ["pos_embed", "transformer_blocks.0", "transformer_blocks.1", "transformer_blocks.2"]
ID2LABEL = {str(i): f"thing {i}, item {i}" for i in range(1000)}


@pytest.fixture(scope="module")
def pipeline():
    """A random DiT of 1,000 classes (the pipeline's null label is 1000), 8x8 latents."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=3,
            sample_size=8,
            num_embeds_ada_norm=1000,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
        )
    made = DiTPipeline(transformer.eval(), vae.eval(), DDIMScheduler(clip_sample=False))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory) -> Path:
    """What `save_pretrained` writes, with names of the classes as the authors' index has them."""
    path = tmp_path_factory.mktemp("dit") / "tiny"
    pipeline.save_pretrained(path)
    change_json(path / "model_index.json", id2label=ID2LABEL)
    return path


@pytest.fixture(scope="module")
def teacher(folder) -> ForeignTeacher:
    return load_teacher(f"dit:{folder}")


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def named(folder, tmp_path):
    """Load the checkpoint with names of the classes."""

    def load(*names: str, place: Path = folder) -> ForeignTeacher:
        path = tmp_path / "names.txt"
        path.write_text("\n".join(names))
        return load_teacher(f"dit:{place}", TeacherOptions(class_names=path))

    return load


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def noisy(pipeline, t=400, batch=2):
    """Random x at sigma, and as the network takes it: x_t and timesteps."""
    generator = torch.Generator().manual_seed(0)
    pipeline.scheduler.set_timesteps(10)
    x_t = torch.randn(batch, 4, 8, 8, generator=generator)
    alpha_bar = pipeline.scheduler.alphas_cumprod[t]
    sigma = torch.sqrt(1 / alpha_bar - 1).expand(batch)
    return x_t / alpha_bar.sqrt(), sigma, x_t, torch.full((batch,), t)


def test_what_is_known_of_it(teacher):
    assert isinstance(teacher, ForeignTeacher)
    assert (teacher.latent_shape, teacher.image_shape) == ((4, 8, 8), (3, 16, 16))
    assert teacher.taps() == {name: (16, 2) for name in TAPS}
    assert teacher.default_tap == "transformer_blocks.1"
    assert teacher.num_classes == teacher.null_label == 1000
    assert teacher.class_names[:2] == ("thing 0", "thing 1")


@torch.no_grad()
def test_denoise_is_the_schedulers_estimate_and_drops_the_learned_variance(pipeline, teacher):
    x, sigma, x_t, t = noisy(pipeline)
    labels = torch.tensor([3, 1000])
    output = pipeline.transformer(x_t, t, labels).sample
    assert output.shape[1] == 8
    want = pipeline.scheduler.step(output[:, :4], 400, x_t).pred_original_sample
    got = teacher.denoise(x, sigma, teacher.condition(labels))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_run_of_ddim_is_the_pipelines(pipeline, teacher, guidance, monkeypatch, ddim_sigmas):
    seen, decode = [], pipeline.vae.decode
    monkeypatch.setattr(pipeline.vae, "decode", lambda z: seen.append(z) or decode(z))
    want = pipeline(
        [207, 360],
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(5),
        num_inference_steps=5,
        output_type="pt",
    ).images
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    scheduler = pipeline.scheduler
    sigmas = [*ddim_sigmas(scheduler.alphas_cumprod, scheduler.timesteps).tolist(), 0.0]
    x = latents * (1 + sigmas[0] ** 2) ** 0.5
    x = integrate(teacher.denoiser(torch.tensor([207, 360]), guidance), x, sigmas)
    scale = pipeline.vae.config.scaling_factor
    torch.testing.assert_close(x, scale * seen[0], rtol=1e-3, atol=1e-4 * float(x.abs().max()))
    images = (teacher.decode(x) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(images, want, rtol=0, atol=1e-3)
    assert float(want.std()) > 0.01


@torch.no_grad()
def test_first3_guides_three_channels_and_leaves_the_fourth_as_given_the_class(
    pipeline, teacher, folder
):
    """The authors' forward_with_cfg, written out."""
    original = load_teacher(f"dit:{folder}", TeacherOptions(guided_channels="first3"))
    x, sigma, x_t, t = noisy(pipeline)
    labels = torch.tensor([3, 7])
    given = pipeline.transformer(x_t, t, labels).sample
    null = pipeline.transformer(x_t, t, torch.full_like(labels, 1000)).sample
    eps = torch.cat([null[:, :3] + 4 * (given[:, :3] - null[:, :3]), given[:, 3:4]], dim=1)
    want = pipeline.scheduler.step(eps, 400, x_t).pred_original_sample
    got = original.denoiser(labels, 4.0)(x, sigma)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    everywhere = teacher.denoiser(labels, 4.0)(x, sigma)
    torch.testing.assert_close(got[:, :3], everywhere[:, :3])
    assert not torch.allclose(got[:, 3], everywhere[:, 3], atol=1e-2)
    torch.testing.assert_close(
        original.denoiser(labels)(x, sigma), teacher.denoiser(labels)(x, sigma), rtol=0, atol=0
    )
    assert original.fingerprint != teacher.fingerprint


@torch.no_grad()
@pytest.mark.parametrize("tap", TAPS)
def test_features_are_what_a_hook_sees_and_the_pass_stops_there(pipeline, teacher, tap):
    teacher.taps()  # the first call runs the whole network
    x, sigma, x_t, t = noisy(pipeline)
    labels, seen = torch.tensor([3, 7]), []
    handle = pipeline.transformer.get_submodule(tap).register_forward_hook(
        lambda _module, _inputs, output: seen.append(output)
    )
    pipeline.transformer(x_t, t, labels)
    handle.remove()
    ran = []
    handles = [
        teacher.network.get_submodule(name).register_forward_hook(
            lambda *_, name=name: ran.append(name)
        )
        for name in [*TAPS, "proj_out_2"]
    ]
    features = teacher.features(x, sigma, teacher.condition(labels), tap)
    for handle in handles:
        handle.remove()
    grid = seen[0].reshape(2, 4, 4, 16).permute(0, 3, 1, 2)  # tokens go row by row
    torch.testing.assert_close(features, grid, rtol=1e-4, atol=1e-5)
    assert ran == TAPS[: TAPS.index(tap) + 1]


def test_compiled_products_are_the_eager_ones(teacher):
    assert_compiled_as_eager(teacher)


def test_forward_ad_is_chosen_and_is_the_derivative(folder, pipeline):
    teacher = load_teacher(f"dit:{folder}")
    x, sigma, _, _ = noisy(pipeline)
    cond = teacher.condition(torch.tensor([3, 7]))

    def features(y):
        return teacher.features(y, sigma.to(y.dtype), cond, "transformer_blocks.1")

    engine, findings = probe_engine(features, x)
    assert engine == "forward", findings
    teacher.network.double()
    x = x.double()
    v = torch.randn(2, 256, 3, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    got = Jacobian(features, x).matmat(v)
    want = Jacobian(features, x, "finite_difference").matmat(v)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
    assert float(want.norm()) > 1


def test_bf16_is_for_denoising_and_leaves_features_exact(folder, pipeline, teacher):
    fast = load_teacher(f"dit:{folder}", TeacherOptions(bf16=True))
    x, sigma, _, _ = noisy(pipeline)
    cond = teacher.condition(torch.tensor([3, 7]))
    rough, exact = fast.denoise(x, sigma, cond), teacher.denoise(x, sigma, cond)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.2)
    tap = teacher.default_tap
    assert torch.equal(fast.features(x, sigma, cond, tap), teacher.features(x, sigma, cond, tap))


def test_clarid_ends_in_images(teacher):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    reps = Clarid(teacher, k=4, steps=2)(images, torch.tensor([3, 7]))
    assert reps.sample.shape == (2, 3, 16, 16)
    assert torch.isfinite(reps.sample).all()
    assert reps.latent.shape == (2, 4, 8, 8)
    assert reps.features.shape == (2, 16, 4, 4)


def test_identify_writes_a_canonical_set_of_photographs(folder, photographs, tmp_path):
    data = photographs(("chelsea", "coffee"))
    command = f"identify --teacher dit:{folder} --data {data} --image-size 16 --fraction 0.5"
    assert main([*command.split(), *f"--k 4 --steps 2 --out {tmp_path / 'run'}".split()]) == 0
    canonical = CanonicalSet.load(tmp_path / "run" / "canon")
    assert len(canonical) == 2
    assert canonical.tensors["sample"].shape == (2, 3, 16, 16)
    assert canonical.manifest["config"]["tap"] == "transformer_blocks.1"


def test_doctor(folder, examined):
    answer = examined(f"dit:{folder}")
    assert answer["teacher"]["family"] == "dit"
    assert list(answer["teacher"]["parameters"]) == ["network", "vae"]
    assert answer["differentiation"]["features"] == [16, 4, 4]
    assert answer["clarid"]["guidance"] == 3


def test_classes_are_chosen_by_name_or_number(named, teacher):
    chosen = named("thing 7", "item 3", "12")
    assert chosen.class_names == ("thing 7", "item 3", "12")
    labels = torch.tensor([0, 1, 2, chosen.null_label])
    assert chosen.condition(labels).tolist() == [7, 3, 12, 1000]
    assert chosen.fingerprint != teacher.fingerprint


def test_a_name_of_several_classes_is_refused(copied, named):
    """ImageNet's crane is a bird, 134, and a machine, 517."""
    cranes = {"134": "crane", "517": "crane, lifting machine"}
    change_json(copied / "model_index.json", id2label=ID2LABEL | cranes)
    with pytest.raises(UserError, match=r"'crane' is the name of 2 classes .*, 134, 517: give the"):
        named("thing 7", "crane", place=copied)
    chosen = named("134", "lifting machine", place=copied)
    assert chosen.condition(torch.tensor([0, 1])).tolist() == [134, 517]
    in_order = [ID2LABEL[str(i)].split(",")[0] for i in range(1000)]
    in_order[134] = in_order[517] = "crane"
    assert named(*in_order, place=copied).class_names[517] == "crane"


def test_a_class_is_given_once(copied, named):
    def refused(words, *names):
        with pytest.raises(UserError, match=words) as error:
            named(*names, place=copied)
        assert "\n" not in str(error.value)

    refused("'thing 7' and '7' are both class 7 .*: give each class once", "thing 7", "3", "7")
    refused("'7' and '7' are both class 7", "7", "7", "7")


def test_as_many_names_as_classes_go_in_their_order(named):
    renamed = named(*(f"thing {i}" if i == 5 else f"my {i}" for i in range(1000)))
    assert renamed.class_names[4:6] == ("my 4", "thing 5")
    assert renamed.condition(torch.tensor([4, 999, 1000])).tolist() == [4, 999, 1000]


def test_without_names_classes_are_called_by_their_numbers(copied, named):
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {"id2label": None}))
    assert load_teacher(f"dit:{copied}").class_names[998:] == ("998", "999")
    assert named("12", "7", place=copied).condition(torch.tensor([0, 1])).tolist() == [12, 7]


def test_the_authors_older_index_loads_to_the_same_model(copied, teacher):
    """There the transformer is a Transformer2DModel, with settings that DiT's class lacks."""
    change_json(copied / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    change_json(
        copied / "transformer" / "config.json",
        _class_name="Transformer2DModel",
        cross_attention_dim=None,
        num_vector_embeds=None,
    )
    assert load_teacher(f"dit:{copied}").fingerprint == teacher.fingerprint


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["thing 7", "thing seven"], "no class 'thing seven': did you mean thing"),
        (["1000"], "no class '1000'"),
        ([str(i) for i in range(1001)], "1001 class names are given and the checkpoint has 1000"),
        (
            [f"thing {999 - i}" for i in range(1000)],
            "class name 0 is 'thing 999', which is class 999",
        ),
    ],
)
def test_names_that_fit_no_class_are_refused(named, names, words):
    with pytest.raises(UserError, match=words):
        named(*names)


def test_settings_that_are_not_a_dits_are_refused(copied):
    path = copied / "transformer" / "config.json"
    whole = json.loads(path.read_text())
    for name, value in (("cross_attention_dim", 768), ("num_registers", 4)):
        path.write_text(json.dumps(whole | {name: value}))
        with pytest.raises(UserError, match=f"has {name} {value}, which class DiTTransformer2DMod"):
            load_teacher(f"dit:{copied}")
    path.write_text(json.dumps(whole | {"_note": 1}))
    load_teacher(f"dit:{copied}")


def spoil_index(**values):
    return lambda folder: change_json(folder / "model_index.json", **values)


def spoil_config(part, **values):
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    return lambda folder: change_json(folder / part / name, **values)


def pickle_only(folder):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def truncate(folder):
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), "there is no .*model_index.json"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "cannot read .*model_index"),
        (
            spoil_index(_class_name="PixArtAlphaPipeline"),
            "class PixArtAlphaPipeline: .* takes DiTPipeline",
        ),
        (
            spoil_index(vae=["diffusers", "AutoencoderTiny"]),
            "vae of .* is of class AutoencoderTiny",
        ),
        (spoil_index(id2label={"0": "tench"}), "does not name classes 0 to 999"),
        (pickle_only, "only pickles, which clarep never opens"),
        (truncate, "cannot load class AutoencoderKL from "),
        (lambda folder: shutil.rmtree(folder / "transformer"), "safetensors are wanted in "),
        (
            spoil_config("transformer", num_layers=4),
            "lacks .* weights of class DiT",
        ),
        (
            spoil_config("transformer", num_layers=2),
            r"has \d+ weights too many for class DiTTransformer2DModel \(transformer_blocks\.2",
        ),
        (spoil_config("transformer", in_channels=6), "cannot load class DiTTransformer2DModel"),
        (
            spoil_config("scheduler", _class_name="EDMEulerScheduler"),
            "is of class EDMEulerScheduler",
        ),
        (spoil_config("scheduler", prediction_type="flow"), "unknown prediction type 'flow'"),
        (spoil_config("scheduler", beta_schedule="odd"), "cannot make a noise schedule of "),
    ],
)
def test_what_is_not_supported_is_refused_in_one_sentence(copied, spoil, words):
    spoil(copied)
    with pytest.raises(UserError, match=words) as refused:
        load_teacher(f"dit:{copied}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"template": "{name}"}, "`template={name}` means nothing to a dit: teacher"),
        ({"device": "tpu"}, "device 'tpu'"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, options, words):
    with pytest.raises(UserError, match=words):
        load_teacher(f"dit:{folder}", TeacherOptions(**options))


def test_a_transformer_of_odd_output_is_refused(copied):
    with torch.random.fork_rng():
        odd = DiTTransformer2DModel(2, 8, 4, 6, num_layers=1, sample_size=8)
    shutil.rmtree(copied / "transformer")
    odd.save_pretrained(copied / "transformer")
    with pytest.raises(UserError, match="takes 4 channels and gives 6"):
        load_teacher(f"dit:{copied}")
