"""A block Krylov space of a batch of operators J: Golub-Kahan by blocks, kept orthonormal.

Golub & Kahan 1965, by blocks as Golub, Luk & Overton 1981. From a block G (n, r),

    P_0 R_0   = J G
    Q_1 S_1   = J^T P_0
    J Q_j     = P A_j + P_j R_j            P = [P_0 ... P_(j-1)],  A_j = P^T J Q_j          (1)
    J^T P_j   = Q C_j + Q_(j+1) S_(j+1)    Q = [Q_1 ... Q_j],      C_j = Q^T J^T P_j        (2)

with orthonormal blocks P_j and Q_j. So J Q = P T, where T = P^T J Q gains the column [A_j; R_j]
a step. By (2) the next column is known before J is applied: P^T J Q_(j+1) = [0; S_(j+1)^T]; T
with it is `T_ahead`, and J^T P = [Q, Q_(j+1)] T_ahead^T. In exact arithmetic nearly all of A_j and
C_j is 0. They are found in full (full reorthogonalisation), so that T is exact whatever rounding
does. What is asked of the space is read off in `clarep.geometry.subspace`.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.arrays import check_finite
from clarep.errors import UserError

# A new block this small, against the root mean square singular value, may be amplified rounding.
_NEARLY_CLOSED = 1e-2
# A block whose singular values span less than that needs no third round against the basis.
_WELL_CONDITIONED = 0.05
Product = Callable[[Tensor], Tensor]


class _Columns:
    """Columns (B, n, d) that grow by blocks in place, each column one run of memory.

    Products with blocks of a few columns are then several times quicker than with each row one.
    """

    def __init__(self, block: Tensor) -> None:
        self._rows = torch.empty_like(block.mT, memory_format=torch.contiguous_format)
        self._count = 0
        self.append(block)

    def append(self, block: Tensor) -> None:
        """Add columns (B, n, r)."""
        before, self._count = self._count, self._count + block.shape[2]
        if self._count > self._rows.shape[1]:
            batch, room, n = self._rows.shape
            wider = self._rows.new_empty(batch, max(self._count, 3 * room // 2), n)
            wider[:, :before] = self._rows[:, :before]
            self._rows = wider
        self._rows[:, before : self._count] = block.mT

    @property
    def all(self) -> Tensor:
        """All columns so far, a view."""
        return self._rows[:, : self._count].mT


class Krylov:
    """Orthonormal Q and P with J Q = P T, for each image of a batch.

    Args:
        matmat, rmatmat: the products J V and J^T U.
        first: G, the block that it grows from, (B, n, r).
        width: directions that each further block adds to Q.
        generator: of the random directions that stand in for what is numerically zero.

    Attributes:
        Q: (B, n, d), empty before the first `expand`.
        P: (B, m, a).
        T: P^T J Q, (B, a, d), float64.
        T_ahead: T and the column of the block that will be appended next, (B, a, d + r),
            float64. Its singular values are those of J^T P.
        JtP: J^T P, (B, n, a).
        products: directions that each image was multiplied with.
        exact: (B,), whether Q holds J's top directions but for rounding, if it holds as many
            as are asked for.
        closes_early: whether an image's space closes, or nearly, before it is complete. It then
            holds only some of the directions that share a singular value, if those are more
            than a block.

    Raises:
        UserError: if J is zero for an image, or a product is not finite.
    """

    def __init__(
        self,
        matmat: Product,
        rmatmat: Product,
        first: Float[Tensor, "batch n _"],
        width: int,
        generator: torch.Generator,
    ) -> None:
        self._matmat, self._rmatmat = matmat, rmatmat
        self._width, self._generator = width, generator
        batch, n, _ = first.shape
        JG = finite(matmat(first))  # (B, m, r)
        # About the root mean square singular value.
        self._scale = JG.norm(dim=1).amax(dim=1) / math.sqrt(n)
        check_not_zero(self._scale)
        # Below it a direction is rounding, which every reorthogonalisation of rests amplifies.
        self._floor = torch.finfo(first.dtype).eps ** (2 / 3) * self._scale
        P_0, _, _ = self._extend(JG.new_zeros(batch, JG.shape[1], 0), JG)
        JtP_0 = finite(rmatmat(P_0))
        self.products = JG.shape[2] + P_0.shape[2]
        self.T = JG.new_zeros(batch, P_0.shape[2], 0, dtype=torch.float64)
        self._Q, self._P = _Columns(JG.new_zeros(batch, n, 0)), _Columns(P_0)
        self._JtP = [JtP_0]
        self._Q_next, S, self._new_in_Q = self._extend(self.Q, JtP_0)
        self.T_ahead = S.mT.double()
        self._narrowed = False  # Q lacks a part of JtP, so that nothing tells a closed space
        self.exact = torch.zeros_like(self._scale, dtype=torch.bool)
        self.closes_early = False

    @property
    def Q(self) -> Tensor:
        """See the class."""
        return self._Q.all

    @property
    def P(self) -> Tensor:
        """See the class."""
        return self._P.all

    @property
    def JtP(self) -> Tensor:
        """See the class."""
        return torch.cat(self._JtP, dim=2)

    def expand(self) -> None:
        """Append Q_j, which the step before left, and P_j to the space, and find Q_(j+1)."""
        Q_j, Q_was_closed = self._Q_next, _closed(self._new_in_Q)

        # (1) J Q_j = [P, P_j] [A_j; R_j], the new column of T
        self._Q.append(Q_j)
        JQ_j = finite(self._matmat(Q_j))
        P_j, AR, new_in_P = self._extend(self.P, JQ_j)
        grown = torch.cat([self.T, _zero_rows(self.T, P_j.shape[2])], dim=1)
        self.T = torch.cat([grown, AR.double()], dim=2)
        self._P.append(P_j)

        # (2) J^T P_j = [Q, Q_(j+1)] [C_j; S_(j+1)], the column ahead
        JtP_j = Q_j.new_zeros(*Q_j.shape[:2], 0)
        if P_j.shape[2]:
            JtP_j = finite(self._rmatmat(P_j))
        self._JtP.append(JtP_j)
        self._Q_next, CS, self._new_in_Q = self._extend(self.Q, JtP_j, self._width)
        S = CS[:, self.Q.shape[2] :]  # (B, r, new in P)
        known = torch.cat([_zero_rows(S.mT, self.P.shape[2] - S.shape[2]), S.mT], dim=1)
        self.T_ahead = torch.cat([self.T, known.double()], dim=2)

        self.products += JQ_j.shape[2] + P_j.shape[2]
        R = AR[:, AR.shape[1] - P_j.shape[2] :]
        complete = Q_was_closed & self._vanishes(JQ_j) | _closed(new_in_P) & self._vanishes(JtP_j)
        self._narrowed |= JtP_j.shape[2] > self._Q_next.shape[2]
        self.exact = complete | _closed(new_in_P) | _closed(self._new_in_Q)
        if self._narrowed:
            self.exact = torch.full_like(self.exact, self._Q_next.shape[2] == 0)
        closing = ~new_in_P.all(dim=1) | ~self._new_in_Q.all(dim=1)
        for rest in (R, S):
            closing |= rest.flatten(1).norm(dim=1) <= _NEARLY_CLOSED * self._scale
        self.closes_early = bool((closing & ~complete).any())

    def _vanishes(self, image: Tensor) -> Tensor:
        """Tell for which images (B,) a product of random directions is zero but for rounding."""
        bound = self._floor[:, None] * math.sqrt(image.shape[1])
        small: Tensor = image.norm(dim=1) <= bound
        return small.all(dim=1)

    def _extend(
        self, basis: Tensor, block: Tensor, width: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Orthonormalise `block` against `basis` and itself.

        Returns (new, coefficients, kept) with block = [basis, new] coefficients, `new` of the
        block's width or `width`, or less where the space ends. What is numerically zero is
        replaced by random directions (with coefficient 0), so that a rank-deficient J loses
        none; `kept` (B, width) is False for those.
        """
        batch, n, have = basis.shape
        wide = min(block.shape[2] if width is None else width, n - have)
        onto = _onto(basis, block)
        rest = block - _span(basis, onto)
        correction = _onto(basis, rest)
        rest = rest - _span(basis, correction)
        onto = onto + correction
        if rest.shape[2] >= wide > 0:
            new = _leading(rest, wide, self._floor)
            if new is not None:
                kept = torch.ones_like(new[:, 0], dtype=torch.bool)
                return new, torch.cat([onto, new.mT @ rest], dim=1), kept
        q, r = torch.linalg.qr(rest)
        u, s, _ = torch.linalg.svd(r, full_matrices=False)
        kept = (s > self._floor[:, None])[:, None, :wide]
        new = torch.zeros(batch, n, wide, dtype=block.dtype, device=block.device)
        count = min(wide, s.shape[1])
        kept = torch.cat([kept, kept.new_zeros(batch, 1, wide - kept.shape[2])], dim=2)
        new[:, :, :count] = (q @ u)[:, :, :count]
        new = _orthonormal(torch.where(kept, new, 0), basis, kept, self._generator)
        # Exact by projection, whatever the second round did to the columns.
        return new, torch.cat([onto, new.mT @ rest], dim=1), kept.flatten(1)


