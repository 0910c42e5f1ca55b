"""The top right singular subspace of a batch of operators known by their products alone.

Block Krylov (Golub-Kahan) with full reorthogonalisation and Rayleigh-Ritz (Musco & Musco 2015,
arXiv 1504.05477; Halko, Martinsson & Tropp 2011). It sees two callables, never a network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError

# A new block this small, against the root mean square singular value, may be amplified rounding.
_NEARLY_CLOSED = 1e-2
Product = Callable[[Tensor], Tensor]
Measure = Literal["energy", "angle"]


@dataclass(frozen=True)
class Subspace:
    """The top k right singular vectors of each operator, and how good they are."""

    V: Float[Tensor, "batch n k"]
    """Orthonormal columns, largest singular value first."""
    singular_values: Float[Tensor, "batch k"]
    """|J v| of each column: a lower bound of the true singular value."""
    residuals: Float[Tensor, "batch k"]
    """|J^T J v - sigma^2 v| of each column: 0 for a true singular vector."""
    error: Float[Tensor, " batch"]
    """Estimated distance from the optimum in the measure that stopped the solver: the missing
    share of the optimal energy, or the worst principal angle in radians."""
    products: int
    """Directions that each image was multiplied with, J and J^T counted alike."""


def top_right_singular_subspace(
    matmat: Product,
    rmatmat: Product,
    shape: tuple[int, int],
    k: int,
    *,
    generator: torch.Generator,
    batch: int = 1,
    measure: Measure = "energy",
    tolerance: float = 0.01,
    start: Float[Tensor, "batch n _"] | None = None,
    block_size: int | None = None,
    max_products: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Subspace:
    """Return the top k right singular vectors of `batch` operators J at once.

    Args:
        matmat: V (B, n, r) -> J V (B, m, r).
        rmatmat: U (B, m, r) -> J^T U (B, n, r).
        shape: (m, n) of J.
        k: how many directions, 1 <= k <= n.
        generator: of the random start.
        batch: B.
        measure: what `tolerance` bounds. `energy`: the share of the optimal captured energy
            sum sigma_i^2 that may be missing. `angle`: the worst principal angle to the true
            subspace, radians; only meaningful where sigma_k > sigma_(k+1).
        tolerance: bound on every image's error, which the solver estimates from its own
            progress; all images go on until the last one meets it.
        start: a guess of the subspace (from a neighbouring noise level, say), any width; where
            it is wider than a block, the directions added later still come by the block.
        block_size: directions added at a time; by default a sixteenth of k, at least 8:
            small blocks need the fewest products (docs/solver.md), large ones are faster each.
        max_products: stop once they are used, whatever the error; k directions need about 4 k.
        dtype, device: of the products.

    Raises:
        UserError: if k is not in [1, n], J is zero, or a product is not finite.
    """
    m, n = shape
    if not 1 <= k <= n:
        raise UserError(f"k = {k} is outside 1 to {n}, the dimension of the latent: choose fewer")
    width = min(block_size or max(8, math.ceil(k / 16)), n, m)
    given = 0 if start is None else start.shape[2]
    random = torch.randn(batch, n, max(0, width - given), generator=generator, dtype=dtype)
    random = random.to(device)
    first = _finite(matmat(random if start is None else torch.cat([start, random], dim=2)))
    scale = first.norm(dim=1).amax(dim=1) / math.sqrt(n)  # about the root mean square of J
    if bool((scale == 0).any()):
        raise UserError(
            "the Jacobian is zero: the features do not depend on x, so there is no direction to "
            "find; choose another tap or check the teacher"
        )
    # Below it a direction is rounding, which every reorthogonalisation of small rests amplifies.
    floor = torch.finfo(dtype).eps ** (2 / 3) * scale
    left, _, _ = _extend(first.new_zeros(batch, m, 0), first, floor, generator)
    back = backs = _finite(rmatmat(left))  # backs = J^T left
    used = first.shape[2] + left.shape[2]
    right, _, kept_right = _extend(first.new_zeros(batch, n, 0), back, floor, generator)
    small = first.new_zeros(batch, left.shape[2], 0, dtype=torch.float64)  # J right = left small
    progress = _Progress(measure)
    newest = right
    narrowed = False  # right lacks a part of backs, so that nothing tells a closed space
    while True:
        image = _finite(matmat(newest))
        nothing_left = _closed(kept_right) & _vanishes(image, floor)
        left_new, coefficients, kept_left = _extend(left, image, floor, generator)
        grown = torch.nn.functional.pad(small, (0, 0, 0, left_new.shape[2]))
        small = torch.cat([grown, coefficients.double()], dim=2)
        left = torch.cat([left, left_new], dim=2)
        back = _finite(rmatmat(left_new)) if left_new.shape[2] else image.new_zeros(batch, n, 0)
        backs = torch.cat([backs, back], dim=2)
        nothing_left |= _closed(kept_left) & _vanishes(back, floor)
        used += image.shape[2] + left_new.shape[2]
        right_new, into, kept_right = _extend(right, back, floor, generator, width)
        narrowed = narrowed or back.shape[2] > right_new.shape[2]

        # A Krylov space that closes before it is complete was started from fewer directions than
        # share a singular value, and holds only some of those; from k it holds the top k.
        closing = ~kept_left.all(dim=1) | ~kept_right.all(dim=1)
        for rest in (coefficients[:, -left_new.shape[2] :], into[:, right.shape[2] :]):
            closing |= rest.flatten(1).norm(dim=1) <= _NEARLY_CLOSED * scale
        if width < k and bool((closing & ~nothing_left).any()):
            again = top_right_singular_subspace(
                matmat,
                rmatmat,
                shape,
                k,
                generator=generator,
                batch=batch,
                measure=measure,
                tolerance=tolerance,
                block_size=k,
                max_products=None if max_products is None else max(1, max_products - used),
                dtype=dtype,
                device=device,
            )
            return replace(again, products=again.products + used)

        if right.shape[2] >= k:
            values, vectors = _ritz(small, k)
            exact = nothing_left | _closed(kept_left) | _closed(kept_right)
            if narrowed:
                exact = torch.full_like(exact, right_new.shape[2] == 0)
            error = torch.where(exact, 0, progress.update(values, vectors))
            spent = max_products is not None and used >= max_products
            if spent or bool((error <= tolerance).all()):
                V = right @ vectors.to(right.dtype)
                squares = values[:, None].to(V.dtype) ** 2
                beyond = backs @ (small @ vectors).to(V.dtype) - V * squares
                return Subspace(
                    V=V,
                    singular_values=values.to(V.dtype),
                    residuals=beyond.norm(dim=1),
                    error=error,
                    products=used,
                )
        right = torch.cat([right, right_new], dim=2)
        newest = right_new


def _closed(kept: Tensor) -> Tensor:
    """Tell for which images (B,) a block brought nothing new; also where the space is full."""
    return ~kept.any(dim=1)


def _vanishes(image: Tensor, floor: Tensor) -> Tensor:
    """Tell for which images (B,) a product of random directions is zero but for rounding."""
    small: Tensor = image.norm(dim=1) <= floor[:, None] * math.sqrt(image.shape[1])
    return small.all(dim=1)


def exact_right_singular_subspace(
    jacobian: Float[Tensor, "batch m n"], k: int, kind: Literal["top", "middle", "bottom"] = "top"
) -> Subspace:
    """Return k right singular vectors of dense Jacobians, by SVD in float64.

    kind: which part of all n directions, those of singular value 0 included: the largest, the
    smallest, or k about index n / 2. Raises UserError if k is not in [1, n].
    """
    n = jacobian.shape[2]
    if not 1 <= k <= n:
        raise UserError(f"k = {k} is outside 1 to {n}, the dimension of the latent: choose fewer")
    double = jacobian.double()
    if not torch.isfinite(double).all():
        raise UserError("the Jacobian is not finite: check the teacher's weights")
    _, values, rows = torch.linalg.svd(double, full_matrices=True)
    values = torch.nn.functional.pad(values, (0, n - values.shape[1]))
    first = {"top": 0, "middle": (n - k) // 2, "bottom": n - k}[kind]
    chosen = slice(first, first + k)
    V, kept = rows[:, chosen].mT, values[:, chosen]
    residuals = (double.mT @ (double @ V) - kept[:, None] ** 2 * V).norm(dim=1)
    dtype = jacobian.dtype
    return Subspace(
        V=V.to(dtype),
        singular_values=kept.to(dtype),
        residuals=residuals.to(dtype),
        error=torch.zeros(len(V), dtype=torch.float64),
        products=min(jacobian.shape[1:]),
    )


def _finite(block: Tensor) -> Tensor:
    if not torch.isfinite(block).all():
        raise UserError(
            "a Jacobian product is not finite (NaN or infinity): check the teacher's weights and "
            "run its Jacobian in float32"
        )
    return block


def _extend(
    basis: Tensor,
    block: Tensor,
    floor: Tensor,
    generator: torch.Generator,
    width: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormalise `block` against `basis` and itself.

    Returns (new, coefficients, kept) with block = [basis, new] coefficients, `new` of the
    block's width or `width`, or less where the space ends. What is numerically zero is replaced
    by random directions (with coefficient 0), so that a rank-deficient J loses none; `kept`
    (B, width) is False for those.
    """
    batch, n, have = basis.shape
    wide = min(block.shape[2] if width is None else width, n - have)
    onto = basis.mT @ block
    rest = block - basis @ onto
    correction = basis.mT @ rest
    rest = rest - basis @ correction
    onto = onto + correction
    q, r = torch.linalg.qr(rest)
    u, s, _ = torch.linalg.svd(r, full_matrices=False)
    kept = (s > floor[:, None])[:, None, :wide]
    new = torch.zeros(batch, n, wide, dtype=block.dtype, device=block.device)
    count = min(wide, s.shape[1])
    kept = torch.nn.functional.pad(kept, (0, wide - kept.shape[2]))
    new[:, :, :count] = (q @ u)[:, :, :count]
    new = _orthonormal(torch.where(kept, new, 0), basis, kept, generator)
    # Exact by projection, whatever the second round did to the columns.
    return new, torch.cat([onto, new.mT @ rest], dim=1), kept.flatten(1)


