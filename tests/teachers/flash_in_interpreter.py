"""Flash attention against torch's plain attention: the kernels run by Triton's interpreter.

`test_flash.py` runs this file, in a process with TRITON_INTERPRET=1 from its start on.
"""

import os

import pytest
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DConditionModel, UNet2DModel
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from triton import knobs
from triton.runtime.errors import OutOfResources

from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.geometry.precision import differentiable
from clarep.teachers import flash
from clarep.teachers.classes_by_name import Classes
from clarep.teachers.families.diffusers_unet import unet_teacher
from clarep.teachers.families.dit import dit_teacher
from clarep.teachers.families.sit import SiT, SiTShape
from clarep.teachers.families.stable_diffusion import prompted_teacher
from clarep.teachers.families.vit_parts import Attention
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import DDPM, Flow

FLASH = TeacherOptions(attention="flash")
NAMES = ("cat", "dog")
CLASSES = Classes(NAMES, (0, 1))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(got, want):
    return float((got - want).norm() / want.norm())


@pytest.fixture
def calls(monkeypatch):
    """The shapes of the queries that went to the kernels."""
    seen, attend = [], flash.flash_attention

    def spy(q, *others):
        seen.append(tuple(q.shape))
        return attend(q, *others)

    monkeypatch.setattr(flash, "flash_attention", spy)
    return seen


def flashing(function):
    def run(*inputs, **options):
        with flash.FlashAttention():
            return function(*inputs, **options)

    return run


# One call, in each head size of the kernels and in those that are padded to one.


@pytest.mark.parametrize(
    "channels, scale", [(8, 0.7), (32, None), (40, None), (64, 0.2), (72, None), (128, None)]
)
def test_output_tangent_and_cotangents_are_those_of_plain_attention(channels, scale, calls):
    *qkv, cotangent = (randn(2, 1, 32, channels, seed=seed) for seed in range(4))
    tangents = [randn(2, 1, 32, channels, seed=seed) for seed in range(4, 7)]

    def attend(*inputs):
        return F.scaled_dot_product_attention(*inputs, scale=scale)

    with differentiable():
        exact = [[part.double() for part in parts] for parts in (qkv, tangents)]
        want, want_tangent = torch.func.jvp(attend, *map(tuple, exact))
        got, got_tangent = torch.func.jvp(flashing(attend), tuple(qkv), tuple(tangents))
        assert len(calls) == 1
        want_cotangents = torch.func.vjp(attend, *exact[0])[1](cotangent.double())
        leaves = [part.requires_grad_() for part in qkv]
        got_cotangents = torch.autograd.grad(flashing(attend)(*leaves), leaves, cotangent)
    assert relative(got, want) < 2e-6 and relative(got_tangent, want_tangent) < 2e-6
    for one, other in zip(got_cotangents, want_cotangents, strict=True):
        assert relative(one, other) < 2e-6


def test_queries_alone_may_be_differentiated():
    q, k, v, t = (randn(1, 2, 64, 16, seed=seed) for seed in range(4))
    attend = F.scaled_dot_product_attention
    with differentiable():
        want = torch.func.jvp(lambda q: attend(q, k, v), (q,), (t,))[1]
        got = torch.func.jvp(lambda q: flashing(attend)(q, k, v), (q,), (t,))[1]
        assert relative(got, want) < 1e-6
        q.requires_grad_()
        (want,) = torch.autograd.grad(attend(q, k, v), q, t)
        (got,) = torch.autograd.grad(flashing(attend)(q, k, v), q, t)
    assert relative(got, want) < 1e-6


