"""How exactly Jacobian products are computed: in float32, or by a GPU's quicker arithmetic."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from clarep.geometry.subspace import Subspace

_CHECKED = 8  # directions: a fiftieth of the products of a solve for k = 128, or so
Precision = Literal["fp32", "tf32", "bf16"]


@runtime_checkable
class Products(Protocol):
    """J V and J^T U of a batch."""

    def matmat(self, V: Tensor) -> Tensor:
        """Return J V, (B, m, r)."""

    def rmatmat(self, U: Tensor) -> Tensor:
        """Return J^T U, (B, n, r)."""


def checked_in_full(
    found: Subspace, low: Products, full: Products, generator: torch.Generator
) -> Subspace:
    """Return a subspace found by products of low precision with what a check in fp32 says of it.

    A few random directions W inside the subspace are multiplied both ways. The energy that J W
    lacks in fp32 is added to `error`, and what J^T J W differs by, to `residuals`. The check of
    all k directions would cost about as much as finding them in fp32.
    """
    k = found.V.shape[2]
    mix = torch.randn(k, min(_CHECKED, k), generator=generator, dtype=found.V.dtype)
    W = found.V @ torch.linalg.qr(mix)[0].to(found.V.device)  # (B, n, r)
    JW, JW_low = full.matmat(W), low.matmat(W)
    energy, energy_low = (image.square().sum((1, 2)).double() for image in (JW, JW_low))
    kept = torch.where(energy == energy_low, 1.0, energy / energy_low)  # of J = 0 nothing is lost
    apart = (full.rmatmat(JW) - low.rmatmat(JW_low)).norm(dim=(1, 2)) / math.sqrt(W.shape[2])
    return replace(
        found,
        error=1 - (1 - found.error) * kept.clamp(max=1),
        residuals=(found.residuals.square() + apart[:, None].square()).sqrt(),
    )


@contextlib.contextmanager
def differentiable(precision: Precision = "fp32", device_type: str = "cpu") -> Iterator[None]:
    """Use attention's plain kernels: the fused ones have no forward-mode AD.

    Nor has the fast path that `nn.TransformerEncoderLayer` takes by itself without gradients.

    precision: of products and convolutions: in full; by TF32's ten bits, whatever the process
    has chosen for itself; or in bf16 where autocast takes it, accumulated and added in float32.
    """
    arithmetic = _float32_by("tf32" if precision == "tf32" else "ieee")
    half = torch.autocast(device_type, torch.bfloat16, enabled=precision == "bf16")
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), _no_fast_path(), arithmetic, half:
        # From torch's own rules for forward mode, when they are first used.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")
        yield


@contextlib.contextmanager
def _no_fast_path() -> Iterator[None]:
    """Have torch's transformer layers run as the operations that they are made of."""
    found = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(found)


@contextlib.contextmanager
def _float32_by(kind: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Compute float32 so by both of torch's APIs: what reads either finds them agreed."""
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    parts = [(cudnn, "conv"), (cudnn, "rnn"), *((mkldnn, n) for n in ("matmul", "conv", "rnn"))]
    known: list[Any] = [torch.backends.cuda.matmul, *(getattr(*part, None) for part in parts)]
    places = [place for place in known if hasattr(place, "fp32_precision")]  # of torch 2.9
    found = [place.fp32_precision for place in places]
    convolution = None  # the older API fails where the newer one was used
    with contextlib.suppress(RuntimeError):
        convolution = bool(cudnn.allow_tf32)
    for place in places:
        place.fp32_precision = "ieee"
    if convolution is not None:
        cudnn.allow_tf32 = kind == "tf32"
    # Torch refuses to read this beside another setting of the newer API, such as tf32.
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    for place in places:
        place.fp32_precision = kind
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        if convolution is not None:
            cudnn.allow_tf32 = convolution
        for place, precision in zip(places, found, strict=True):  # the older API changes them too
            place.fp32_precision = precision
