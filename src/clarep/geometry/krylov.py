"""A block Krylov space of a batch of operators, kept orthonormal and grown block by block.

Golub-Kahan in blocks with full reorthogonalisation. What is asked of it is read off in
`clarep.geometry.subspace`.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

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
    """Orthonormal `right` and `left` with J right = left small, for each image of a batch.

    Args:
        matmat, rmatmat: the products J V and J^T U.
        first: the block that it grows from, (B, n, r).
        width: directions that each further block adds to `right`.
        generator: of the random directions that stand in for what is numerically zero.

    Attributes:
        right: (B, n, d), empty before the first `expand`.
        left: (B, m, a).
        small: J in these bases, (B, a, d), float64.
        ahead: `small` with the columns of the block that will be appended next, as far as J^T
            left tells them: (B, a, d + r), float64. Its singular values are those of J^T left.
        backs: J^T left, (B, n, a).
        products: directions that each image was multiplied with.
        exact: (B,), whether `right` holds J's top directions but for rounding, if it holds
            as many as are asked for.
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
        image = check_finite(matmat(first))  # (B, m, r)
        # About the root mean square singular value.
        self._scale = image.norm(dim=1).amax(dim=1) / math.sqrt(n)
        check_not_zero(self._scale)
        # Below it a direction is rounding, which every reorthogonalisation of rests amplifies.
        self._floor = torch.finfo(first.dtype).eps ** (2 / 3) * self._scale
        left, _, _ = self._extend(image.new_zeros(batch, image.shape[1], 0), image)
        back = check_finite(rmatmat(left))
        self.products = image.shape[2] + left.shape[2]
        self.small = image.new_zeros(batch, left.shape[2], 0, dtype=torch.float64)
        self._right, self._left = _Columns(image.new_zeros(batch, n, 0)), _Columns(left)
        self._backs = [back]
        self._next, into, self._kept = self._extend(self.right, back)
        self.ahead = into.mT.double()
        self._narrowed = False  # right lacks a part of backs, so that nothing tells a closed space
        self.exact = torch.zeros_like(self._scale, dtype=torch.bool)
        self.closes_early = False

    @property
    def right(self) -> Tensor:
        """See the class."""
        return self._right.all

    @property
    def left(self) -> Tensor:
        """See the class."""
        return self._left.all

    @property
    def backs(self) -> Tensor:
        """See the class."""
        return torch.cat(self._backs, dim=2)

    def expand(self) -> None:
        """Append the block that was found last to `right`, and find the one after it."""
        newest, nothing_new = self._next, _closed(self._kept)
        self._right.append(newest)
        image = check_finite(self._matmat(newest))
        complete = nothing_new & self._vanishes(image)
        left_new, onto, kept_left = self._extend(self.left, image)
        grown = torch.cat([self.small, _zero_rows(self.small, left_new.shape[2])], dim=1)
        self.small = torch.cat([grown, onto.double()], dim=2)
        self._left.append(left_new)

        back = newest.new_zeros(*newest.shape[:2], 0)
        if left_new.shape[2]:
            back = check_finite(self._rmatmat(left_new))
        self._backs.append(back)
        self.products += image.shape[2] + left_new.shape[2]
        complete |= _closed(kept_left) & self._vanishes(back)
        self._next, into, self._kept = self._extend(self.right, back, self._width)
        coupling = into[:, self.right.shape[2] :].mT.double()  # (B, new in left, r)
        above = self.left.shape[2] - coupling.shape[1]
        coupling = torch.cat([_zero_rows(coupling, above), coupling], dim=1)
        self.ahead = torch.cat([self.small, coupling], dim=2)
        self._narrowed = self._narrowed or back.shape[2] > self._next.shape[2]

        self.exact = complete | _closed(kept_left) | _closed(self._kept)
        if self._narrowed:
            self.exact = torch.full_like(self.exact, self._next.shape[2] == 0)
        closing = ~kept_left.all(dim=1) | ~self._kept.all(dim=1)
        for rest in (onto[:, -left_new.shape[2] :], into[:, self.right.shape[2] :]):
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
        q, r = torch.linalg.qr(rest)
        u, s, _ = torch.linalg.svd(r, full_matrices=False)
        if s.shape[1] >= wide > 0:
            least = torch.maximum(self._floor, _WELL_CONDITIONED * s[:, 0])
            if bool((s[:, wide - 1] > least).all()):
                new = (q @ u)[:, :, :wide]
                kept = torch.ones_like(s[:, :wide], dtype=torch.bool)
                return new, torch.cat([onto, new.mT @ rest], dim=1), kept
        kept = (s > self._floor[:, None])[:, None, :wide]
        new = torch.zeros(batch, n, wide, dtype=block.dtype, device=block.device)
        count = min(wide, s.shape[1])
        kept = torch.cat([kept, kept.new_zeros(batch, 1, wide - kept.shape[2])], dim=2)
        new[:, :, :count] = (q @ u)[:, :, :count]
        new = _orthonormal(torch.where(kept, new, 0), basis, kept, self._generator)
        # Exact by projection, whatever the second round did to the columns.
        return new, torch.cat([onto, new.mT @ rest], dim=1), kept.flatten(1)


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


def check_finite(block: Tensor) -> Tensor:
    """Return a product. Raises UserError if it is not finite."""
    if not torch.isfinite(block).all():
        raise UserError(
            "a Jacobian product is not finite (NaN or infinity): check the teacher's weights and "
            "run its Jacobian in float32"
        )
    return block


def check_not_zero(scales: Float[Tensor, " batch"]) -> None:
    """Raise UserError if an image's J, of which `scales` tells the size, is zero."""
    if bool((scales == 0).any()):
        raise UserError(
            "the Jacobian is zero: the features do not depend on x, so there is no direction to "
            "find; choose another tap or check the teacher"
        )
