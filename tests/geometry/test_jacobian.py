"""Jacobian products against a dense float64 Jacobian, and what the adjoint test catches."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clarep.errors import UserError
from clarep.geometry.jacobian import ENGINES, Jacobian, probe_engine
from clarep.teachers.unet import UNet, UNetConfig

TOLERANCE = {"forward": 1e-10, "double_backward": 1e-10, "finite_difference": 1e-6}
TAPS = ("down0", "down1", "mid", "up1", "up0")


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x):  # (B, 6, 4)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return F.scaled_dot_product_attention(q, k, v)


class Encoder(nn.Module):
    """Torch's own layer, which without gradients leaves for a fused path of its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()

    def forward(self, x):  # (B, 6, 4)
        return self.layer(x)


def encoder():
    return Encoder(), (6, 4)


def mlp():
    return nn.Sequential(nn.Linear(7, 12), nn.Tanh(), nn.Linear(12, 5)), (7,)


def conv():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 2, 3, stride=2)), (3, 6, 6)


def attention():
    return Attention(), (6, 4)


def unet(tap):
    config = UNetConfig(image_size=8, num_classes=3, widths=(8, 16), embed_dim=16)
    net = UNet(config)
    with torch.no_grad():
        for parameter in net.parameters():  # some layers start at zero
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    return net, lambda x: net.features(x, 1.0 + x.new_zeros(len(x)), torch.arange(len(x)) % 3, tap)


def make(name, batch, dtype=torch.float64):
    """A function and a point x, from a name of CASES."""
    torch.manual_seed(0)
    if name in TAPS:
        net, function = unet(name)
        shape = (3, 8, 8)
    else:
        net, shape = {"mlp": mlp, "conv": conv, "attention": attention, "encoder": encoder}[name]()
        function = net
    net.to(dtype).requires_grad_(False)
    return function, torch.randn(batch, *shape, dtype=dtype)


CASES = ("mlp", "conv", "attention", "encoder", *TAPS)


def dense(function, x):
    """The oracle: J of each image by itself, (B, m, n)."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        whole = torch.func.jacrev(function)(x)
    batch, m = len(x), function(x)[0].numel()
    whole = whole.reshape(batch, m, batch, -1)
    return torch.stack([whole[i, :, i] for i in range(batch)])


def blocks(jacobian, r, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    shape_v, shape_u = (jacobian.batch, jacobian.n, r), (jacobian.batch, jacobian.m, r)
    return (torch.randn(s, generator=generator, dtype=dtype) for s in (shape_v, shape_u))


def assert_close(got, want, tolerance):
    assert got.shape == want.shape
    assert (got - want).norm() <= tolerance * want.norm()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_products_equal_the_dense_jacobians(name, batch, engine):
    function, x = make(name, batch)
    oracle = dense(function, x)
    jacobian = Jacobian(function, x, engine)
    V, U = blocks(jacobian, 4)
    assert_close(jacobian.matmat(V), oracle @ V, TOLERANCE[engine])
    assert_close(jacobian.rmatmat(U), oracle.mT @ U, 1e-10)
    assert jacobian.products == 8


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_dense_is_the_jacobian_whichever_side_is_shorter(name):
    function, x = make(name, 2)
    oracle = dense(function, x)
    jacobian = Jacobian(function, x)
    assert_close(jacobian.dense(), oracle, 1e-10)
    assert jacobian.products == min(oracle.shape[1:])


def test_dense_of_more_outputs_than_inputs():
    torch.manual_seed(0)
    function = nn.Sequential(nn.Linear(3, 9), nn.Tanh()).double().requires_grad_(False)
    x = torch.randn(2, 3, dtype=torch.float64)
    assert_close(Jacobian(function, x).dense(), dense(function, x), 1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_float32_products_are_right_to_float32(engine):
    exact, x = make("mid", 2)
    oracle = dense(exact, x)
    function, _ = make("mid", 2, torch.float32)
    jacobian = Jacobian(function, x.float(), engine)
    V, U = blocks(jacobian, 3, torch.float32)
    tolerance = 2e-2 if engine == "finite_difference" else 1e-4
    assert_close(jacobian.matmat(V).double(), oracle @ V.double(), tolerance)
    assert_close(jacobian.rmatmat(U).double(), oracle.mT @ U.double(), 1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_chunks_change_nothing(engine):
    function, x = make("conv", 3)
    whole, chunked = Jacobian(function, x, engine), Jacobian(function, x, engine, memory_mb=0.4)
    V, U = blocks(whole, 7)
    each = whole._bytes_each
    assert whole._bound.chunk(each) > 7 > chunked._bound.chunk(each)
    assert_close(chunked.matmat(V), whole.matmat(V), 1e-12)
    assert_close(chunked.rmatmat(U), whole.rmatmat(U), 1e-12)
    assert chunked.products == whole.products == 14


def test_a_budget_below_one_direction_still_works():
    function, x = make("mlp", 2)
    jacobian = Jacobian(function, x, memory_mb=1e-9)
    V, _ = blocks(jacobian, 3)
    assert_close(jacobian.matmat(V), dense(function, x) @ V, 1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_channels_last_input(engine):
    function, x = make("conv", 2)
    turned = x.to(memory_format=torch.channels_last)
    a, b = Jacobian(function, x, engine), Jacobian(function, turned, engine)
    V, U = blocks(a, 3)
    assert_close(b.matmat(V), a.matmat(V), 1e-12)
    assert_close(b.rmatmat(U), a.rmatmat(U), 1e-12)


def test_output_in_another_order_of_memory():
    function, x = make("conv", 2)
    turned = Jacobian(lambda x: function(x).permute(0, 2, 3, 1), x)
    V, U = blocks(turned, 3)
    oracle = dense(turned._function, x)
    assert_close(turned.matmat(V), oracle @ V, 1e-10)
    assert_close(turned.rmatmat(U), oracle.mT @ U, 1e-10)


def test_parameters_that_require_gradients_are_no_harm():
    torch.manual_seed(0)
    net = nn.Linear(4, 3).double()
    jacobian = Jacobian(net, torch.randn(2, 4, dtype=torch.float64))
    V, _ = blocks(jacobian, 2)
    assert_close(jacobian.matmat(V), net.weight.detach().expand(2, -1, -1) @ V, 1e-12)
    assert net.weight.grad is None


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("engine", ENGINES)
def test_right_engines_pass_the_adjoint_test(name, engine):
    function, x = make(name, 2)
    assert Jacobian(function, x, engine).adjoint_error() < 1e-6


class _WrongBackward(torch.autograd.Function):
    """sin with a forward-mode rule that is right and a backward rule that is not."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x.sin()

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return tangent * x.cos()


