"""Forward derivatives of three operations, bit for bit torch's own, without what torch wastes.

Where an argument has no tangent, such as a weight, torch takes one of zeros: it convolves with it,
and copies the tangent that it is added to. Of a group norm it derives mean and deviation too, which
nobody asks for. Without this work a product J V of a U-Net takes three quarters of its time.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch as functorch
from torch.autograd.forward_ad import make_dual, unpack_dual
from torch.overrides import TorchFunctionMode

_NAMED = {"weight", "bias", "eps"}  # what a rule takes by name


class LeanTangents(TorchFunctionMode):
    """Within it, tangents pass convolutions, group norms and products with constants by the rules.

    What they are not made for goes torch's own way: weights with a tangent, autocast, and a group
    norm of other layouts or in less than float32.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(func) if _NAMED.issuperset(kwargs) else None
        found = None if rule is None or not _in_jvp() else rule(*args, **kwargs)
        return func(*args, **kwargs) if found is None else found


def _in_jvp() -> bool:
    """Tell whether the innermost of `torch.func`'s transformations is forward mode.

    Within another, such as a network's own vmap, tangents are not to be seen.
    """
    innermost = functorch.peek_interpreter_stack()
    return innermost is not None and innermost.key() == functorch.TransformType.Jvp


def _halves(value: Any) -> tuple[Any, Tensor | None]:
    """Return a value and its tangent; None of what has none."""
    return unpack_dual(value) if isinstance(value, Tensor) else (value, None)


def _whole(value: Tensor, tangent: Tensor) -> Tensor:
    dual: Tensor = make_dual(value, tangent)
    return dual


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor | None:
    x, tangent = _halves(x)
    if tangent is None or not _constant(weight, bias) or torch.is_autocast_enabled(x.device.type):
        return None
    step = torch.conv2d(tangent, weight, None, *rest)
    return _whole(torch.conv2d(x, weight, bias, *rest), step)


def _mul(a: Any, b: Any) -> Tensor | None:
    (x, step), (y, other) = _halves(a), _halves(b)
    if (step is None) == (other is None):
        return None
    tangent = x * other if step is None else step * y
    return _whole(x * y, tangent)


def _group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    x, tangent = _halves(x)
    if tangent is None or weight is None or not _constant(weight, bias):
        return None
    in_full = x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)
    if not in_full or torch.is_autocast_enabled(x.device.type) or not x.is_contiguous():
        return None
    batch, channels, space = *x.shape[:2], math.prod(x.shape[2:])
    y, mean, scale = torch.native_group_norm(x, weight, bias, batch, channels, space, groups, eps)
    mean, scale = mean.view(1, -1, 1), scale.view(1, -1, 1)  # scale: 1 / deviation
    together = 1, batch * groups, channels // groups * space
    around = x.view(together) - mean
    step = tangent.reshape(together)
    step = step - step.mean((0, 2), keepdim=True)
    # In torch's order, on which the last digits depend.
    covariance = (-scale.pow(3) * step).mul_(around).sum((0, 2), keepdim=True) / together[2]
    normed = step.mul_(scale).add_(around * covariance).view(x.shape)
    return _whole(y, normed * weight.view(1, -1, *[1] * (x.ndim - 2)))


def _constant(*values: Any) -> bool:
    return all(_halves(value)[1] is None for value in values)


_RULES: dict[Any, Callable[..., Tensor | None]] = {
    torch.conv2d: _conv2d,
    torch.Tensor.mul: _mul,
    torch.mul: _mul,
    torch.nn.functional.group_norm: _group_norm,
}
