"""Linear CKA, and a queue that gives it enough samples."""

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.distill.losses.numerics import at_least_float32
from clarep.errors import UserError


@at_least_float32
def linear_cka(
    x: Float[Tensor, "batch d1"], y: Float[Tensor, "batch d2"], unbiased: bool = False
) -> Float[Tensor, ""]:
    """Return the linear centred kernel alignment of two sets of features; a loss is 1 - CKA.

    Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", arXiv
    1905.00414: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), with the Gram matrices K = X X^T and
    L = Y Y^T. HSIC is <HKH, HLH>, H the centring matrix, or without bias <K~, L~>, where ~ sets
    the diagonal to 0 and centres the rest (Song et al. 2012, JMLR 13, eq. 5, written as an inner
    product by Szekely & Rizzo 2014; used for CKA by Nguyen et al. 2021, arXiv 2010.15327).
    The biased estimate grows as B falls below D: independent Gaussians reach 0.9 at B = D / 10.

    Args:
        x: (B, D1) features.
        y: (B, D2) features of the same samples. Gradients flow into both.
        unbiased: take the estimator without bias.

    Returns:
        A scalar in [0, 1], or in [-1, 1] if unbiased; unchanged by shift, rotation and isotropic
        scale of either side. Where a side does not vary CKA is undefined: 0 is returned, with
        zero gradient.

    Raises:
        UserError: if unbiased with fewer than 4 samples.

    Examples:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
        >>> round(float(linear_cka(x, 2 * x.flip(1))), 4)
        1.0
        >>> round(float(linear_cka(x, x[:, :1], unbiased=True)), 4)
        0.866
    """
    if unbiased and len(x) < 4:
        raise UserError(
            f"unbiased CKA needs 4 samples and got {len(x)}: "
            "give a larger batch, a feature queue, or the biased estimate"
        )
    k, l = _direction(_centred_gram(x, unbiased)), _direction(_centred_gram(y, unbiased))  # noqa: E741
    return (k * l).sum()


def _centred_gram(x: Tensor, unbiased: bool) -> Tensor:
    """Return HKH, or K~ if unbiased, of features brought to unit Frobenius norm; (B, B)."""
    centred = x - x.mean(dim=0)
    # CKA does not see scale, so the gradient need not know of this one.
    size, whole = (
        torch.linalg.vector_norm(part.detach(), dtype=torch.float64) for part in (centred, x)
    )
    rounding = 10 * torch.finfo(x.dtype).eps * whole
    scaled = torch.where(size > rounding, centred / torch.where(size > rounding, size, 1.0), 0.0)
    gram = scaled @ scaled.T
    return _u_centred(gram) if unbiased else gram


def _u_centred(gram: Tensor) -> Tensor:
    n = len(gram)
    gram = gram - torch.diag(gram.diagonal())
    rows = gram.sum(dim=1) / (n - 2)
    centred = gram - rows[:, None] - rows[None, :] + gram.sum() / ((n - 1) * (n - 2))
    return centred - torch.diag(centred.diagonal())


def _direction(gram: Tensor) -> Tensor:
    """Divide a Gram matrix of unit features by its norm; zero if that is rounding alone."""
    size = torch.linalg.matrix_norm(gram)
    varies = size > 10 * torch.finfo(gram.dtype).eps
    return torch.where(varies, gram / torch.where(varies, size, 1.0), 0.0)


class FeatureQueue:
    """The last `size` samples' features of student and teacher, for batches too small for CKA.

    Earlier student features are as the student was then, and detached: only the batch at hand
    has a gradient. Keep the queue short (some batches), so that they are not too old.
    """

    def __init__(self, size: int) -> None:
        """Take a number of samples; 0 keeps nothing."""
        self.size = size
        self.kept: dict[str, Tensor] = {}  # x and y, for a checkpoint; nothing before a batch

    def extend(
        self, x: Float[Tensor, "batch d1"], y: Float[Tensor, "batch d2"]
    ) -> tuple[Float[Tensor, "more d1"], Float[Tensor, "more d2"]]:
        """Return both with the earlier pairs behind them, then keep this batch, oldest out first.

        Args:
            x: (B, D1) student features.
            y: (B, D2) teacher features of the same samples.

        Examples:
            >>> import torch
            >>> queue = FeatureQueue(8)
            >>> x, y = torch.zeros(4, 2), torch.ones(4, 3)
            >>> [len(queue.extend(x, y)[0]) for _ in range(4)]
            [4, 8, 12, 12]
        """
        if self.kept:
            x, y = torch.cat([x, self.kept["x"]]), torch.cat([y, self.kept["y"]])
        self.kept = {name: t[: self.size].detach().clone() for name, t in (("x", x), ("y", y))}
        return x, y
