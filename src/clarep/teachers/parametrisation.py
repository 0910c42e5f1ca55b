"""What a network's input, time and output mean, translated to x_sigma = x_0 + sigma * eps.

Every parametrisation says how x and sigma become the network's own input and time, and how its
output becomes an estimate of x_0.
"""

import math
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError, unknown_name

Prediction = Literal["epsilon", "v_prediction", "sample"]
_FLOW_SHARES = (1e-3, 1 - 1e-3)
_SNAP = 1e-3  # timesteps this near a whole one are that one, but for rounding
_VP_BETAS = (0.1, 20.0)
_VP_T_MIN = 1e-3


@runtime_checkable
class Parametrisation(Protocol):
    """Between x_sigma = x_0 + sigma * eps and what a network takes and gives."""

    sigma_min: float
    """Lowest noise level."""
    sigma_max: float
    """Highest noise level."""

    def network_input(
        self, x: Float[Tensor, "batch *shape"], sigma: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Return the network's input and its time, (B,)."""

    def denoised(
        self,
        x: Float[Tensor, "batch *shape"],
        sigma: Float[Tensor, " batch"],
        output: Float[Tensor, "batch *shape"],
    ) -> Float[Tensor, "batch *shape"]:
        """Return the estimate of x_0 that the network's output stands for."""

    def sigma_from_t(self, t: float) -> float:
        """Return the noise level at share t in (0, 1) of the model's own time axis."""


class DDPM:
    """Discrete time of Ho et al. 2020 (arXiv 2006.11239): x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps.

    sigma = sqrt(1 / a_t - 1). Between whole timesteps log sigma is interpolated: the networks
    embed time by sines and take any number.

    Args:
        alphas_cumprod: a_t, (T,), falling, each in [0, 1]; timesteps of a_t = 0 are left out,
            since there sigma is infinite.
        prediction: what the network predicts: epsilon, v_prediction (Salimans & Ho 2022, arXiv
            2202.00512) or sample, which is x_0.

    Raises:
        UserError: for another prediction, or a schedule that is none.
    """

    def __init__(
        self, alphas_cumprod: Float[Tensor, " timesteps"], prediction: str = "epsilon"
    ) -> None:
        if prediction not in get_args(Prediction):
            raise unknown_name("prediction type", prediction, get_args(Prediction))
        alpha_bar = alphas_cumprod.detach().double().cpu()
        alpha_bar = alpha_bar[alpha_bar > 0]
        if len(alpha_bar) < 2 or not (alpha_bar.diff() < 0).all() or alpha_bar[0] >= 1:
            raise UserError(
                "the schedule's alphas_cumprod do not fall from below 1 towards 0: "
                "give a model with a DDPM schedule"
            )
        self.prediction = prediction
        self._log_sigmas = torch.sqrt(1 / alpha_bar - 1).log()
        self.sigma_min = float(self._log_sigmas[0].exp())
        self.sigma_max = float(self._log_sigmas[-1].exp())

    def timestep(self, sigma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the time at noise level sigma, in [0, T - 1]; between two, a fraction."""
        table = self._log_sigmas.to(sigma.device)
        wanted = sigma.double().log().clamp(table[0], table[-1])
        right = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        low, high = table[right - 1], table[right]
        time = right - 1 + (wanted - low) / (high - low)
        whole = time.round()
        return torch.where((time - whole).abs() < _SNAP, whole, time).to(sigma.dtype)

    def network_input(
        self, x: Float[Tensor, "batch *shape"], sigma: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Return x_t and the timestep, (B,)."""
        return x * torch.rsqrt(1 + like(sigma, x) ** 2), self.timestep(sigma)

    def denoised(
        self,
        x: Float[Tensor, "batch *shape"],
        sigma: Float[Tensor, " batch"],
        output: Float[Tensor, "batch *shape"],
    ) -> Float[Tensor, "batch *shape"]:
        """Return the estimate of x_0."""
        s = like(sigma, x)
        if self.prediction == "sample":
            return output
        if self.prediction == "epsilon":
            return x - s * output
        return x / (1 + s**2) - s * torch.rsqrt(1 + s**2) * output

    def sigma_from_t(self, t: float) -> float:
        """Return the noise level at timestep t * (T - 1), for t in (0, 1)."""
        place = t * (len(self._log_sigmas) - 1)
        left = min(int(place), len(self._log_sigmas) - 2)
        low, high = self._log_sigmas[left], self._log_sigmas[left + 1]
        return float((low + (place - left) * (high - low)).exp())


class Flow:
    """The straight path x_s = (1 - s) x_0 + s eps of flow matching, velocity predicted.

    Lipman et al. 2023 (arXiv 2210.02747), Liu et al. 2023 (arXiv 2209.03003). sigma = s / (1 - s).

    Args:
        data_at: the network's time at the data: 0 (velocity eps - x_0) or, as in SiT's own code
            (Ma et al. 2024, arXiv 2401.08740), 1 (velocity x_0 - eps).

    The share of noise s runs from 1e-3 to 1 - 1e-3: at both ends sigma would be 0 or infinite.
    """

    def __init__(self, data_at: Literal[0, 1] = 1) -> None:
        self.data_at = data_at
        low, high = _FLOW_SHARES
        self.sigma_min, self.sigma_max = low / (1 - low), high / (1 - high)

    def network_input(
        self, x: Float[Tensor, "batch *shape"], sigma: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Return x_s and the network's time, (B,)."""
        noise_share = sigma / (1 + sigma)
        time = 1 - noise_share if self.data_at == 1 else noise_share
        return x / (1 + like(sigma, x)), time

    def denoised(
        self,
        x: Float[Tensor, "batch *shape"],
        sigma: Float[Tensor, " batch"],
        output: Float[Tensor, "batch *shape"],
    ) -> Float[Tensor, "batch *shape"]:
        """Return the estimate of x_0: x_s minus s times the velocity eps - x_0."""
        s = like(sigma, x)
        velocity = -output if self.data_at == 1 else output
        return (x - s * velocity) / (1 + s)

    def sigma_from_t(self, t: float) -> float:
        """Return the noise level where the share of noise is t of the way along its range."""
        low, high = _FLOW_SHARES
        share = low + t * (high - low)
        return share / (1 - share)


class VP:
    """Continuous time of the variance-preserving SDE with linear beta, noise predicted.

    Song et al. 2021 (arXiv 2011.13456), appendix C: beta(t) = b_0 + t (b_1 - b_0) with b_0 = 0.1
    and b_1 = 20, so that sigma^2 = exp(b_0 t + (b_1 - b_0) t^2 / 2) - 1. The time axis runs from
    1e-3 to 1: at 0 there is no noise.

    Args:
        time_scale: what the network's time is multiplied by, such as 999.
    """

    def __init__(self, time_scale: float = 1.0) -> None:
        self.time_scale = time_scale
        self.sigma_min, self.sigma_max = self._sigma(_VP_T_MIN), self._sigma(1.0)

    def network_input(
        self, x: Float[Tensor, "batch *shape"], sigma: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Return x_t = x / sqrt(1 + sigma^2) and the network's time, (B,)."""
        low, high = _VP_BETAS
        integral = torch.log1p(sigma**2)  # of beta from 0 to t; solved for t without cancelling
        time = 2 * integral / (low + torch.sqrt(low**2 + 2 * (high - low) * integral))
        return x * torch.rsqrt(1 + like(sigma, x) ** 2), time * self.time_scale

    def denoised(
        self,
        x: Float[Tensor, "batch *shape"],
        sigma: Float[Tensor, " batch"],
        output: Float[Tensor, "batch *shape"],
    ) -> Float[Tensor, "batch *shape"]:
        """Return the estimate of x_0: x minus sigma times the noise."""
        return x - like(sigma, x) * output

    def sigma_from_t(self, t: float) -> float:
        """Return the noise level at t of the way from 1e-3 to 1."""
        return self._sigma(_VP_T_MIN + t * (1 - _VP_T_MIN))

    def _sigma(self, time: float) -> float:
        low, high = _VP_BETAS
        return math.sqrt(math.expm1(low * time + (high - low) * time**2 / 2))


def schedule_text(parametrisation: Parametrisation) -> str:
    """Return a text that tells a parametrisation from any other: its kind and all its numbers."""
    numbers = {
        name: value.tolist() if isinstance(value, Tensor) else value
        for name, value in sorted(vars(parametrisation).items())
    }
    return f"{type(parametrisation).__name__} {numbers}"


def like(sigma: Tensor, x: Tensor) -> Tensor:
    """Return sigma (B,) with as many dimensions as x."""
    return sigma.reshape(-1, *(1,) * (x.ndim - 1))
