"""Seeds: what counts as one, wherever one is given."""

from clarep.errors import UserError

_SEEDS = 2**32  # what NumPy, PyTorch and k-means all take


def check_seed(seed: int) -> None:
    """Raise UserError unless the seed is a whole number in [0, 2^32)."""
    if not 0 <= seed < _SEEDS:
        raise UserError(f"seed {seed} is outside 0 to 2^32 - 1: give a whole number inside")
