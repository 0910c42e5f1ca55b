"""Which directions are projected out: CLARID's top ones, and the controls beside them."""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError
from clarep.geometry.dense import exact_right_singular_vectors, exact_spectrum
from clarep.geometry.jacobian import Jacobian
from clarep.geometry.subspace import Measure, Subspace, subspace_of_dense

Kind = Literal["top", "contrast", "mask", "centre", "bottom", "middle", "random", "none"]
SPARING = ("contrast", "mask")
"""Kinds that leave alone where the teacher reads the class."""
ACROSS = (*SPARING, "centre")
"""They and mask's control, which leaves alone as many pixels, those in the middle."""


def parse_k(k: int | float | str, n: int) -> int | None:
    """Return how many of n directions `k` stands for; None for a share of energy.

    k: a number (128), a share of the dimension below 1 (0.04), or a share of the energy
    ("energy:0.8"), which only the spectrum can tell. Raises UserError if it is none of these,
    or outside 1 to n.
    """
    if isinstance(k, str):
        energy_share(k)
        return None
    k = float(k) if isinstance(k, np.floating) else k
    share = isinstance(k, float) and 0 < k < 1
    whole = not isinstance(k, bool) and float(k).is_integer()  # infinity and NaN are none either
    if not share and not whole:
        raise UserError(f"k = {k} is neither a whole number nor a share below 1: give 128 or 0.04")
    count = round(k * n) if share else int(k)
    if not 1 <= count <= n:
        raise UserError(
            f"k = {k} means {count} directions, outside 1 to {n}, the latent's dimension: give a "
            "whole number or a share (0.04) inside"
        )
    return count


def energy_share(k: str) -> float:
    """Return the share in "energy:SHARE". Raises UserError if it is not in (0, 1)."""
    name, _, text = k.partition(":")
    try:
        share = float(text) if name == "energy" else math.nan
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise UserError(
            f"k = '{k}' is not understood: give a number (128), a share of the dimension (0.04) "
            "or, between 0 and 1, of the energy (energy:0.8)"
        )
    return share


def k_for_energy(jacobian: Jacobian, share: float) -> int:
    """Return the fewest directions that hold `share` of the energy, the median over the batch.

    The energy of J is the sum of its squared singular values. Forms J, by min(m, n) products.
    """
    squares = exact_spectrum(jacobian.dense()).square()
    captured = squares.cumsum(1) / squares.sum(1, keepdim=True)
    counts = (captured < share).sum(1) + 1
    return int(counts.median())


def find_directions(
    jacobian: Jacobian,
    kind: Literal["top", "middle", "bottom"],
    k: int,
    generator: torch.Generator,
    *,
    measure: Measure = "energy",
    tolerance: float = 0.01,
) -> Subspace:
    """Return k orthonormal directions of the latent for each image of the batch.

    kind: `top` (of the largest singular values, by the block Krylov solver); `middle` (about
    the middle of the min(m, n) singular values that can differ from 0) and `bottom` (of all n),
    by a dense eigendecomposition: tens of times the cost. `random_directions` need no Jacobian,
    and `none` has no directions: neither is for this function.
    """
    if kind == "top":
        return jacobian.top_subspace(k, generator, measure, tolerance)
    dense = jacobian.dense()
    if kind == "bottom" and jacobian.n - jacobian.m >= k:
        return subspace_of_dense(dense, _null_directions(dense, k, generator))
    return subspace_of_dense(dense, exact_right_singular_vectors(dense, k, kind))


def random_directions(
    x: Float[Tensor, "batch *shape"], k: int, generator: torch.Generator
) -> Subspace:
    """Return k orthonormal directions for each of x, uniform, on the CPU; singular values NaN."""
    gaussian = torch.randn(len(x), x[0].numel(), k, generator=generator)
    unknown = torch.full((len(x), k), torch.nan)
    return Subspace(
        V=torch.linalg.qr(gaussian.to(x.dtype))[0],
        singular_values=unknown,
        residuals=unknown,
        error=torch.zeros(len(x), dtype=torch.float64),
        products=0,
    )


def _null_directions(
    dense: Float[Tensor, "batch m n"], k: int, generator: torch.Generator
) -> Float[Tensor, "batch n k"]:
    """Return k random directions of J's null space: as bottom as any, without an SVD."""
    rows, _ = torch.linalg.qr(dense.mT)  # (B, n, m), spans all that J sees
    V = torch.randn(len(dense), dense.shape[2], k, generator=generator).to(dense)
    for _ in range(2):
        V, _ = torch.linalg.qr(V - rows @ (rows.mT @ V))
    return V


def project_out(
    x: Float[Tensor, "batch *shape"], V: Float[Tensor, "batch n k"]
) -> Float[Tensor, "batch *shape"]:
    """Return x - V (V^T x), equation 2 of the paper. No norm is restored, no V V^T is formed."""
    flat = x.flatten(1).unsqueeze(2)  # (B, n, 1)
    return x - (V @ (V.mT @ flat)).reshape(x.shape)
