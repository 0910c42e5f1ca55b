import json
import re
import shutil
import string
from pathlib import Path

import huggingface_hub
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.cli.main import main
from clarep.engine.hub import checkpoint_folder
from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.sampling.ode import integrate
from clarep.teachers.families import stable_diffusion
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions
from clarep.teachers.zoo import load_teacher
from compiled_law import assert_compiled_as_eager

NAMES = ("cat", "coffee", "owl")
PROMPTS = ["a photo of a cat", "a photo of a coffee", "a photo of a owl"]
TAPS = {
    "conv_in": (8, 1),
    "down_blocks.0.resnets.0": (8, 1),
    "down_blocks.0.attentions.0": (8, 1),
    "down_blocks.0": (8, 2),
    "down_blocks.1.resnets.0": (16, 2),
    "down_blocks.1": (16, 2),
    "mid_block.resnets.0": (16, 2),
    "mid_block.attentions.0": (16, 2),
    "mid_block.resnets.1": (16, 2),
    "mid_block": (16, 2),
    "up_blocks.0.resnets.0": (16, 2),
    "up_blocks.0.resnets.1": (16, 2),
    "up_blocks.0": (16, 1),
    "up_blocks.1.resnets.0": (8, 1),
    "up_blocks.1.attentions.0": (8, 1),
    "up_blocks.1.resnets.1": (8, 1),
    "up_blocks.1.attentions.1": (8, 1),
    "up_blocks.1": (8, 1),
}
"""In the order of the pass."""


def write_tokenizer(folder: Path) -> None:
    """Vocabulary and merges of CLIP's form, as Stable Diffusion's checkpoints have them."""
    merges = ["c a", "ca t</w>"]
    tokens = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    tokens += ["ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 24}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def tiny_unet(**config):
    settings = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**settings | config).eval()


