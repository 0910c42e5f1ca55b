"""Exact spectra and right singular vectors of Jacobians that are formed, in float64.

By eigenvalues of the smaller Gram matrix, several times quicker than an SVD: exact but for
singular values below 1e-8 of the largest, which are not told apart.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.arrays import check_finite
from clarep.errors import UserError

Part = Literal["top", "middle", "bottom"]


def exact_spectrum(jacobian: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch r"]:
    """Return all min(m, n) singular values of dense Jacobians, float64, largest first.

    Raises UserError if a Jacobian is not finite.
    """
    check_finite(jacobian, "the Jacobian's entries", "check the teacher's weights")
    double = jacobian.double()
    wide = double.shape[-2] < double.shape[-1]
    gram = double @ double.mT if wide else double.mT @ double
    squares: Tensor = torch.linalg.eigvalsh(gram)  # ascending
    return squares.flip(-1).clamp_min(0).sqrt()


def exact_right_singular_vectors(
    jacobian: Float[Tensor, "batch m n"], k: int, part: Part = "top"
) -> Float[Tensor, "batch n k"]:
    """Return k right singular vectors of each dense Jacobian, largest singular value first.

    Args:
        jacobian: J of each image.
        k: how many vectors, 1 <= k <= n.
        part: which ones. `top`: of the largest singular values. `middle`: about the middle of
            the min(m, n) singular values that can differ from 0 (of all n if k is larger than
            that). `bottom`: of the smallest of all n, those that must be 0 included.

    Returns:
        Orthonormal columns, found in float64 and rounded to the Jacobian's dtype.

    Raises:
        UserError: if k is not in [1, n] or a Jacobian is not finite.
    """
    check_k(k, jacobian.shape[2])
    check_finite(jacobian, "the Jacobian's entries", "check the teacher's weights")
    # Image by image: a batch of n x n eigenproblems would not fit in memory.
    vectors = [_eigenvectors(one.double(), k, part) for one in jacobian]
    return torch.stack(vectors).to(jacobian.dtype)


def _eigenvectors(jacobian: Float[Tensor, "m n"], k: int, part: Part) -> Float[Tensor, "n k"]:
    """Return k eigenvectors of J^T J, largest eigenvalue first, from the named part."""
    m, n = jacobian.shape
    if part != "bottom" and k <= m < n:
        basis, _ = torch.linalg.qr(jacobian.mT)  # (n, m): the rest of the spectrum is 0
        reduced: Tensor = basis @ _eigenvectors(jacobian @ basis, k, part)
        return reduced
    _, vectors = torch.linalg.eigh(jacobian.mT @ jacobian)  # ascending
    first = {"top": n - k, "middle": n - k - (n - k) // 2, "bottom": 0}[part]
    chosen: Tensor = vectors[:, first : first + k].flip(1)
    return chosen


def check_k(k: int, n: int) -> None:
    """Raise UserError if k is not in [1, n]."""
    if not 1 <= k <= n:
        raise UserError(f"k = {k} is outside 1 to {n}, the dimension of the latent: choose fewer")
