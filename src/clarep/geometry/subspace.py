"""The top right singular subspace of a batch of operators known by their products alone.

Block Krylov (Golub-Kahan) with full reorthogonalisation and Rayleigh-Ritz (Musco & Musco 2015,
arXiv 1504.05477; Halko, Martinsson & Tropp 2011). It sees two callables, never a network.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.geometry.dense import check_k, exact_right_singular_vectors
from clarep.geometry.krylov import Krylov, Product, check_not_zero, finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measure = Literal["energy", "angle"]
_FLAT = 2.0  # see _EnergyProgress
_SAFETY = 1.5  # see _Progress
_MANY_IMAGES = 8  # of a batch that fills the processor with small blocks too


@dataclass(frozen=True)
class Subspace:
    """Right singular vectors of each operator, and how good they are."""

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

    def figure(self) -> "Figure":
        """Draw the singular values; raises UserError where they are not known."""
        from clarep.geometry.spectrum_figure import spectrum_figure

        return spectrum_figure(self.singular_values)


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
    exact: bool = False,
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
            it is wider than a block, the directions added later still come by the block. A
            random direction is added to it, as a guess may be blind.
        block_size: directions added at a time; small blocks need the fewest products
            (docs/solver.md), large ones are faster each where the batch is small. By default
            a quarter of k, of 8 images or more an eighth; at least 8.
        max_products: stop once they are used, whatever the error; k directions need about 4 k.
        exact: form J by min(m, n) products instead, whatever the options above say, and take
            its singular vectors in float64. For small n, and to check the solver.
        dtype, device: of the products.

    Raises:
        UserError: if k is not in [1, n], J is zero, or a product is not finite.
    """
    m, n = shape
    check_k(k, n)
    if exact:
        eye = torch.eye(min(m, n), dtype=dtype, device=device).expand(batch, -1, -1)
        dense = finite(rmatmat(eye).mT if m < n else matmat(eye))
        check_not_zero(dense.flatten(1).norm(dim=1))
        return subspace_of_dense(dense, exact_right_singular_vectors(dense, k))
    share = 8 if batch >= _MANY_IMAGES else 4
    width = min(block_size or max(8, math.ceil(k / share)), m, n)
    given = 0 if start is None else start.shape[2]
    columns = max(0 if start is None else 1, width - given)
    random = torch.randn(batch, n, columns, generator=generator, dtype=dtype).to(device)
    first = random if start is None else torch.cat([start, random], dim=2)
    krylov = Krylov(matmat, rmatmat, first, width, generator)
    progress = _progress(measure, k, guessed=start is not None)
    found = _climb(krylov, k, progress, tolerance, max_products, may_close=width >= k)
    if found is not None:
        return found

    # Started from k directions, a space that closes holds the top k.
    used = krylov.products
    del krylov
    wide = min(k, m, n)
    first = torch.randn(batch, n, wide, generator=generator, dtype=dtype).to(device)
    krylov = Krylov(matmat, rmatmat, first, wide, generator)
    left_over = None if max_products is None else max(1, max_products - used)
    progress = _progress(measure, k, guessed=False)
    found = _climb(krylov, k, progress, tolerance, left_over, may_close=True)
    assert found is not None
    return replace(found, products=found.products + used)


def subspace_of_dense(
    jacobian: Float[Tensor, "batch m n"], V: Float[Tensor, "batch n k"]
) -> Subspace:
    """Return exact directions V of dense Jacobians with their singular values and residuals."""
    image = jacobian @ V  # (B, m, k)
    values = image.norm(dim=1)
    return Subspace(
        V=V,
        singular_values=values,
        residuals=(jacobian.mT @ image - V * values[:, None] ** 2).norm(dim=1),
        error=torch.zeros(len(V), dtype=torch.float64, device=V.device),
        products=min(jacobian.shape[1:]),
    )


def _climb(
    krylov: Krylov,
    k: int,
    progress: "_EnergyProgress | _Progress",
    tolerance: float,
    max_products: int | None,
    *,
    may_close: bool,
) -> Subspace | None:
    """Grow the space until its top k are good enough; None if it closes first and may not."""
    while True:
        krylov.expand()
        if krylov.closes_early and not may_close:
            return None
        if krylov.Q.shape[2] < k:
            progress.grow(krylov)
            continue
        values, vectors = _ritz(krylov.T, k)
        error = torch.where(krylov.exact, 0, progress.update(krylov, values, vectors))
        spent = max_products is not None and krylov.products >= max_products
        if spent or bool((error <= tolerance).all()):
            return _read_off(krylov, values, vectors, error)


