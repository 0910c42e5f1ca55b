import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from clarep.errors import UserError
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import DDPM


def tiny_vae(seed=0, **config):
    settings = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "scaling_factor": 0.5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderKL(**settings | config).eval()


class OfOneLayer(ForeignTeacher):
    def __init__(self, vae, options):
        net = nn.Conv2d(4, 4, 1)
        nn.init.zeros_(net.weight)
        nn.init.zeros_(net.bias)
        super().__init__(
            net,
            DDPM(torch.linspace(0.99, 0.01, 10)),
            options,
            latent_shape=(4, 8, 8),
            class_names=("a",),
            default_tap="net",
            tap_modules={"net": net},
            vae=vae,
        )

    def run(self, x, time, cond):
        return self.network(x)


def teacher_of(vae=None, **options):
    return OfOneLayer(vae or tiny_vae(), TeacherOptions(**options))


def images(batch=3):
    return 2 * torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 1


@torch.no_grad()
def test_latents_are_the_posteriors_scaled_mode_and_decode_undoes_the_scaling():
    teacher, vae = teacher_of(), tiny_vae()
    assert teacher.image_shape == (3, 16, 16)
    latents = teacher.encode(images())
    mode = vae.encode(images()).latent_dist.mode()
    torch.testing.assert_close(latents, 0.5 * mode, rtol=0, atol=1e-6)
    assert latents.shape == (3, *teacher.latent_shape)
    torch.testing.assert_close(teacher.decode(latents), vae.decode(mode).sample, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_shift_of_the_latents_is_taken_off_and_put_back():
    vae = tiny_vae(shift_factor=0.25)
    teacher = teacher_of(vae)
    mode = vae.encode(images()).latent_dist.mode()
    latents = teacher.encode(images())
    torch.testing.assert_close(latents, 0.5 * (mode - 0.25), rtol=0, atol=1e-6)
    torch.testing.assert_close(teacher.decode(latents), vae.decode(mode).sample, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("slicing", "batches"), [(False, [3]), (True, [1, 1, 1])])
def test_slicing_brings_one_image_at_a_time_to_the_vae(slicing, batches):
    teacher = teacher_of(vae_slicing=slicing)
    seen = {"encoder": [], "decoder": []}
    for name, sizes in seen.items():
        getattr(teacher.vae, name).register_forward_pre_hook(
            lambda _module, inputs, sizes=sizes: sizes.append(len(inputs[0]))
        )
    decoded = teacher.decode(teacher.encode(images()))
    assert seen == {"encoder": batches, "decoder": batches}
    torch.testing.assert_close(decoded, teacher_of().decode(teacher_of().encode(images())))


@torch.no_grad()
@pytest.mark.parametrize("offload", [False, True])
def test_an_offloaded_vae_is_on_the_device_only_while_it_works(offload, monkeypatch):
    vae, events = tiny_vae(), []
    move = vae.to

    def moved(place):
        events.append(str(place))
        return move(place)

    monkeypatch.setattr(vae, "to", moved)
    teacher = teacher_of(vae, device="cpu:0", offload=offload)  # cpu:0, to tell it from cpu
    assert events == ([] if offload else ["cpu:0"])
    for name in ("encoder", "decoder"):
        getattr(vae, name).register_forward_hook(lambda *_, name=name: events.append(name))
    for work, name in ((teacher.encode, "encoder"), (teacher.decode, "decoder")):
        events.clear()
        work(images() if name == "encoder" else torch.zeros(1, 4, 8, 8))
        assert events == ["cpu:0", name, *(["cpu"] if offload else [])]


@torch.no_grad()
def test_bf16_is_used_for_the_vae_and_the_result_is_float32():
    exact, fast = teacher_of(), teacher_of(bf16=True)
    latents, rough = exact.encode(images()), fast.encode(images())
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, latents)
    torch.testing.assert_close(rough, latents, rtol=0.05, atol=0.05)
    assert fast.decode(latents).dtype == torch.float32
    assert not torch.equal(fast.decode(latents), exact.decode(latents))


def test_the_fingerprint_changes_with_the_vae_and_not_with_where_it_is():
    same = {teacher_of(**options).fingerprint for options in ({}, {"offload": True})}
    assert len(same) == 1
    assert teacher_of(tiny_vae(seed=1)).fingerprint not in same


def test_a_vae_of_other_latents_is_refused():
    with pytest.raises(UserError, match="latents have 3 channels and the network takes 4"):
        teacher_of(tiny_vae(latent_channels=3))
