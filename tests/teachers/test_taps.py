"""Tapping networks of others: the pass stops, derivatives go through, hooks are gone after."""

import pytest
import torch
from torch import nn

from clarep.geometry.precision import differentiable
from clarep.teachers.foreign import activation, output_shapes, tokens_to_map


class Net(nn.Module):
    """A chain of linear layers: the second returns a tuple, the third runs twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.pair = Pair()
        self.twice = nn.Linear(5, 5)
        self.last = nn.Linear(5, 2)
        self.unused = nn.Linear(2, 2)
        self.text = Text()

    def forward(self, x):
        h = torch.tanh(self.first(x))
        h, _ = self.pair(h)
        self.text(h)
        h = self.twice(torch.tanh(self.twice(h)))
        return self.last(h)


class Pair(nn.Module):
    def forward(self, h):
        return 2 * h, h


class Text(nn.Module):
    def forward(self, h):
        return "no tensor"


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double().requires_grad_(False)


@pytest.fixture
def x():
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def hooks(net):
    return sum(len(module._forward_hooks) for module in net.modules())


def test_what_a_module_gives_and_nothing_after_it(net, x):
    ran = []
    net.last.register_forward_hook(lambda *_: ran.append("last"))
    before = hooks(net)
    first = activation(net.first, lambda: net(x))
    assert torch.equal(first, net.first(x))
    pair = activation(net.pair, lambda: net(x))
    assert torch.equal(pair, 2 * torch.tanh(net.first(x)))  # the first of a tuple
    twice = activation(net.twice, lambda: net(x))
    assert torch.equal(twice, net.twice(pair))  # its first run
    assert ran == []
    assert hooks(net) == before
    net(x)
    assert ran == ["last"]


def test_derivatives_forward_and_backward(net, x):
    def tapped(y):
        return activation(net.pair, lambda: net(y))

    def written_out(y):
        return 2 * torch.tanh(y @ net.first.weight.T + net.first.bias)

    tangents = torch.randn(6, *x.shape, generator=torch.Generator().manual_seed(2)).double()
    with differentiable():
        many = torch.func.vmap(lambda v: torch.func.jvp(tapped, (x,), (v,))[1])(tangents)
        each = [torch.func.jvp(written_out, (x,), (v,))[1] for v in tangents]
    assert torch.allclose(many, torch.stack(each))
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(tapped(y).square().sum(), y)
    y2 = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(written_out(y2).square().sum(), y2)
    assert torch.allclose(gradient, expected)
    assert hooks(net) == 0


def test_an_error_of_the_network_passes_through(net):
    with pytest.raises(RuntimeError, match="shape"):
        activation(net.last, lambda: net(torch.zeros(3, 7, dtype=torch.float64)))
    assert hooks(net) == 0


def test_modules_that_cannot_be_tapped(net, x):
    with pytest.raises(RuntimeError, match="does not run the tapped module"):
        activation(net.unused, lambda: net(x))
    with pytest.raises(RuntimeError, match="returns str, not a tensor"):
        activation(net.text, lambda: net(x))
    assert hooks(net) == 0


def test_shapes_in_the_order_of_the_pass(net, x):
    modules = {
        "last": net.last,
        "twice": net.twice,
        "unused": net.unused,
        "text": net.text,
        "pair": net.pair,
    }
    shapes = output_shapes(modules, lambda: net(x))
    assert list(shapes.items()) == [("pair", (3, 5)), ("twice", (3, 5)), ("last", (3, 2))]
    assert hooks(net) == 0
    with pytest.raises(RuntimeError):
        output_shapes(modules, lambda: net(x[:, :2]))
    assert hooks(net) == 0


def test_tokens_are_laid_out_by_rows():
    tokens = torch.arange(2 * 8 * 3).reshape(2, 8, 3)  # two tokens ahead of 2 x 3 patches
    laid = tokens_to_map(tokens, (2, 3))
    assert laid.shape == (2, 3, 2, 3)
    for row in range(2):
        for column in range(3):
            assert torch.equal(laid[:, :, row, column], tokens[:, 2 + 3 * row + column])
    assert torch.equal(tokens_to_map(tokens[:, 2:], (2, 3)), laid)
