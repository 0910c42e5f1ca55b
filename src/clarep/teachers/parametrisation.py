"""What a network's input, time and output mean, translated to x_sigma = x_0 + sigma * eps.

Every parametrisation is three scalings and a time, all functions of sigma: the network F sees
c_in x, and the estimate of x_0 is c_skip x + c_out F (Karras et al. 2022, arXiv 2206.00364, eq. 7).
"""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError, unknown_name
from clarep.teachers.unet import edm_scalings

Levels = Float[Tensor, " batch"]
Scalings = tuple[Levels, Levels, Levels]

_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_FLOW_SHARES = (1e-3, 1 - 1e-3)
_SNAP = 1e-3  # timesteps this near a whole one are that one, but for rounding
_VP_BETAS = (0.1, 20.0)
_VP_T_MIN = 1e-3
_EDM_RHO = 7.0
_EDM_RANGE = (0.002, 80.0)


class Parametrisation(ABC):
    """Between x_sigma = x_0 + sigma * eps and what a network takes and gives."""

    sigma_min: float
    """Lowest noise level."""
    sigma_max: float
    """Highest noise level."""
    identity: str
    """Tells it from any other: its kind and all its numbers. It enters fingerprints that are
    stored with canonical sets, so it does not follow names in the code."""

    def __init__(self, kind: str, sigma_min: float, sigma_max: float, **numbers: object) -> None:
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        numbers |= {"sigma_max": sigma_max, "sigma_min": sigma_min}
        self.identity = f"{kind} {dict(sorted(numbers.items()))}"

    @abstractmethod
    def scalings(self, sigma: Levels) -> Scalings:
        """Return c_skip, c_out and c_in, (B,) each."""

    @abstractmethod
    def time(self, sigma: Levels) -> Levels:
        """Return the network's time at a noise level, (B,)."""

    @abstractmethod
    def sigma_from_t(self, t: float) -> float:
        """Return the noise level at share t in (0, 1) of the model's own time axis."""

    def network_input(
        self, x: Float[Tensor, "batch *shape"], sigma: Levels
    ) -> tuple[Float[Tensor, "batch *shape"], Levels]:
        """Return the network's input and its time, (B,)."""
        return x * like(self.scalings(sigma)[2], x), self.time(sigma)

    def denoised(
        self, x: Float[Tensor, "batch *shape"], sigma: Levels, output: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, "batch *shape"]:
        """Return the estimate of x_0 that the network's output stands for."""
        c_skip, c_out, _ = self.scalings(sigma)
        return like(c_skip, x) * x + like(c_out, x) * output


class DDPM(Parametrisation):
    """Discrete time of Ho et al. 2020 (arXiv 2006.11239): x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps.

    sigma = sqrt(1 / a_t - 1). Between whole timesteps log sigma is interpolated: the networks
    embed time by sines and take any number.

    Args:
        alphas_cumprod: a_t, (T,), falling, each in [0, 1]; timesteps of a_t = 0 are left out,
            since there sigma is infinite.
        prediction: what the network predicts: epsilon, v_prediction (Salimans & Ho 2022, arXiv
            2202.00512) or sample, which is x_0.
        first: the network's time at the first of them.

    Raises:
        UserError: for another prediction, or a schedule that is none.
    """

    def __init__(
        self,
        alphas_cumprod: Float[Tensor, " timesteps"],
        prediction: str = "epsilon",
        first: int = 0,
    ) -> None:
        if prediction not in _PREDICTIONS:
            raise unknown_name("prediction type", prediction, _PREDICTIONS)
        alpha_bar = alphas_cumprod.detach().double().cpu()
        alpha_bar = alpha_bar[alpha_bar > 0]
        if len(alpha_bar) < 2 or not (alpha_bar.diff() < 0).all() or alpha_bar[0] >= 1:
            raise UserError(
                "the schedule's alphas_cumprod do not fall from below 1 towards 0: "
                "give a model with a DDPM schedule"
            )
        self.prediction, self.first = prediction, first
        self._log_sigmas = torch.sqrt(1 / alpha_bar - 1).log()
        ends, levels = self._log_sigmas[[0, -1]].exp().tolist(), self._log_sigmas.tolist()
        super().__init__("DDPM", *ends, _log_sigmas=levels, prediction=prediction)

    def scalings(self, sigma: Levels) -> Scalings:
        c_in = torch.rsqrt(1 + sigma**2)
        if self.prediction == "sample":
            return torch.zeros_like(sigma), torch.ones_like(sigma), c_in
        if self.prediction == "epsilon":
            return torch.ones_like(sigma), -sigma, c_in
        return 1 / (1 + sigma**2), -sigma * c_in, c_in

    def time(self, sigma: Levels) -> Levels:
        """Return `first` and the timestep, in [0, T - 1]; between two, a fraction."""
        table = self._log_sigmas.to(sigma.device)
        wanted = sigma.double().log().clamp(table[0], table[-1])
        right = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        low, high = table[right - 1], table[right]
        time = right - 1 + (wanted - low) / (high - low)
        whole = time.round()
        return torch.where((time - whole).abs() < _SNAP, whole, time).to(sigma.dtype) + self.first

    def sigma_from_t(self, t: float) -> float:
        """Return the noise level at timestep t * (T - 1), for t in (0, 1)."""
        place = t * (len(self._log_sigmas) - 1)
        left = min(int(place), len(self._log_sigmas) - 2)
        low, high = self._log_sigmas[left], self._log_sigmas[left + 1]
        return float((low + (place - left) * (high - low)).exp())