class _NoForwardMode(torch.autograd.Function):
    """sin that knows its backward rule only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x.cos()


class _NoSecondBackward(_NoForwardMode):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x.cos()


def point():
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


def test_a_wrong_derivative_fails_the_adjoint_test():
    assert Jacobian(_WrongBackward.apply, point()).adjoint_error() > 1e-2
    with pytest.raises(UserError, match="adjoint test"):
        probe_engine(lambda x: _WrongBackward.apply(x * x), point())


def test_probe_takes_forward_mode_where_it_works():
    engine, findings = probe_engine(torch.tanh, point())
    assert engine == "forward"
    assert list(findings) == ["forward"]
    assert findings["forward"].startswith("adjoint error")


def test_torchs_transformer_layer_has_forward_mode():
    """Its fast path has none, and is back when the products are made."""
    function, x = make("encoder", 2, torch.float32)
    for enabled in (False, True):
        torch.backends.mha.set_fastpath_enabled(enabled)
        engine, found = probe_engine(function, x)
        assert (engine, list(found)) == ("forward", ["forward"])
        assert torch.backends.mha.get_fastpath_enabled() == enabled


def test_probe_falls_back_to_two_reverse_passes():
    engine, findings = probe_engine(_NoForwardMode.apply, point())
    assert engine == "double_backward"
    assert "jvp" in findings["forward"] or "forward" in findings["forward"]
    x = point()
    V = torch.eye(6).expand(3, -1, -1)
    want = torch.diag_embed(x.cos())
    assert_close(Jacobian(_NoForwardMode.apply, x, engine).matmat(V), want, 1e-5)


def test_too_little_memory_says_nothing_of_an_engine():
    def too_large(x):
        raise torch.cuda.OutOfMemoryError("no room")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        probe_engine(too_large, point())


def test_products_are_exact_and_leave_torchs_settings_alone(monkeypatch):
    seen = []

    def features(x):
        cudnn = torch.backends.cudnn
        seen.append((cudnn.deterministic, cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return x.sin()

    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    torch.set_float32_matmul_precision("high")
    try:
        Jacobian(features, point()).matmat(torch.eye(6).expand(3, -1, -1))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {(True, False, "highest")}
    assert torch.backends.cudnn.deterministic


PROBE = """
import torch
from torch import backends
from clarep.geometry.jacobian import probe_engine
from clarep.geometry.precision import differentiable