def _leading(rest: Tensor, wide: int, floor: Tensor) -> Tensor | None:
    """Return the first left singular vectors of a well-conditioned block; None of another.

    From the eigenvectors of its Gram matrix, whose products are in float64 (Stathopoulos & Wu
    2002): matrix products alone, where a GPU factorises one image after the other.
    """
    whole = rest.double()
    squares, vectors = torch.linalg.eigh(whole.mT @ whole)  # ascending
    values = squares[:, -wide:].clamp_min(0).sqrt().flip(1)
    least = torch.maximum(floor, _WELL_CONDITIONED * values[:, 0])
    if not bool((values[:, -1] > least).all()):  # NaN too
        return None
    scaled = vectors[:, :, -wide:].flip(2) / values[:, None]
    leading: Tensor = rest @ scaled.to(rest.dtype)
    return leading


def _zero_rows(block: Tensor, count: int) -> Tensor:
    """Return zeros (B, count, r) for a block (B, _, r); F.pad of torch 2.4 takes no empty one."""
    return block.new_zeros(len(block), count, block.shape[2])


def _onto(basis: Tensor, block: Tensor) -> Tensor:
    """Return basis^T block, in the order that is quick where a column is one run of memory."""
    return (block.mT @ basis).mT


def _span(basis: Tensor, coefficients: Tensor) -> Tensor:
    """Return basis coefficients, likewise."""
    return (coefficients.mT @ basis.mT).mT