def tiny_pipeline(
    tokenizer_folder: Path, prediction: str, **unet_config
) -> StableDiffusionPipeline:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
        )
        text = CLIPTextConfig(
            vocab_size=56,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
            bos_token_id=54,
            eos_token_id=55,
            pad_token_id=55,
        )
        made = StableDiffusionPipeline(
            vae=vae.eval(),
            text_encoder=CLIPTextModel(text).eval(),
            tokenizer=CLIPTokenizer.from_pretrained(tokenizer_folder),
            unet=tiny_unet(**unet_config),
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
                prediction_type=prediction,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> dict[str, StableDiffusionPipeline]:
    """One like 1.5, and one like 2.1: v-prediction, projections that are linear layers."""
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    write_tokenizer(folder)
    return {
        "1.5": tiny_pipeline(folder, "epsilon"),
        "2.1": tiny_pipeline(
            folder, "v_prediction", use_linear_projection=True, attention_head_dim=(2, 4)
        ),
    }


@pytest.fixture(scope="module")
def folders(pipelines, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sd")
    for name, pipeline in pipelines.items():
        pipeline.save_pretrained(root / name)
    return {name: root / name for name in pipelines}


@pytest.fixture(scope="module")
def names_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("\n".join(NAMES))
    return path


@pytest.fixture(scope="module")
def load(folders, names_file):
    """Load a folder, or the pipeline of a version, with the three class names."""

    def loaded(place: str | Path = "1.5", **options) -> ForeignTeacher:
        given = TeacherOptions(**{"class_names": names_file, **options})
        return load_teacher(f"sd:{folders.get(str(place), place)}", given)

    return loaded


@pytest.fixture(scope="module")
def teachers(load) -> dict[str, ForeignTeacher]:
    return {version: load(version) for version in ("1.5", "2.1")}


@pytest.fixture(params=["1.5", "2.1"])
def version(request) -> str:
    return request.param


@pytest.fixture
def copied(folders, tmp_path) -> Path:
    return Path(shutil.copytree(folders["1.5"], tmp_path / "copy"))


def noisy(pipeline, t=401, batch=2):
    """Random x at sigma, and as the network takes it: x_t and the timestep."""
    pipeline.scheduler.set_timesteps(10)
    x_t = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha_bar = pipeline.scheduler.alphas_cumprod[t]
    sigma = torch.sqrt(1 / alpha_bar - 1).expand(batch)
    return x_t / alpha_bar.sqrt(), sigma, x_t, t


@torch.no_grad()
def embedded(pipeline, prompts):
    return pipeline.encode_prompt(prompts, "cpu", 1, False)[0]


def test_what_is_known_of_it(teachers):
    teacher = teachers["1.5"]
    assert isinstance(teacher, ForeignTeacher)
    assert (teacher.latent_shape, teacher.image_shape) == ((4, 8, 8), (3, 16, 16))
    assert teacher.taps() == TAPS
    assert list(teacher.taps()) == list(TAPS)
    assert teacher.default_tap == "mid_block"
    assert (teacher.class_names, teacher.null_label) == (NAMES, 3)


def test_condition_is_the_pipelines_embedding_and_the_null_label_the_empty_prompt(
    pipelines, teachers, version
):
    got = teachers[version].condition(torch.tensor([2, 0, 1, 3]))
    want = embedded(pipelines[version], [PROMPTS[2], PROMPTS[0], PROMPTS[1], ""])
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    assert got.shape == (4, 24, 16)
    assert len({tuple(row.flatten().tolist()) for row in got}) == 4


def test_the_template_makes_the_prompts(pipelines, load, teachers):
    teacher = load(template="{name}, {name}!")
    want = embedded(pipelines["1.5"], ["cat, cat!"])
    torch.testing.assert_close(teacher.condition(torch.tensor([0])), want, rtol=0, atol=1e-6)
    assert teacher.fingerprint != teachers["1.5"].fingerprint


def test_vocabulary_and_merges_alone_are_a_tokenizer_too(copied, load, teachers):
    shutil.rmtree(copied / "tokenizer")
    write_tokenizer(copied / "tokenizer")
    teacher, labels = load(copied), torch.arange(4)
    assert torch.equal(teacher.condition(labels), teachers["1.5"].condition(labels))


def rename_weights(path: Path, *renames: tuple[str, str], **more: torch.Tensor) -> None:
    """Rename weights by regular expressions, in turn, and add some."""
    weights = load_file(path)
    renamed = {}
    for name, value in weights.items():
        new = name
        for old, replacement in renames:
            new = re.sub(old, replacement, new)
        renamed[new] = value
    assert set(renamed) != set(weights)
    save_file(renamed | more, path, {"format": "pt"})


def test_the_published_names_of_weights_load_to_the_same_model(copied, load, teachers):
    """Those of the older libraries that the checkpoints were made with."""
    ids = torch.arange(24)[None]
    rename_weights(
        copied / "text_encoder" / "model.safetensors",
        ("^", "text_model."),
        **{"text_model.embeddings.position_ids": ids},
    )
    rename_weights(
        copied / "vae" / "diffusion_pytorch_model.safetensors",
        (r"(mid_block\.attentions\.0\.)to_q", r"\1query"),
        (r"(mid_block\.attentions\.0\.)to_k", r"\1key"),
        (r"(mid_block\.attentions\.0\.)to_v", r"\1value"),
        (r"(mid_block\.attentions\.0\.)to_out\.0", r"\1proj_attn"),
    )
    assert load(copied).fingerprint == teachers["1.5"].fingerprint


@pytest.mark.parametrize("listed", [True, False])
def test_of_a_published_repository_only_what_is_loaded_is_downloaded(listed, monkeypatch, tmp_path):
    wanted = [
        "model_index.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    others = [
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "v1-5-pruned-emaonly.safetensors",
        "v1-5-pruned.safetensors",
    ]

    def list_repo_files(*_, **__):
        if listed:
            return [*wanted, *others]
        raise OSError("no network")

    asked = {}
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(huggingface_hub, "list_repo_files", list_repo_files)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda _, **given: asked.update(given) or tmp_path
    )
    assert checkpoint_folder("someone/stable-diffusion") == tmp_path
    assert asked.pop("revision") is None
    assert asked.pop("repo_type") == "model"
    assert list(filter_repo_objects([*wanted, *others], **asked)) == wanted


def test_prompts_are_embedded_once_when_loading(load, monkeypatch):
    texts, forward = [], CLIPTextModel.forward

    def counted(self, input_ids, **more):
        texts.append(len(input_ids))
        return forward(self, input_ids, **more)

    monkeypatch.setattr(CLIPTextModel, "forward", counted)
    teacher = load()
    assert texts == [4]  # three classes and the empty prompt
    x, sigma = torch.zeros(2, 4, 8, 8), torch.ones(2)
    teacher.denoiser(torch.tensor([0, 1]), 3.0)(x, sigma)
    teacher.condition(torch.tensor([2]))
    assert texts == [4]
    assert not any(isinstance(part, CLIPTextModel) for part in vars(teacher).values())


def test_offload_keeps_the_text_encoder_off_the_device(folders):
    """The device is one from which nothing can come back."""
    embed = stable_diffusion._embed
    kept, _ = embed(folders["1.5"], PROMPTS, TeacherOptions(device="meta", offload=True))
    plain, _ = embed(folders["1.5"], PROMPTS, TeacherOptions())
    assert torch.equal(kept, plain)
    with pytest.raises(NotImplementedError, match="meta tensor"):
        embed(folders["1.5"], PROMPTS, TeacherOptions(device="meta"))


@torch.no_grad()
def test_denoise_is_the_schedulers_estimate(pipelines, teachers, version):
    pipeline, teacher = pipelines[version], teachers[version]
    x, sigma, x_t, t = noisy(pipeline)
    output = pipeline.unet(x_t, t, embedded(pipeline, PROMPTS[:2])).sample
    want = pipeline.scheduler.step(output, t, x_t).pred_original_sample
    got = teacher.denoise(x, sigma, teacher.condition(torch.tensor([0, 1])))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_run_of_ddim_is_the_pipelines(pipelines, teachers, version, guidance, ddim_sigmas):
    pipeline, teacher = pipelines[version], teachers[version]
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    given = {"guidance_scale": guidance, "num_inference_steps": 4, "latents": latents}
    want = pipeline(PROMPTS[:2], output_type="latent", **given).images
    images = pipeline(PROMPTS[:2], output_type="pt", **given).images
    scheduler = pipeline.scheduler
    times = [*scheduler.timesteps.tolist(), 0]  # set_alpha_to_one is off: the last step is to 0
    sigmas = ddim_sigmas(scheduler.alphas_cumprod, times).tolist()
    x = latents * (1 + sigmas[0] ** 2) ** 0.5
    x = integrate(teacher.denoiser(torch.tensor([0, 1]), guidance), x, sigmas)
    x_t = x * scheduler.alphas_cumprod[0].sqrt()
    torch.testing.assert_close(x_t, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))
    # The pipeline decodes x_t as it is, without the last factor.
    decoded = (teacher.decode(x_t) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(decoded, images, rtol=0, atol=1e-3)
    assert float(images.std()) > 0.01


@torch.no_grad()
@pytest.mark.parametrize("tap", TAPS)
def test_features_are_what_a_hook_sees_and_the_pass_stops_there(pipelines, teachers, tap):
    pipeline, teacher = pipelines["1.5"], teachers["1.5"]
    teacher.taps()  # the first call runs the whole network
    x, sigma, x_t, t = noisy(pipeline)
    seen = []
    handle = pipeline.unet.get_submodule(tap).register_forward_hook(
        lambda _module, _inputs, output: seen.append(
            output if isinstance(output, torch.Tensor) else output[0]
        )
    )
    pipeline.unet(x_t, t, embedded(pipeline, PROMPTS[:2]))
    handle.remove()
    ran = []
    handles = [
        teacher.network.get_submodule(name).register_forward_hook(
            lambda *_, name=name: ran.append(name)
        )
        for name in [*TAPS, "conv_out"]
    ]
    features = teacher.features(x, sigma, teacher.condition(torch.tensor([0, 1])), tap)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(features, seen[0], rtol=1e-4, atol=1e-5)
    assert ran == list(TAPS)[: list(TAPS).index(tap) + 1]


@pytest.mark.parametrize("version", ["1.5", "2.1"])
def test_compiled_products_are_the_eager_ones(teachers, version):
    assert_compiled_as_eager(teachers[version])


@pytest.mark.parametrize("tap", ["mid_block", "up_blocks.1"])
def test_forward_ad_is_chosen_and_is_the_derivative(pipelines, load, version, tap):
    teacher = load(version)
    x, sigma, _, _ = noisy(pipelines[version])
    cond = teacher.condition(torch.tensor([0, 1]))

    def features(y):
        return teacher.features(y, sigma.to(y.dtype), cond.to(y.dtype), tap)

    engine, findings = probe_engine(features, x)
    assert engine == "forward", findings
    teacher.network.double()
    x = x.double()
    v = torch.randn(2, 256, 2, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    got = Jacobian(features, x).matmat(v)
    want = Jacobian(features, x, "finite_difference").matmat(v)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
    assert float(want.norm()) > 1


def test_bf16_is_for_denoising_and_leaves_features_exact(pipelines, load, teachers):
    exact, fast = teachers["1.5"], load(bf16=True)
    x, sigma, _, _ = noisy(pipelines["1.5"])
    cond = exact.condition(torch.tensor([0, 1]))
    assert torch.equal(fast.condition(torch.tensor([0, 1])), cond)
    rough, fine = fast.denoise(x, sigma, cond), exact.denoise(x, sigma, cond)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, fine)
    torch.testing.assert_close(rough, fine, rtol=0.05, atol=0.1)
    assert torch.equal(
        fast.features(x, sigma, cond, "mid_block"), exact.features(x, sigma, cond, "mid_block")
    )


def test_clarid_ends_in_images(teachers):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    reps = Clarid(teachers["2.1"], k=4, steps=2)(images, torch.tensor([0, 2]))
    assert reps.sample.shape == (2, 3, 16, 16)
    assert torch.isfinite(reps.sample).all()
    assert reps.latent.shape == (2, 4, 8, 8)
    assert reps.features.shape == (2, 16, 4, 4)


def test_identify_writes_a_canonical_set_of_photographs(
    folders, names_file, photographs, tmp_path, capsys
):
    data = photographs(("cat", "coffee"))
    command = f"identify --teacher sd:{folders['1.5']} --data {data} --image-size 16 --fraction 0.5"
    command += f" --k 4 --steps 2 --out {tmp_path / 'run'}"
    assert main([*command.split(), "--class-names", str(names_file)]) == 0
    assert "Loading weights" not in capsys.readouterr().err
    canonical = CanonicalSet.load(tmp_path / "run" / "canon")
    assert len(canonical) == 2
    assert canonical.tensors["sample"].shape == (2, 3, 16, 16)
    assert canonical.manifest["config"]["class_names"] == ["cat", "coffee"]  # of the data, of three


def test_doctor(folders, names_file, examined):
    answer = examined(f"sd:{folders['1.5']}", "--class-names", str(names_file))
    assert answer["teacher"]["family"] == "sd"
    assert answer["teacher"]["class_names"] == list(NAMES)
    assert answer["differentiation"]["tap"] == "mid_block"
    assert answer["clarid"]["guidance"] == 3


def test_a_unet_without_middle_is_tapped_at_its_last_down_block(copied, load):
    shutil.rmtree(copied / "unet")
    tiny_unet(mid_block_type=None).save_pretrained(copied / "unet")
    teacher = load(copied)
    assert teacher.default_tap == "down_blocks.1"
    assert not any(name.startswith("mid") for name in teacher.taps())


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def spoil_index(**values):
    return lambda folder: change_json(folder / "model_index.json", **values)


def spoil_unet(**config):
    def spoil(folder):
        shutil.rmtree(folder / "unet")
        tiny_unet(**config).save_pretrained(folder / "unet")

    return spoil


def spoil_scheduler(**values):
    return lambda folder: change_json(folder / "scheduler" / "scheduler_config.json", **values)


def pickle_only(folder):
    weights = folder / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def truncate(folder):
    weights = folder / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])


