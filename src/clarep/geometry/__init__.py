"""The Jacobian of a feature map and the subspace of its largest singular values."""

from clarep.geometry.dense import exact_right_singular_vectors, exact_spectrum
from clarep.geometry.jacobian import Jacobian, probe_engine
from clarep.geometry.reference import subspace_iteration
from clarep.geometry.subspace import (
    Subspace,
    subspace_of_dense,
    top_right_singular_subspace,
)

__all__ = [
    "Jacobian",
    "Subspace",
    "exact_right_singular_vectors",
    "exact_spectrum",
    "probe_engine",
    "subspace_iteration",
    "subspace_of_dense",
    "top_right_singular_subspace",
]
