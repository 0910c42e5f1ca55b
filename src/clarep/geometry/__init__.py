"""The Jacobian of a feature map and the subspace of its largest singular values."""