class Flow(Parametrisation):
    """The straight path x_s = (1 - s) x_0 + s eps of flow matching, velocity predicted.

    Lipman et al. 2023 (arXiv 2210.02747), Liu et al. 2023 (arXiv 2209.03003). sigma = s / (1 - s),
    and x_0 is x_s minus s times the velocity eps - x_0.

    Args:
        data_at: the network's time at the data: 0 (velocity eps - x_0) or, as in SiT's own code
            (Ma et al. 2024, arXiv 2401.08740), 1 (velocity x_0 - eps).

    The share of noise s runs from 1e-3 to 1 - 1e-3: at both ends sigma would be 0 or infinite.
    """

    def __init__(self, data_at: Literal[0, 1] = 1) -> None:
        self.data_at = data_at
        low, high = _FLOW_SHARES
        super().__init__("Flow", low / (1 - low), high / (1 - high), data_at=data_at)

    def scalings(self, sigma: Levels) -> Scalings:
        share = sigma / (1 + sigma)
        c_in = 1 / (1 + sigma)
        return c_in, share if self.data_at == 1 else -share, c_in

    def time(self, sigma: Levels) -> Levels:
        share = sigma / (1 + sigma)
        return 1 - share if self.data_at == 1 else share

    def sigma_from_t(self, t: float) -> float:
        """Return the noise level where the share of noise is t of the way along its range."""
        low, high = _FLOW_SHARES
        share = low + t * (high - low)
        return share / (1 - share)


class VP(Parametrisation):
    """Continuous time of the variance-preserving SDE with linear beta, noise predicted.

    Song et al. 2021 (arXiv 2011.13456), appendix C: beta(t) = b_0 + t (b_1 - b_0) with b_0 = 0.1
    and b_1 = 20, so that sigma^2 = exp(b_0 t + (b_1 - b_0) t^2 / 2) - 1. The time axis runs from
    1e-3 to 1: at 0 there is no noise.

    Args:
        time_scale: what the network's time is multiplied by, such as 999.
    """

    def __init__(self, time_scale: float = 1.0) -> None:
        self.time_scale = time_scale
        super().__init__("VP", self._sigma(_VP_T_MIN), self._sigma(1.0), time_scale=time_scale)

    def scalings(self, sigma: Levels) -> Scalings:
        return torch.ones_like(sigma), -sigma, torch.rsqrt(1 + sigma**2)

    def time(self, sigma: Levels) -> Levels:
        low, high = _VP_BETAS
        integral = torch.log1p(sigma**2)  # of beta from 0 to t; solved for t without cancelling
        time = 2 * integral / (low + torch.sqrt(low**2 + 2 * (high - low) * integral))
        return time * self.time_scale

    def sigma_from_t(self, t: float) -> float:
        """Return the noise level at t of the way from 1e-3 to 1."""
        return self._sigma(_VP_T_MIN + t * (1 - _VP_T_MIN))

    def _sigma(self, time: float) -> float:
        low, high = _VP_BETAS
        return math.sqrt(math.expm1(low * time + (high - low) * time**2 / 2))


class EDM(Parametrisation):
    """Input and target of unit variance at every noise level: Karras et al. 2022, Table 1.

    t runs along the paper's own sampling schedule, even in sigma^(1/7) (equation 5). A range
    that is left open, as the published checkpoints leave it, is the paper's, [0.002, 80].

    Raises:
        UserError: if the range is none, or sigma_data is no finite number above 0.
    """

    def __init__(
        self, sigma_min: float = 0.0, sigma_max: float = math.inf, sigma_data: float = 0.5
    ) -> None:
        self.sigma_data = sigma_data
        low, high = max(sigma_min, _EDM_RANGE[0]), min(sigma_max, _EDM_RANGE[1])
        if not low < high:
            raise UserError(
                f"sigma_min {sigma_min:g} and sigma_max {sigma_max:g} are no range of noise "
                f"levels within {list(_EDM_RANGE)}: give the smaller first"
            )
        if not 0 < sigma_data < math.inf:
            raise UserError(f"sigma_data {sigma_data:g} is no finite number above 0: 0.5 is usual")
        super().__init__("EDM", low, high, sigma_data=sigma_data)

    def scalings(self, sigma: Levels) -> Scalings:
        return edm_scalings(sigma, self.sigma_data)

    def time(self, sigma: Levels) -> Levels:
        return sigma.log() / 4

    def sigma_from_t(self, t: float) -> float:
        low, high = self.sigma_min ** (1 / _EDM_RHO), self.sigma_max ** (1 / _EDM_RHO)
        return float((low + t * (high - low)) ** _EDM_RHO)


def like(sigma: Tensor, x: Tensor) -> Tensor:
    """Return sigma (B,) with as many dimensions as x."""
    return sigma.reshape(-1, *(1,) * (x.ndim - 1))