def _read_off(krylov: Krylov, values: Tensor, vectors: Tensor, error: Tensor) -> Subspace:
    """Lift Ritz vectors (B, d, k) of T to directions of the latent."""
    V = krylov.Q @ vectors.to(krylov.Q.dtype)
    beyond = krylov.JtP @ (krylov.T @ vectors).to(V.dtype) - V * values[:, None].to(V) ** 2
    return Subspace(
        V=V,
        singular_values=values.to(V.dtype),
        residuals=beyond.norm(dim=1),
        error=error,
        products=krylov.products,
    )


def _ritz(T: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k singular values (B, k) and right singular vectors (B, d, k) of the projected J."""
    _, vectors = torch.linalg.eigh(T.mT @ T)
    vectors = vectors[:, :, vectors.shape[2] - k :]
    # From the vectors, as the eigenvalues' roots lose half the digits; hence sorted here.
    values, order = (T @ vectors).norm(dim=1).sort(dim=1, descending=True)
    return values, vectors.take_along_dim(order[:, None], dim=2)


def _progress(measure: Measure, k: int, *, guessed: bool) -> "_EnergyProgress | _Progress":
    return _Progress(measure) if guessed or measure == "angle" else _EnergyProgress(k)


class _EnergyProgress:
    """Estimate how much of the optimal energy is missing, from how the energy has grown.

    The space P on J's left is half a step ahead: its energy, known without a product, is one that
    the next step will reach at least. What lies beyond it is to come: from step to step its gains
    shrink about geometrically, so that is the last gain times ratio / (1 - ratio).

    On a flat spectrum the missing energy falls as the inverse square of the products, and the
    formula gives 2/3 of it, by a ratio that is noisy. There new directions bring much and a power
    step nothing: `beyond`, by which the larger P exceeds Q, over `within`, by which Q
    exceeds what P had at the same size, tells it. The estimate is raised by that, up
    to _FLAT; where the spectrum falls it stays as it is.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._ahead: Tensor | None = None
        self._gain: Tensor | None = None

    def grow(self, krylov: Krylov) -> Tensor | None:
        """Take note of the space; return the energy of P before, if it held k directions."""
        before, ahead = self._ahead, krylov.T_ahead
        if ahead.shape[1] >= self._k:
            squares = torch.linalg.eigvalsh(ahead @ ahead.mT)  # (B, a), ascending
            self._ahead = squares[:, -self._k :].clamp_min(0).sum(1)
        return before

    def update(self, krylov: Krylov, values: Tensor, vectors: Tensor) -> Tensor:
        """Return the estimated error of each image, (B,), float64; infinite at first."""
        before, energy = self.grow(krylov), values.square().sum(1)
        error = torch.full_like(energy, math.inf)
        if before is None or self._ahead is None:
            return error
        within = (energy - before).clamp_min(0) / energy
        beyond = (self._ahead - energy).clamp_min(0) / energy
        gain = within + beyond
        if self._gain is not None:
            ratio = (gain / self._gain.clamp_min(1e-300)).clamp(0.3, 0.9)
            raised = (beyond / within.clamp_min(1e-300)).clamp(1, _FLAT)
            error = beyond + raised * gain * ratio / (1 - ratio)
        self._gain = gain
        return error


class _Progress:
    """Estimate how far the Ritz subspace is from the optimum, from how it has moved alone.

    For the angle, and for the energy of a space that started from a guess, whose P says
    little. Between expansions the missing energy (or the angle) shrinks about geometrically, so
    what is still to come is the last change times ratio / (1 - ratio). The larger of the last two
    ratios is taken, as one alone is noisy, and _SAFETY for flat spectra.
    """

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._last: tuple[Tensor, Tensor] | None = None
        self._change: Tensor | None = None
        self._ratio: Tensor | None = None

    def grow(self, krylov: Krylov) -> None:
        """Take note of a space that is too small yet: nothing to do."""

    def update(self, krylov: Krylov, values: Tensor, vectors: Tensor) -> Tensor:
        """Return the estimated error of each image, (B,), float64; infinite at first."""
        error = torch.full_like(values[:, 0], math.inf)
        if self._last is not None:
            change = self._distance(values, vectors, *self._last)
            if self._change is not None:
                ratio = (change / self._change.clamp_min(1e-300)).clamp(0.5, 0.9)
                larger = ratio if self._ratio is None else torch.maximum(ratio, self._ratio)
                error = _SAFETY * change * larger / (1 - larger)
                self._ratio = ratio
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
