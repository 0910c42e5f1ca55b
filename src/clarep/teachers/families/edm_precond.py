"""EDM's preconditioning: from a raw network F to the denoiser D.

D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), Karras et al. 2022 (arXiv 2206.00364), equation
7; the column EDM of its Table 1. x = x_0 + sigma * eps already, so that nothing else is translated.
"""

import math

from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError
from clarep.teachers.parametrisation import like

_RHO = 7.0
_PAPER_RANGE = (0.002, 80.0)

Scalings = tuple[Tensor, Tensor, Tensor, Tensor]


class EDM:
    """Input and target of unit variance at every noise level (a `Parametrisation`).

    t runs along the paper's own sampling schedule, even in sigma^(1/7) (equation 5). A range
    that is left open, as the published checkpoints leave it, is the paper's, [0.002, 80].

    Raises:
        UserError: if the range is none, or sigma_data is no finite number above 0.
    """

    def __init__(
        self, sigma_min: float = 0.0, sigma_max: float = math.inf, sigma_data: float = 0.5
    ) -> None:
        self.sigma_min = max(sigma_min, _PAPER_RANGE[0])
        self.sigma_max = min(sigma_max, _PAPER_RANGE[1])
        self.sigma_data = sigma_data
        if not self.sigma_min < self.sigma_max:
            raise UserError(
                f"sigma_min {sigma_min:g} and sigma_max {sigma_max:g} are no range of noise "
                f"levels within {list(_PAPER_RANGE)}: give the smaller first"
            )
        if not 0 < sigma_data < math.inf:
            raise UserError(f"sigma_data {sigma_data:g} is no finite number above 0: 0.5 is usual")

    def scalings(self, sigma: Float[Tensor, " batch"]) -> Scalings:
        """Return c_skip, c_out, c_in and c_noise, (B,) each."""
        total = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = sigma * self.sigma_data * total.rsqrt()
        return c_skip, c_out, total.rsqrt(), sigma.log() / 4

    def network_input(
        self, x: Float[Tensor, "batch *shape"], sigma: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Return c_in x and c_noise."""
        _, _, c_in, c_noise = self.scalings(sigma)
        return like(c_in, x) * x, c_noise

    def denoised(
        self,
        x: Float[Tensor, "batch *shape"],
        sigma: Float[Tensor, " batch"],
        output: Float[Tensor, "batch *shape"],
    ) -> Float[Tensor, "batch *shape"]:
        """Return the estimate of x_0, c_skip x + c_out F."""
        c_skip, c_out, _, _ = self.scalings(sigma)
        return like(c_skip, x) * x + like(c_out, x) * output

    def sigma_from_t(self, t: float) -> float:
        """Return the noise level at share t in (0, 1) of the time axis."""
        low, high = self.sigma_min ** (1 / _RHO), self.sigma_max ** (1 / _RHO)
        return float((low + t * (high - low)) ** _RHO)