def _orthonormal(new: Tensor, basis: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
    """Clean kept columns against the basis once more and fill the others at random."""
    if new.shape[2] == 0:
        return new
    new = new - basis @ (basis.mT @ new)
    if not bool(kept.all()):
        filler = torch.randn(new.shape, generator=generator, dtype=new.dtype).to(new.device)
        for _ in range(2):
            filler = filler - basis @ (basis.mT @ filler)
            filler = filler - new @ (new.mT @ filler)
            filler, _ = torch.linalg.qr(filler)
        # Kept columns come first; the last of `filler` are rounding where the space ends.
        new = torch.where(kept, new, filler.flip(2))
    q, r = torch.linalg.qr(new)
    signed: Tensor = q * torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None, :]
    return signed


def _ritz(small: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k singular values (B, k) and right singular vectors (B, d, k) of the projected J."""
    _, vectors = torch.linalg.eigh(small.mT @ small)
    vectors = vectors[:, :, vectors.shape[2] - k :]
    # From the vectors, as the eigenvalues' roots lose half the digits; hence sorted here.
    values, order = (small @ vectors).norm(dim=1).sort(dim=1, descending=True)
    return values, vectors.take_along_dim(order[:, None], dim=2)


class _Progress:
    """Estimate how far the Ritz subspace is from the optimum, from how it has moved.

    Between expansions the missing energy (or the angle) shrinks about geometrically, so what
    is still to come is the last change times ratio / (1 - ratio).
    """

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._last: tuple[Tensor, Tensor] | None = None
        self._change: Tensor | None = None

    def update(self, values: Tensor, vectors: Tensor) -> Tensor:
        """Return the estimated error of each image, (B,), float64; infinite at first."""
        error = torch.full_like(values[:, 0], math.inf)
        if self._last is not None:
            change = self._distance(values, vectors, *self._last)
            if self._change is not None:
                ratio = (change / self._change.clamp_min(1e-300)).clamp(0.5, 0.9)
                error = change * ratio / (1 - ratio)
            self._change = change
        self._last = values, vectors
        return error

    def _distance(
        self, values: Tensor, vectors: Tensor, before: Tensor, vectors_before: Tensor
    ) -> Tensor:
        if self._measure == "energy":
            energy = values.square().sum(1)
            return (energy - before.square().sum(1)).clamp_min(0) / energy
        cosines = torch.linalg.svdvals(vectors[:, : vectors_before.shape[1]].mT @ vectors_before)
        # The sine, not the arc cosine: accurate for small angles.
        sine: Tensor = (1 - cosines[:, -1].clamp(0, 1) ** 2).clamp_min(0).sqrt()
        return sine