def _closed(kept: Tensor) -> Tensor:
    """Tell for which images (B,) a block brought nothing new; also where the space is full."""
    return ~kept.any(dim=1)


def _orthonormal(new: Tensor, basis: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
    """Clean kept columns against the basis once more and fill the others at random."""
    if new.shape[2] == 0:
        return new
    new = new - _span(basis, _onto(basis, new))
    if not bool(kept.all()):
        filler = torch.randn(new.shape, generator=generator, dtype=new.dtype).to(new.device)
        for _ in range(2):
            filler = filler - _span(basis, _onto(basis, filler))
            filler = filler - new @ (new.mT @ filler)
            filler, _ = torch.linalg.qr(filler)
        # Kept columns come first; the last of `filler` are rounding where the space ends.
        new = torch.where(kept, new, filler.flip(2))
    q, r = torch.linalg.qr(new)
    signed: Tensor = q * torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None, :]
    return signed


def finite(block: Tensor) -> Tensor:
    """Return a product. Raises UserError if it is not finite."""
    mend = "check the teacher's weights and run its Jacobian in float32"
    check_finite(block, "Jacobian products", mend)
    return block


def check_not_zero(scales: Float[Tensor, " batch"]) -> None:
    """Raise UserError if an image's J, of which `scales` tells the size, is zero."""
    if bool((scales == 0).any()):
        raise UserError(
            "the Jacobian is zero: the features do not depend on x, so there is no direction to "
            "find; choose another tap or check the teacher"
        )
