"""EDM's preconditionings: from a raw network F to the denoiser D.

D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), Karras et al. 2022 (arXiv 2206.00364), equation
7; the columns of its Table 1. x = x_0 + sigma * eps already, so that nothing else is translated.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError

_RHO = 7.0
_PAPER_RANGE = (0.002, 80.0)

Scalings = tuple[Tensor, Tensor, Tensor, Tensor]


class Preconditioning(ABC):
    """One column of Table 1, and the time axis of its noise levels (a `Parametrisation`)."""

    arguments: ClassVar[tuple[str, ...]]
    """What its constructor takes, by the checkpoint's own names."""

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        if not 0 < sigma_min < sigma_max < math.inf:
            raise UserError(
                f"sigma_min {sigma_min:g} and sigma_max {sigma_max:g} are no range of noise "
                "levels: give finite numbers above 0, the smaller first"
            )
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    @abstractmethod
    def scalings(self, sigma: Float[Tensor, " batch"]) -> Scalings:
        """Return c_skip, c_out, c_in and c_noise, (B,) each."""

    @abstractmethod
    def sigma_from_t(self, t: float) -> float:
        """Return the noise level at share t in (0, 1) of the time axis."""

    def network_input(
        self, x: Float[Tensor, "batch *shape"], sigma: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Return c_in x and c_noise."""
        _, _, c_in, c_noise = self.scalings(sigma)
        return _like(c_in, x) * x, c_noise

    def denoised(
        self,
        x: Float[Tensor, "batch *shape"],
        sigma: Float[Tensor, " batch"],
        output: Float[Tensor, "batch *shape"],
    ) -> Float[Tensor, "batch *shape"]:
        """Return the estimate of x_0, c_skip x + c_out F."""
        c_skip, c_out, _, _ = self.scalings(sigma)
        return _like(c_skip, x) * x + _like(c_out, x) * output


class EDM(Preconditioning):
    """Column EDM: input and target of unit variance at every noise level.

    t runs along the paper's own sampling schedule, even in sigma^(1/7) (equation 5). A range
    that is left open, as the published checkpoints leave it, is the paper's, [0.002, 80].
    """

    arguments = ("sigma_min", "sigma_max", "sigma_data")

    def __init__(
        self, sigma_min: float = 0.0, sigma_max: float = math.inf, sigma_data: float = 0.5
    ) -> None:
        super().__init__(max(sigma_min, _PAPER_RANGE[0]), min(sigma_max, _PAPER_RANGE[1]))
        if not 0 < sigma_data < math.inf:
            raise UserError(f"sigma_data {sigma_data:g} is no finite number above 0: 0.5 is usual")
        self.sigma_data = sigma_data

    def scalings(self, sigma: Float[Tensor, " batch"]) -> Scalings:
        total = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = sigma * self.sigma_data * total.rsqrt()
        return c_skip, c_out, total.rsqrt(), sigma.log() / 4

    def sigma_from_t(self, t: float) -> float:
        low, high = self.sigma_min ** (1 / _RHO), self.sigma_max ** (1 / _RHO)
        return float((low + t * (high - low)) ** _RHO)


class VP(Preconditioning):
    """Column VP of Song et al. 2021 (arXiv 2011.13456); t is its own continuous time."""

    arguments = ("beta_d", "beta_min", "M", "epsilon_t")

    def __init__(
        self,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
    ) -> None:
        self.beta_d, self.beta_min, self.num_timesteps = beta_d, beta_min, M
        self.first_time = epsilon_t
        super().__init__(self._sigma(epsilon_t), self._sigma(1.0))

    def scalings(self, sigma: Float[Tensor, " batch"]) -> Scalings:
        log_var = torch.log1p(sigma**2)
        time = ((self.beta_min**2 + 2 * self.beta_d * log_var).sqrt() - self.beta_min) / self.beta_d
        c_noise = (self.num_timesteps - 1) * time
        return torch.ones_like(sigma), -sigma, torch.rsqrt(sigma**2 + 1), c_noise

    def sigma_from_t(self, t: float) -> float:
        return self._sigma(self.first_time + t * (1 - self.first_time))

    def _sigma(self, time: float) -> float:
        return math.sqrt(math.expm1(self.beta_d * time**2 / 2 + self.beta_min * time))


class VE(Preconditioning):
    """Column VE of Song et al. 2021 (arXiv 2011.13456); t is even in log sigma, as there."""

    arguments = ("sigma_min", "sigma_max")

    def __init__(self, sigma_min: float = 0.02, sigma_max: float = 100.0) -> None:
        super().__init__(sigma_min, sigma_max)

    def scalings(self, sigma: Float[Tensor, " batch"]) -> Scalings:
        one = torch.ones_like(sigma)
        return one, sigma, one, (sigma / 2).log()

    def sigma_from_t(self, t: float) -> float:
        return float(self.sigma_min * (self.sigma_max / self.sigma_min) ** t)


def _like(scale: Tensor, x: Tensor) -> Tensor:
    """Return scale (B,) with as many dimensions as x."""
    return scale.reshape(-1, *(1,) * (x.ndim - 1))