def test_a_single_head_may_have_strides_of_its_own():
    """Those of sizes of 1 are arbitrary, and the package compares them."""
    k, v = (randn(1, 1, 32, 32, seed=seed).requires_grad_() for seed in range(2))
    turned = randn(1, 32, 1, 32, seed=3).transpose(1, 2)
    assert turned.is_contiguous() and turned.stride() != k.stride()
    attend = F.scaled_dot_product_attention
    with differentiable():
        want = torch.autograd.grad(attend(turned, k, v), (k, v), turned)
        got = torch.autograd.grad(flashing(attend)(turned, k, v), (k, v), turned)
    for one, other in zip(got, want, strict=True):
        assert relative(one, other) < 1e-6


def test_calls_that_the_kernels_cannot_do_go_to_torch(calls):
    q, k, v = (randn(1, 2, 32, 16, seed=seed) for seed in range(3))
    attend = flashing(F.scaled_dot_product_attention)
    long, wide = torch.cat([k, k], 2), randn(1, 2, 32, 160)
    for inputs, options in (
        ((q, k, v), {"attn_mask": torch.zeros(32, 32)}),
        ((q, k, v, torch.zeros(32, 32)), {}),
        ((q, k, v), {"is_causal": True}),
        ((q, long, long), {}),
        ((q[:, :, 1:], k[:, :, 1:], v[:, :, 1:]), {}),
        ((q[0], k[0], v[0]), {}),
        ((q.double(), k.double(), v.double()), {}),
        ((wide, wide, wide), {}),
    ):
        assert torch.equal(
            attend(*inputs, **options), F.scaled_dot_product_attention(*inputs, **options)
        )
    attend(q, k, v, dropout_p=0.5)
    assert calls == []
    attend(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False)  # as diffusers calls it
    assert calls == [(1, 2, 32, 16)]


def test_heads_that_a_gpu_has_no_room_for_go_to_torch(calls, monkeypatch):
    class Full:
        @staticmethod
        def apply(*_):
            raise OutOfResources(106_496, 101_376, "shared memory")

    flash._has_room.cache_clear()
    monkeypatch.setattr(flash, "_Tangent", Full)
    q = randn(1, 1, 32, 16)
    with flash.FlashAttention():
        F.scaled_dot_product_attention(q, q, q)
    flash._has_room.cache_clear()
    assert calls == []


def test_float32_keeps_its_bits_within_the_kernels_alone():
    before = knobs.language.fp32_default, os.environ.get("TRITON_F32_DEFAULT")
    with flash._kernels(torch.zeros(1)):
        assert knobs.language.fp32_default == os.environ["TRITON_F32_DEFAULT"] == "ieee"
    assert (knobs.language.fp32_default, os.environ.get("TRITON_F32_DEFAULT")) == before


# Under a Jacobian, whose directions go through `vmap`.


class Net(nn.Module):
    def __init__(self, width=16, depth=1):
        super().__init__()
        self.first = nn.Linear(5, width)
        self.blocks = nn.Sequential(*(Attention(width, 2, qkv_bias=True) for _ in range(depth)))
        self.requires_grad_(False)

    def forward(self, x):  # (B, tokens, 5)
        return self.blocks(self.first(x))


def test_jacobian_products_are_those_of_plain_attention(calls):
    torch.manual_seed(0)
    net, x = Net(width=144, depth=2), randn(2, 32, 5)
    ours, plain = Jacobian(flashing(net), x), Jacobian(net, x)
    V, U = randn(2, ours.n, 2), randn(2, ours.m, 2, seed=1)
    assert relative(ours.matmat(V), plain.matmat(V)) < 1e-5
    assert relative(ours.rmatmat(U), plain.rmatmat(U)) < 1e-5
    assert set(calls) == {(2, 2, 32, 72)}
    assert ours.adjoint_error() < 1e-6


def test_the_probe_finds_a_wrong_tangent(monkeypatch):
    net, x = Net(), randn(1, 32, 5)
    assert probe_engine(flashing(net), x)[0] == "forward"
    right = flash._Tangent.forward
    monkeypatch.setattr(flash._Tangent, "forward", lambda *inputs: 1.1 * right(*inputs))
    engine, findings = probe_engine(flashing(net), x)
    assert engine == "finite_difference" and float(findings["forward"].split()[-1]) > 1e-3
    assert "must implement either the backward" in findings["double_backward"]


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that an operation gave."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor) and one.is_floating_point():  # no bytes of Triton's
                self.numel = max(self.numel, one.numel())
        return result