PLACES = "cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"
LEGACY = "cuda.matmul.allow_tf32", "cudnn.allow_tf32"

def read(name):
    value = backends
    try:
        for part in name.split("."):
            value = getattr(value, part)
    except RuntimeError:  # the newer API was used
        value = "unreadable"
    except AttributeError:  # an older torch
        value = "none"
    return value

def matmul():
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "unreadable"

def state():
    new = {name: read(f"{name}.fp32_precision") for name in PLACES}
    return new, {name: read(name) for name in LEGACY} | {"matmul": matmul()}

def features(x):
    new, legacy = state()
    assert set(new.values()) <= {"ieee", "none"}, new
    assert legacy["matmul"] == "highest" and legacy["cuda.matmul.allow_tf32"] is False, legacy
    # As it was outside, cudnn's older setting may be out of reach, never on.
    assert legacy["cudnn.allow_tf32"] in (False, before[1]["cudnn.allow_tf32"]), legacy
    assert legacy["cudnn.allow_tf32"] is not True
    return x.sin()

setters = [
    "pass",
    "backends.cuda.matmul.allow_tf32 = True",
    "torch.set_float32_matmul_precision('high')",
    "backends.cudnn.allow_tf32 = False",
    "backends.cudnn.allow_tf32 = True",
]
if hasattr(backends.cuda.matmul, "fp32_precision"):
    setters += [
        "backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.set_float32_matmul_precision('highest')",
        "backends.cuda.matmul.fp32_precision = 'tf32'",  # now the older API refuses to be read
        "backends.cudnn.conv.fp32_precision = 'ieee'",
        "backends.fp32_precision = 'tf32'",
    ]
for setter in setters:
    exec(setter)
    before = state()
    assert probe_engine(features, torch.randn(3, 6))[0] == "forward"
    assert state() == before, (setter, before, state())
    with differentiable("tf32"):
        new, legacy = state()
        assert set(new.values()) <= {"tf32", "none"}, (setter, new)
        assert legacy["matmul"] == "high" and legacy["cuda.matmul.allow_tf32"] is True, legacy
    assert state() == before, (setter, before, state())
"""


def test_either_of_torchs_apis_may_have_set_the_precision():
    """In a process of its own: not all of it can be undone."""
    command = [sys.executable, "-c", PROBE]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


class _Wordless(_NoForwardMode):
    @staticmethod
    def jvp(ctx, tangent):
        raise NotImplementedError


def test_a_failure_without_a_message_is_named_by_its_type():
    engine, findings = probe_engine(_Wordless.apply, point())
    assert engine == "double_backward"
    assert findings["forward"] == "NotImplementedError"


def test_probe_falls_back_to_finite_differences():
    engine, findings = probe_engine(_NoSecondBackward.apply, point())
    assert engine == "finite_difference"
    assert set(findings) == set(ENGINES)


def test_probe_refuses_a_function_that_is_not_deterministic():
    torch.manual_seed(0)
    with pytest.raises(UserError, match="deterministic"):
        probe_engine(lambda x: x * torch.rand_like(x), point())


def test_probe_refuses_a_function_without_gradient():
    with pytest.raises(UserError, match="adjoint test"):
        probe_engine(lambda x: x.detach().sin(), point())
    with pytest.raises(UserError, match="adjoint test"):
        probe_engine(torch.no_grad()(torch.sin), point())


def test_probe_accepts_a_constant_function():
    assert probe_engine(lambda x: torch.ones(len(x), 4), point())[0] == "forward"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite(bad):
    with pytest.raises(UserError, match="not finite"):
        Jacobian(lambda x: x * bad, point())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_function_has_a_zero_jacobian(engine):
    jacobian = Jacobian(lambda x: torch.ones(len(x), 4), point(), engine)
    assert jacobian.matmat(torch.randn(3, 6, 2)).eq(0).all()
    assert jacobian.rmatmat(torch.randn(3, 4, 2)).eq(0).all()
    assert jacobian.adjoint_error() == 0
