"""The Jacobian of a feature map and the subspace of its largest singular values."""

from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.geometry.reference import subspace_iteration
from clarep.geometry.subspace import (
    Subspace,
    exact_right_singular_subspace,
    top_right_singular_subspace,
)

__all__ = [
    "Jacobian",
    "Subspace",
    "exact_right_singular_subspace",
    "probe_engine",
    "subspace_iteration",
    "top_right_singular_subspace",
]
