"""Every test runs with the shapes and types of clarep's signatures enforced."""

from jaxtyping import install_import_hook

install_import_hook("clarep", "beartype.beartype")