def small_vocabulary(folder):
    """A text encoder of fewer tokens than the tokenizer gives."""
    shutil.rmtree(folder / "text_encoder")
    text = CLIPTextConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=24,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_index(_class_name="StableDiffusionXLPipeline"), "takes StableDiffusionPipeline"),
        (
            spoil_index(text_encoder=["transformers", "T5EncoderModel"]),
            "the text_encoder of .* is of class T5EncoderModel: .* takes CLIPTextModel",
        ),
        (pickle_only, "only pickles, which clarep never opens"),
        (truncate, "cannot load class CLIPTextModel from "),
        (spoil_unet(in_channels=9), "takes 9 channels and gives 4: supported is .* no inpainting"),
        (spoil_unet(num_class_embeds=5), "has num_class_embeds 5: supported is Stable Diffusion"),
        (spoil_unet(time_cond_proj_dim=8), "has time_cond_proj_dim 8"),
        (spoil_unet(cross_attention_dim=8), "gives 16 channels and the U-Net takes 8"),
        (spoil_unet(sample_size=None), "does not say how large its maps are"),
        (spoil_unet(in_channels=3, out_channels=3), "latents have 4 channels .* takes 3"),
        (spoil_scheduler(_class_name="FlowMatchEulerDiscreteScheduler"), "of class FlowMatch"),
        (spoil_scheduler(prediction_type="flow_prediction"), "unknown prediction type"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "holds neither tokenizer.json nor"),
        (
            lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("{"),
            "cannot load a tokenizer from ",
        ),
        (small_vocabulary, "gives token 55 and the text encoder knows 40"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_sentence(copied, load, spoil, words):
    spoil(copied)
    with pytest.raises(UserError, match=words) as refused:
        load(copied)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "tpu"}, "device 'tpu'"),
        ({"class_names": None}, "none are given: give `class_names=FILE`"),
        ({"template": "a photo"}, "the template 'a photo' has no {name}"),
        (
            {"template": "a very long template of {name}"},
            "of coffee' has more than the 24 tokens",
        ),
        ({"guided_channels": "first3"}, "`guided_channels=first3` means nothing to a sd: teacher"),
    ],
)
def test_options_that_do_not_fit_are_refused(load, options, words):
    with pytest.raises(UserError, match=words):
        load(**options)
