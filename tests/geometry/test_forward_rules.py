"""Lean forward derivatives against torch's own: the same bytes, wherever a rule applies or not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clarep.geometry import forward_rules
from clarep.geometry.forward_rules import LeanTangents
from clarep.geometry.jacobian import Jacobian

BATCH, WIDTH = 3, 5


class Norm(nn.Module):
    """A group norm with weights unlike 1 and 0."""

    def __init__(self, channels=4, groups=2, **kinds):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-3, **kinds)
        for i, parameter in enumerate(self.norm.parameters()):
            nn.init.normal_(parameter, 1 - i, 0.5)

    def forward(self, x):
        return self.norm(x)


class Residual(nn.Module):
    """What networks do between their layers, in place too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), Norm()
        self.scale = torch.randn(BATCH, 4, 1, 1)

    def forward(self, x):
        h = self.norm(self.conv(x))
        shifted = h * (1 + self.scale) + self.scale
        h = F.silu(shifted * self.scale, inplace=True)
        h += x
        h *= self.scale
        return self.scale * h * h + shifted.mul_(2) - self.conv(h)


class Last(nn.Module):
    """Channels in the innermost place."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def per_image():
    net = Residual()
    net.scale = net.scale[:1]
    return torch.func.vmap(lambda x: net(x[None])[0])


def energy_gradient():
    net = Residual()
    return lambda x: torch.func.grad(lambda y: (net(y) * x).sum() + (x * y).square().sum())(x)


def moved():
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(), Norm())
    return lambda x: torch.func.jvp(lambda y: net(y) * x * y, (x,), (x.cos(),))[1]


NETS = {
    "convolution": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "convolution without bias": lambda: nn.Conv2d(4, 4, 1, bias=False),
    "convolution by groups, dilated": lambda: nn.Conv2d(4, 4, 3, groups=2, dilation=2),
    "convolution, same": lambda: nn.Conv2d(4, 4, 3, padding="same"),
    "convolution, circular": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "convolution by names": lambda: lambda x: F.conv2d(x, weight=torch.ones(2, 4, 1, 1), stride=2),
    "convolution by x": lambda: lambda x: F.conv2d(x, x[:2, :, :3, :3].detach() * x.mean()),
    "group norm": Norm,
    "group norm of a row": lambda: nn.Sequential(nn.Flatten(2), Norm()),
    "group norm of points": lambda: nn.Sequential(nn.Flatten(1), Norm(144, 6)),
    "group norm alone": lambda: Norm(affine=False),
    "group norm by x": lambda: lambda x: F.group_norm(x, 2, x.mean((0, 2, 3)), eps=1e-2),
    "group norm, channels last": lambda: nn.Sequential(Last(), Norm()),
    "constants": lambda: lambda x: torch.mul(torch.arange(6), x * torch.ones(1, 6)) * 2 * x,
    "a number first": lambda: lambda x: torch.mul(2.0, x) * x,
    "a constant that widens": lambda: (
        lambda x: (x * torch.arange(2.0)[:, None, None, None, None])[1]
    ),
    "in place": Residual,
    "each image by vmap": per_image,
    "a gradient of its own": energy_gradient,
    "a tangent of its own": moved,
}


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(0)
    made = NETS[request.param]()
    return made.requires_grad_(False) if isinstance(made, nn.Module) else made


def tangents(net, x, directions, lean):
    def one(direction):
        return torch.func.jvp(net, (x,), (direction,))

    with torch.no_grad(), LeanTangents() if lean else torch.no_grad():
        return torch.func.vmap(one)(directions)


def assert_torchs_own(net, x, directions):
    found, wanted = (tangents(net, x, directions, lean) for lean in (True, False))
    for got, want in zip(found, wanted, strict=True):
        assert torch.equal(got, want)
    assert float(wanted[1].abs().max()) > 0


def points(dtype):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 4, 6, 6, generator=generator).to(dtype)
    return x, torch.randn(WIDTH, *x.shape, generator=generator).to(dtype)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_values_and_tangents_are_torchs_own(net):
    assert_torchs_own(net, *points(torch.float32))


@pytest.fixture
def used(monkeypatch):
    """(name of a rule, whether it applied) of each call."""
    used = []
    for function, rule in forward_rules._RULES.items():

        def noted(*args, rule=rule, **kwargs):
            found = rule(*args, **kwargs)
            used.append((rule.__name__, found is not None))
            return found

        monkeypatch.setitem(forward_rules._RULES, function, noted)
    return used


def test_rules_are_used(used):
    net = Residual().requires_grad_(False)
    x, directions = points(torch.float32)
    J = Jacobian(net, x)
    used.clear()
    J.matmat(directions.flatten(2).permute(1, 2, 0))
    assert {name for name, lean in used if lean} == {"_conv2d", "_group_norm", "_mul"}
    used.clear()
    net(x)
    assert not used


def test_bf16_goes_torchs_own_way(used):
    x, directions = points(torch.float32)
    for net in (Norm().requires_grad_(False), nn.Conv2d(4, 4, 3).requires_grad_(False)):
        with torch.autocast("cpu", torch.bfloat16):
            assert_torchs_own(net, x, directions)
    net, (x, directions) = Norm().bfloat16().requires_grad_(False), points(torch.bfloat16)
    assert_torchs_own(net, x, directions)
    assert used and not any(lean for _, lean in used)


def test_float64_is_as_torchs_own(used):
    net, (x, directions) = Residual().double().requires_grad_(False), points(torch.float64)
    net.scale = net.scale.double()
    assert_torchs_own(net, x, directions)
    assert {name for name, lean in used if lean} == {"_conv2d", "_group_norm", "_mul"}
