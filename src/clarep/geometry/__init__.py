"""The Jacobian of a feature map and the subspace of its largest singular values."""

from clarep.geometry.dense import exact_spectrum as exact_spectrum
from clarep.geometry.subspace import top_right_singular_subspace as top_right_singular_subspace