def test_no_matrix_of_tokens_by_tokens_is_made():
    net, x = Net(), randn(1, 128, 5)
    largest = []
    for function in (net, flashing(net)):
        with Largest() as seen:
            jacobian = Jacobian(function, x)
            jacobian.matmat(randn(1, jacobian.n, 1))
            jacobian.rmatmat(randn(1, jacobian.m, 1))
        largest.append(seen.numel)
    assert largest == [2 * 128 * 128, 2 * 128 * 32]


# The families that take the option.


def tiny_vae():
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
    )


def schedule():
    return DDPM(torch.linspace(0.99, 0.01, 100, dtype=torch.float64))


def dit(options):
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        num_layers=1,
        sample_size=16,
        num_embeds_ada_norm=2,
    )
    return dit_teacher(transformer, tiny_vae(), schedule(), options, CLASSES)


def stable_diffusion(options):
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return prompted_teacher(
        unet, tiny_vae(), schedule(), options, class_names=NAMES, prompts=randn(3, 24, 16)
    )


def diffusers_unet(options):
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=3,
    )
    return unet_teacher(unet, schedule(), options, CLASSES)


def sit(options):
    shape = SiTShape(
        channels=3,
        grid=8,
        patch=2,
        width=16,
        depth=1,
        heads=2,
        label_rows=3,
        out_channels=6,
        hidden=64,
    )
    return ForeignTeacher(
        network := SiT(shape),
        Flow(1),
        options,
        latent_shape=(3, 16, 16),
        class_names=NAMES,
        tap_modules={"blocks.0": network.blocks[0]},
        default_tap="blocks.0",
        token_grid=(8, 8),
    )


@pytest.mark.parametrize(
    "make, tap, shape",
    [
        (dit, "transformer_blocks.0", (1, 2, 64, 8)),
        (stable_diffusion, "down_blocks.0.attentions.0", (1, 2, 64, 4)),
        (diffusers_unet, "down_blocks.1.attentions.0", (1, 4, 64, 4)),
        (sit, "blocks.0", (1, 2, 64, 8)),
    ],
)
def test_a_teacher_is_the_same_but_for_rounding(make, tap, shape, calls):
    teachers = []
    for options in (TeacherOptions(), FLASH):
        torch.manual_seed(0)
        teacher = make(options)
        with torch.no_grad():  # layers that start at zero would hide those before them
            for parameter in teacher.network.parameters():
                if parameter.ndim > 1 and not parameter.any():
                    parameter.copy_(0.3 * torch.randn(parameter.shape))
        teachers.append(teacher)
    plain, flashed = teachers
    assert flashed.fingerprint == plain.fingerprint
    x, sigma = randn(1, *plain.latent_shape), torch.ones(1)
    cond = plain.condition(torch.tensor([1]))
    J, K = (Jacobian(lambda y, t=t: t.features(y, sigma, cond, tap), x) for t in teachers)
    assert set(calls) == {shape}
    V, U = randn(1, J.n, 1), randn(1, J.m, 1)
    assert relative(K.matmat(V), J.matmat(V)) < 1e-5
    assert relative(K.rmatmat(U), J.rmatmat(U)) < 1e-5
    count = len(calls)
    assert torch.equal(flashed.denoise(x, sigma, cond), plain.denoise(x, sigma, cond))
    assert len(calls) == count  # features alone
    counted = flash.AttentionCall("flash", shape[3], shape[2], "self")
    assert flashed.attention_calls[counted] == count and not plain.attention_calls
    crossed = any(call.kind == "cross" for call in flashed.attention_calls)
    assert crossed == (make is stable_diffusion)
