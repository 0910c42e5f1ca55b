"""Which directions are projected out: CLARID's top ones, and the controls beside them."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian
from clarep.geometry.subspace import (
    Measure,
    Subspace,
    top_right_singular_subspace,
)

Kind = Literal["top", "bottom", "middle", "random", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_ENERGY = "energy:"


def parse_k(k: int | float | str, n: int) -> int | None:
    """Return how many of n directions `k` stands for; None for a share of energy.

    k: a number (128), a share of the dimension below 1 (0.04), or a share of the energy
    ("energy:0.8"), which only the spectrum can tell. Raises UserError if it is none of these,
    or outside 1 to n.
    """
    if isinstance(k, str):
        energy_share(k)
        return None
    share = isinstance(k, float) and 0 < k < 1
    if not share and not float(k).is_integer():  # infinity and NaN are no integers either
        raise UserError(f"k = {k} is neither a whole number nor a share below 1: give 128 or 0.04")
    count = round(k * n) if share else int(k)
    if not 1 <= count <= n:
        raise UserError(
            f"k = {k} means {count} directions, outside 1 to {n}, the latent's dimension: "
            "choose a number or share inside"
        )
    return count


def energy_share(k: str) -> float:
    """Return the share in "energy:SHARE". Raises UserError if it is not in (0, 1)."""
    try:
        share = float(k.removeprefix(_ENERGY)) if k.startswith(_ENERGY) else -1.0
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(
            f"k = '{k}' is not understood: give a number (128), a share of the dimension (0.04) "
            f"or a share of the energy ({_ENERGY}0.8)"
        )
    return share


def k_for_energy(jacobian: Jacobian, share: float) -> int:
    """Return the fewest directions that hold `share` of the energy, the median over the batch.

    The energy of J is the sum of its squared singular values. Forms J, by min(m, n) products.
    """
    dense = jacobian.dense().double()
    gram = dense @ dense.mT if dense.shape[1] < dense.shape[2] else dense.mT @ dense
    squares = torch.linalg.eigvalsh(gram).flip(1).clamp_min(0)
    captured = squares.cumsum(1) / squares.sum(1, keepdim=True)
    counts = (captured < share).sum(1) + 1
    return int(counts.median())


def find_directions(
    jacobian: Jacobian,
    kind: Kind,
    k: int,
    generator: torch.Generator,
    *,
    measure: Measure = "energy",
    tolerance: float = 0.01,
) -> Subspace:
    """Return k orthonormal directions of the latent for each image of the batch.

    kind: `top` (of the largest singular values, by the block Krylov solver); `middle` (about
    the middle of the min(m, n) singular values that can differ from 0) and `bottom` (of all n),
    by a dense eigendecomposition: tens of times the cost; `random` (uniform, singular values
    not known: NaN). `none` has no directions and is not for this function.
    """
    if kind == "top":
        return top_right_singular_subspace(
            jacobian.matmat,
            jacobian.rmatmat,
            (jacobian.m, jacobian.n),
            k,
            generator=generator,
            batch=jacobian.batch,
            measure=measure,
            tolerance=tolerance,
            dtype=jacobian.dtype,
            device=jacobian.device,
        )
    if kind == "bottom" and jacobian.n - jacobian.m >= k:
        return _null_directions(jacobian.dense(), k, generator)
    if kind in ("middle", "bottom"):
        return _spectral_directions(jacobian.dense(), kind, k)
    gaussian = torch.randn(jacobian.batch, jacobian.n, k, generator=generator)
    unknown = torch.full((jacobian.batch, k), torch.nan)
    return Subspace(
        V=torch.linalg.qr(gaussian.to(jacobian.device, jacobian.dtype))[0],
        singular_values=unknown,
        residuals=unknown,
        error=torch.zeros(jacobian.batch, dtype=torch.float64),
        products=0,
    )


def _null_directions(
    dense: Float[Tensor, "batch m n"], k: int, generator: torch.Generator
) -> Subspace:
    """Return k random directions of J's null space: as bottom as any, without an SVD."""
    rows, _ = torch.linalg.qr(dense.mT)  # (B, n, m), spans all that J sees
    V = torch.randn(len(dense), dense.shape[2], k, generator=generator).to(dense)
    for _ in range(2):
        V, _ = torch.linalg.qr(V - rows @ (rows.mT @ V))
    image = dense @ V
    return Subspace(
        V=V,
        singular_values=image.norm(dim=1),
        residuals=(dense.mT @ image).norm(dim=1),
        error=torch.zeros(len(dense), dtype=torch.float64),
        products=min(dense.shape[1:]),
    )


def _spectral_directions(
    dense: Float[Tensor, "batch m n"], kind: Literal["middle", "bottom"], k: int
) -> Subspace:
    """Return directions of the middle or the end of the spectrum, in float64.

    Half the time of an SVD; singular values below 1e-8 of the largest are not told apart.
    """
    # Image by image: a batch of n x n eigenproblems would not fit in memory.
    V = torch.stack([_eigenvectors(jacobian.double(), kind, k) for jacobian in dense])
    V = V.to(dense.dtype)
    image = dense @ V
    values = image.norm(dim=1)
    return Subspace(
        V=V,
        singular_values=values,
        residuals=(dense.mT @ image - V * values[:, None] ** 2).norm(dim=1),
        error=torch.zeros(len(dense), dtype=torch.float64),
        products=min(dense.shape[1:]),
    )


def _eigenvectors(
    jacobian: Float[Tensor, "m n"], kind: Literal["middle", "bottom"], k: int
) -> Float[Tensor, "n k"]:
    """Return k eigenvectors of J^T J, largest eigenvalue first, from the named part."""
    m, n = jacobian.shape
    if kind == "middle" and k <= m < n:
        basis, _ = torch.linalg.qr(jacobian.mT)  # (n, m): the rest of the spectrum is 0
        reduced: Tensor = basis @ _eigenvectors(jacobian @ basis, kind, k)
        return reduced
    _, vectors = torch.linalg.eigh(jacobian.mT @ jacobian)  # ascending
    first = 0 if kind == "bottom" else n - k - (n - k) // 2
    part: Tensor = vectors[:, first : first + k].flip(1)
    return part


def project_out(
    x: Float[Tensor, "batch *shape"], V: Float[Tensor, "batch n k"]
) -> Float[Tensor, "batch *shape"]:
    """Return x - V (V^T x), equation 2 of the paper. No norm is restored, no V V^T is formed."""
    flat = x.flatten(1).unsqueeze(2)  # (B, n, 1)
    return x - (V @ (V.mT @ flat)).reshape(x.shape)
