"""Operations of convolutions and matrix products, against their formulas."""

import torch
from torch import nn

from clarep.engine.arithmetic import CountedArithmetic


def counted(work) -> int:
    with CountedArithmetic() as found:
        work()
    return found.operations


def test_forward_backward_and_gradients_of_gradients_are_counted():
    n, wide, out = 5, 7, 3
    layer, x = nn.Linear(wide, out), torch.randn(n, wide, requires_grad=True)
    forward = 2 * n * wide * out
    assert counted(lambda: layer(x)) == forward
    # Backward: one product for the weights' gradient and one for the images'.
    assert counted(lambda: layer(x).sum().backward()) == 3 * forward

    def penalty() -> None:
        hidden = layer(x).square().sum()
        (gradient,) = torch.autograd.grad(hidden, x, create_graph=True)
        gradient.square().sum().backward()

    assert counted(penalty) > 4 * forward


def test_convolutions_are_counted_and_the_result_stays_the_same():
    layer = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    x = torch.randn(2, 3, 8, 8)
    plain = layer(x)
    with CountedArithmetic() as found:
        under = layer(x)
    assert found.operations == 2 * 2 * 4 * 8 * 8 * 3 * 9
    assert torch.equal(plain, under)
    assert counted(lambda: torch.relu(x) + x) == 0
