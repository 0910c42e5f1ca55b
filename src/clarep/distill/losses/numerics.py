"""What the losses share: precision, directions of vectors, and checks of what they are given."""

import functools
import math
from collections.abc import Callable
from typing import ParamSpec

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.arrays import check_finite
from clarep.errors import UserError

_SHORTEST = 1e-8  # a vector below this length has no direction
_P = ParamSpec("_P")


def at_least_float32(loss: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Run a loss in float32, or float64 if it is given that, under mixed precision too.

    What is not finite is refused: it would count as a vector without a direction, which costs
    nothing.
    """

    @functools.wraps(loss)
    def raised(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*map(_raised, args), **{key: _raised(a) for key, a in kwargs.items()})  # type: ignore[arg-type]

    return raised


def _raised(argument: object) -> object:
    if not isinstance(argument, Tensor) or not argument.is_floating_point():
        return argument
    why = "lower the learning rate, or look for NaN in what is compared with"
    check_finite(argument, "features or logits of a loss", why)
    return argument.float() if argument.dtype in (torch.float16, torch.bfloat16) else argument


def unit(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Divide vectors by their lengths; one shorter than 1e-8 gives zero, and zero gradient."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    has_direction = length > _SHORTEST
    return torch.where(has_direction, x / torch.where(has_direction, length, 1.0), 0.0)


def check_temperature(temperature: float) -> None:
    """Raise UserError unless the temperature is a finite number above 0."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UserError(f"temperature {temperature} is not above 0: give 0.1, say")
