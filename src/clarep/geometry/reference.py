"""The field's own scheme for singular directions, kept only as the benchmark's named reference.

Nothing in clarep uses it to find anything: see `clarep.geometry.subspace` for that.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.geometry.dense import check_k
from clarep.geometry.krylov import Product
from clarep.geometry.precision import differentiable

MIN_ITERATIONS = 10
MAX_ITERATIONS = 100
_CHUNK = 25
_STOP_ATOL = 1e-3


def field_products(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "1 ..."]
) -> tuple[Product, Product]:
    """Return V -> J V and U -> J^T U of one image, computed as the field does.

    J V repeats x for each of 25 directions and differentiates a -> f(x + a v) forward at
    a = 0; J^T U goes row by row, one reverse pass each.

    Args:
        function: maps (B, *in) to (B, *out).
        x: where J is taken, a batch of one, (1, *in).
    """

    def matmat(V: Tensor) -> Tensor:
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        columns = []
        for part in torch.split(V[0].mT, _CHUNK):
            v = part.reshape(-1, *x.shape[1:])  # (r, *in)
            repeated = x.expand(len(v), *x.shape[1:])

            def line(a: Tensor, v: Tensor = v, repeated: Tensor = repeated) -> Tensor:
                return function(repeated + a * v)

            with torch.no_grad(), differentiable():
                columns.append(torch.func.jacfwd(line)(zero).flatten(1))
        return torch.cat(columns).mT[None]

    def rmatmat(U: Tensor) -> Tensor:
        rows = U[0].mT  # (r, m)

        def dots(x: Tensor) -> Tensor:
            return rows @ function(x).flatten()

        with torch.enable_grad(), differentiable():
            jacobian: Tensor = torch.autograd.functional.jacobian(dots, x)
        return jacobian.flatten(1).mT[None]  # (1, n, r)

    return matmat, rmatmat


def subspace_iteration(
    products: tuple[Product, Product],
    n: int,
    k: int,
    *,
    generator: torch.Generator,
    max_iterations: int = MAX_ITERATIONS,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[Float[Tensor, "1 n k"], Float[Tensor, "1 k"], int]]:
    """Yield (V, singular values, products so far) after each iteration, for one image.

    Park et al. 2023, "Understanding the Latent Space of Diffusion Models through the Lens of
    Riemannian Geometry" (arXiv 2307.12868), Algorithm 1: Gaussian start, QR, then U = J V and
    the SVD of U^T J, without oversampling. It ends when no element of V has moved by more
    than 1e-3 after at least 10 iterations, which a flipped sign defeats, or after
    `max_iterations`.

    Args:
        products: V (1, n, k) -> J V (1, m, k) and U (1, m, k) -> J^T U (1, n, k);
            `field_products` for the field's own.
        n: columns of J.
        k: how many directions, 1 <= k <= n.
        generator: of the random start.
        max_iterations: end there.
        dtype: of the products.

    Raises:
        UserError: if k is not in [1, n].
    """
    check_k(k, n)
    matmat, rmatmat = products
    V, _ = torch.linalg.qr(torch.randn(1, n, k, generator=generator, dtype=dtype))
    for iteration in range(1, max_iterations + 1):
        back = rmatmat(matmat(V))  # J^T J V
        _, squares, rows = torch.linalg.svd(back.mT, full_matrices=False)
        before, V = V, rows.mT
        yield V, squares.sqrt(), 2 * k * iteration
        if iteration >= MIN_ITERATIONS and torch.allclose(V, before, atol=_STOP_ATOL):
            return
