"""A student asked by several processes of one batch, as if one process asked it of all.

Every process holds the whole batch and computes the whole loss; of the student's pass each takes
its share of the rows. Features and logits are then put together, and BatchNorm sees the rows of
all, so that losses over pairs of images, batch statistics and gradients, those of inputs too, are
those of one process but for rounding.

What is whole carries the gradient g of the loss L, the same in every process; what is a share, and
the weights behind it, P g in P processes: the mean of the weights' gradients over the processes,
which is what accelerate takes, is then that of L. Each function below is the other's derivative.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from clarep.engine.processes import rows_of


@dataclass(frozen=True)
class Shares:
    """Which rows of a batch are this process's."""

    rank: int
    """Of this process."""
    processes: int
    """How many there are."""

    @classmethod
    def among(cls, accelerator: Any) -> "Shares | None":
        """Return this process's share among those of an accelerator; None if it is alone."""
        if accelerator.num_processes == 1:
            return None
        return cls(accelerator.process_index, accelerator.num_processes)

    def of(self, rows: int) -> slice:
        """Return this process's rows, as `numpy.array_split` cuts them."""
        return rows_of(self.rank, self.processes, rows)

    def whole(self, part: Tensor, rows: int) -> Tensor:
        """Return all processes' parts together, (rows, ...), without gradient."""
        together = part.new_zeros((rows, *part.shape[1:]))
        together[self.of(rows)] = part
        distributed.all_reduce(together)
        return together

    def both(
        self, both: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return features and logits of all of x, of which this process computes its share."""
        with _BatchNormOfAll():
            features, logits = both(_Split.apply(x, self))
        return _Join.apply(features, self, len(x)), _Join.apply(logits, self, len(x))


class _Split(torch.autograd.Function):
    """Of what is whole, this process's rows."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, shares: Shares) -> Tensor:
        ctx.shares, ctx.rows = shares, len(whole)
        return whole[shares.of(len(whole))].clone(memory_format=torch.preserve_format)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Join.apply(gradient, ctx.shares, ctx.rows) / ctx.shares.processes, None


class _Join(torch.autograd.Function):
    """Of every process's rows, the whole."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, shares: Shares, rows: int) -> Tensor:
        ctx.shares = shares
        return shares.whole(part, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Split.apply(gradient, ctx.shares) * ctx.shares.processes, None, None


class _Sum(torch.autograd.Function):
    """Of a share's figure in every process, their sum; it is a share's figure again."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Sum.apply(gradient)


class _BatchNormOfAll(TorchFunctionMode):
    """Within it, `batch_norm` in training mode takes mean and variance over all processes' rows."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.batch_norm:
            return func(*args, **kwargs)
        names = ("x", "mean", "var", "weight", "bias", "training", "momentum", "eps")
        named = dict(zip(names, args, strict=False))
        named |= {
            {"input": "x", "running_mean": "mean", "running_var": "var"}.get(k, k): v
            for k, v in kwargs.items()
        }
        return _batch_norm(**named) if named.get("training") else func(*args, **kwargs)


def _batch_norm(
    x: Tensor,
    *,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return what `torch.nn.functional.batch_norm` would of all processes' rows together.

    mean, var: running statistics, which are moved towards the batch's, or None.
    """
    dims = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    given, x = x, x.float()  # as the library does in mixed precision
    count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
    distributed.all_reduce(count)
    centre = _Sum.apply(x.sum(dims)) / count
    apart = x - centre.view(shape)
    spread = _Sum.apply(apart.square().sum(dims)) / count
    if mean is not None and var is not None:
        with torch.no_grad():
            mean.lerp_(centre.to(mean.dtype), momentum)
            var.lerp_((spread * count / (count - 1)).to(var.dtype), momentum)
    out: Tensor = apart * torch.rsqrt(spread + eps).view(shape)
    if weight is not None:
        out = out * weight.view(shape)
    if bias is not None:
        out = out + bias.view(shape)
    return out.to(given.dtype)
