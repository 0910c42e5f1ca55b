"""Attention whose memory grows with the tokens, not with their square, and its derivatives.

The kernels are those of `jvp-flash-attention`. Here is what they lack: other sizes of heads, and
rules for `torch.vmap`, by which `Jacobian` multiplies a block of directions.
"""

import contextlib
import functools
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from clarep.engine.extras import require_extra
from clarep.errors import UserError

_HEAD_SIZES = (32, 64, 128)  # they have 256 too, whose float32 does not fit a GPU's registers
_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_FLAGS = ("dropout_p", "is_causal", "enable_gqa")
_TOKENS = 32  # in a block of the kernels', which take no part of one


def check_flash(device: torch.device) -> None:
    """Raise UserError if flash attention cannot run on this device, or is not installed."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # on the CPU: slow, for tests
    if device.type != "cuda" and not interpreted:
        raise UserError(
            f"attention flash runs on a GPU and the device is {device}: give `device=cuda`, or "
            "leave attention at math"
        )
    require_extra("triton", "flash")
    _package()


@dataclass(frozen=True, order=True)
class AttentionCall:
    """A call of attention, as far as it decides which kernel runs it."""

    kernel: Literal["flash", "math"]
    """Where it went."""
    channels: int
    """Of a head."""
    tokens: int
    """Of the queries."""
    kind: Literal["self", "cross", "masked"]
    """Masked stands for dropout, causality and grouped heads too."""


class FlashAttention(TorchFunctionMode):
    """Within it, `scaled_dot_product_attention` runs by the kernels where they can do it.

    They can do self-attention in float32 without mask, dropout or causality, of heads of up to
    128 channels, over a multiple of 32 tokens. Any other call goes where it would have gone.

    calls: where every call is counted.
    """

    def __init__(self, calls: Counter[AttentionCall] | None = None) -> None:
        super().__init__()
        self.calls = Counter[AttentionCall]() if calls is None else calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        named = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        q, k, v = (named[name] for name in _ARGUMENTS[:3])
        masked = named.get("attn_mask") is not None or any(map(named.get, _FLAGS))
        flash = not masked and _fits(q, k, v)
        kernel: Literal["flash", "math"] = "flash" if flash else "math"
        kind: Literal["self", "cross"] = "self" if q.shape == k.shape else "cross"
        call = AttentionCall(kernel, q.shape[-1], q.shape[-2], "masked" if masked else kind)
        self.calls[call] += 1
        return flash_attention(q, k, v, named.get("scale")) if flash else func(*args, **kwargs)


def _fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return (
        q.ndim == 4
        and q.shape == k.shape == v.shape
        and q.dtype == k.dtype == v.dtype == torch.float32
        and q.shape[2] % _TOKENS == 0
        and q.shape[3] <= _HEAD_SIZES[-1]
        and _has_room(q.device, _head_size(q.shape[3]))
    )


def _head_size(channels: int) -> int:
    return next(size for size in _HEAD_SIZES if size >= channels)


@functools.cache
def _has_room(device: torch.device, size: int) -> bool:
    """Whether a GPU has shared memory for heads of this size: small GPUs have none for 128."""
    errors = require_extra("triton.runtime.errors", "flash")
    zeros = [torch.zeros(1, 1, _TOKENS, size, device=device)] * 6
    try:
        _Tangent.apply(*zeros, 1.0)
        _Cotangents.apply(*zeros[:4], 1.0)
    except errors.OutOfResources:
        return False
    return True


def flash_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Return softmax(scale q k^T) v, of (B, heads, tokens, channels) that fit the kernels.

    Differentiable once, forwards or backwards, under `torch.vmap` too.
    """
    channels = q.shape[3]
    zeros = (0, _head_size(channels) - channels)
    # Channels of zeros change no product of q and k; those of v are cut off again.
    padded = (F.pad(part, zeros) for part in (q, k, v))
    mixed: Tensor = _Attention.apply(*padded, channels**-0.5 if scale is None else scale)
    return mixed[..., :channels]


class _OneByOne(torch.autograd.Function):
    """A function of tensors and a scale that `torch.vmap` calls for each direction in turn.

    With many tokens one call keeps a GPU busy, and what all directions share is not copied.
    """

    @classmethod
    def vmap(cls, info: Any, in_dims: Sequence[int | None], *args: Any) -> Any:
        each = zip(args, in_dims, strict=True)
        lists = [[a] * info.batch_size if d is None else a.unbind(d) for a, d in each]
        results = [cls.apply(*inputs) for inputs in zip(*lists, strict=True)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.scale = inputs
        ctx.save_for_forward(*tensors)
        ctx.save_for_backward(*tensors)


class _Attention(_OneByOne):
    """Of q, k and v."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        *qkv, scale = inputs
        with _kernels(qkv[0]) as kernels:
            return kernels.forward(*_arguments(qkv, scale))[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Tangent.apply(*ctx.saved_tensors, *tangents[:3], ctx.scale)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return *_Cotangents.apply(*ctx.saved_tensors, cotangent, ctx.scale), None


class _Tangent(_OneByOne):
    """The output's tangent, of q, k, v and their tangents."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        *tensors, scale = inputs
        with _kernels(tensors[0]) as kernels:
            return kernels.forward(*_arguments(tensors, scale))[1][0]


class _Cotangents(_OneByOne):
    """The cotangents of q, k and v, of these and the output's cotangent."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        *qkv, cotangent, scale = inputs
        arguments = _arguments(qkv, scale)
        ctx: Any = torch.autograd.function.FunctionCtx()
        with _kernels(cotangent) as kernels:
            kernels.setup_context(ctx, arguments, kernels.forward(*arguments))
            ctx.saved_tensors = ctx.to_save
            return kernels.backward(ctx, _whole(cotangent), None)[:3]


def _arguments(tensors: Sequence[Tensor], scale: float) -> tuple[Any, ...]:
    """Return what the package's function takes: q, k, v, their tangents, if any, and the rest.

    The rest: no mask, dropout or causality; the scale; no bound on registers; the kernel of all
    GPUs, not Hopper's own, so that what runs is what Triton's interpreter can test; no check.
    """
    rest = None, 0.0, False, scale, False, False, False
    return *map(_whole, tensors), *[None] * (6 - len(tensors)), *rest


def _whole(part: Tensor) -> Tensor:
    """Return it contiguous, with the same strides as others of its shape where a size is 1 too."""
    return part.reshape(-1).view(part.shape)


@contextlib.contextmanager
def _kernels(on: Tensor) -> Iterator[Any]:
    """Give the package's function, to be called for tensors that lie where this one does."""
    knobs = require_extra("triton", "flash").knobs.language
    with warnings.catch_warnings(), torch.cuda.device_of(on), knobs.scope():
        warnings.filterwarnings("ignore", "tl.make_block_ptr is deprecated")
        knobs.fp32_default = "ieee"  # not TF32, which the adjoint test would not pass
        yield _package()


def _package() -> Any:
    return require_extra("jvp_flash_attention.jvp_attention", "flash").JVPAttn
