"""Between x_0 + sigma * eps and what DDPM and flow-matching networks take and give."""

import math

import pytest
import torch

from clarep.errors import UserError
from clarep.teachers.parametrisation import DDPM, EDM, VP, Flow

STEPS = 1000


def linear_betas():
    return torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)


def zero_terminal_betas():
    """The linear schedule, rescaled to end at 0: Lin et al. 2023 (arXiv 2305.08891), alg. 1."""
    root = (1 - linear_betas()).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas = torch.cat([root[:1] ** 2, root[1:] ** 2 / root[:-1] ** 2])
    return 1 - alphas


def cosine_betas():
    """Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17, betas capped at 0.999."""
    share = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
    bar = torch.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - bar[1:] / bar[:-1]).clamp_max(0.999)


def alpha_bar(betas):
    return (1 - betas).cumprod(0)


SCHEDULES = {"linear": linear_betas, "zero terminal": zero_terminal_betas, "cosine": cosine_betas}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SCHEDULES)
def test_whole_timesteps_come_back_whole(name, dtype):
    bar = alpha_bar(SCHEDULES[name]())
    bar = bar[bar > 0]
    sigmas = torch.sqrt(1 / bar - 1).to(dtype)
    times = DDPM(bar).time(sigmas)
    assert times.dtype == dtype
    assert torch.equal(times, torch.arange(len(bar), dtype=dtype))


def test_between_whole_timesteps_the_logarithm_is_interpolated():
    bar = alpha_bar(linear_betas())
    log_sigmas = torch.sqrt(1 / bar - 1).log()
    shares = torch.tensor([0.25, 0.5, 0.9], dtype=torch.float64)
    wanted = (log_sigmas[500] + shares * (log_sigmas[501] - log_sigmas[500])).exp()
    assert torch.allclose(DDPM(bar).time(wanted), 500 + shares, atol=1e-9)
    # Time is a monotone function of the noise level.
    levels = torch.logspace(-1.9, 2.1, 5000, dtype=torch.float64)
    assert bool((DDPM(bar).time(levels).diff() > 0).all())


def test_times_next_to_a_whole_one_are_that_one():
    bar = alpha_bar(linear_betas())
    log_sigmas = torch.sqrt(1 / bar - 1).log()
    step = log_sigmas[501] - log_sigmas[500]
    for share, snaps in ((5e-4, True), (-5e-4, True), (5e-3, False)):
        back = log_sigmas[500] - log_sigmas[499] if share < 0 else step
        time = float(DDPM(bar).time((log_sigmas[500] + share * back).exp()[None]))
        assert (time == 500) == snaps
        assert time == pytest.approx(500, abs=6e-3)


def test_noise_levels_outside_stay_at_the_ends():
    ddpm = DDPM(alpha_bar(linear_betas()))
    outside = torch.tensor([ddpm.sigma_min / 10, ddpm.sigma_max * 10])
    assert ddpm.time(outside).tolist() == [0, STEPS - 1]


def test_sigma_from_t_is_the_share_of_the_timesteps():
    bar = alpha_bar(linear_betas())
    ddpm = DDPM(bar)
    for t in (0.001, 0.25, 0.5, 0.85, 0.999):
        sigma = ddpm.sigma_from_t(t)
        assert ddpm.sigma_min < sigma < ddpm.sigma_max
        back = float(ddpm.time(torch.tensor([sigma], dtype=torch.float64)))
        assert back == pytest.approx(t * (STEPS - 1), abs=2e-3)
    whole = ddpm.sigma_from_t(333 / (STEPS - 1))
    assert whole == pytest.approx(float(torch.sqrt(1 / bar[333] - 1)), rel=1e-9)


def test_ends_of_a_schedule():
    bar = alpha_bar(linear_betas())
    ddpm = DDPM(bar)
    assert ddpm.sigma_min == pytest.approx(0.01, rel=1e-3)  # sqrt(1e-4 / (1 - 1e-4))
    assert ddpm.sigma_max == pytest.approx(157.4, rel=1e-3)


def test_a_timestep_without_signal_is_left_out():
    bar = alpha_bar(zero_terminal_betas())
    assert float(bar[-1]) == 0
    ddpm = DDPM(bar, "v_prediction")
    last = float(torch.sqrt(1 / bar[-2] - 1))
    assert ddpm.sigma_max == pytest.approx(last) and math.isfinite(last)
    assert float(ddpm.time(torch.tensor([last], dtype=torch.float64))) == STEPS - 2
    assert ddpm.sigma_from_t(0.999999) == pytest.approx(last, rel=0.1)


def what_a_perfect_network_gives(prediction, x0, eps, bar):
    a, s = bar.sqrt()[:, None, None, None], (1 - bar).sqrt()[:, None, None, None]
    return {"epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0}[prediction]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_round_trip_of_each_prediction(prediction):
    """The network sees DDPM's own x_t and t, and its true answer gives x_0 back."""
    bar = alpha_bar(linear_betas())
    ddpm, times = DDPM(bar, prediction), torch.tensor([3, 250, 700, 999])
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    here = bar[times]
    sigma = torch.sqrt(1 / here - 1)
    x = x0 + sigma[:, None, None, None] * eps
    scaled, time = ddpm.network_input(x, sigma)
    x_t = here.sqrt()[:, None, None, None] * x0 + (1 - here).sqrt()[:, None, None, None] * eps
    assert torch.allclose(scaled, x_t, atol=1e-12)
    assert time.tolist() == times.tolist()
    output = what_a_perfect_network_gives(prediction, x0, eps, here)
    assert torch.allclose(ddpm.denoised(x, sigma, output), x0, atol=1e-9)
    others = {"epsilon", "v_prediction", "sample"} - {prediction}
    for other in others:
        wrong = what_a_perfect_network_gives(other, x0, eps, here)
        assert not torch.allclose(ddpm.denoised(x, sigma, wrong), x0, atol=0.1)


@pytest.mark.parametrize(
    ("bar", "prediction", "words"),
    [
        ([0.9, 0.5], "noise", "unknown prediction type 'noise'"),
        ([0.9, 0.5], "flow_prediction", "unknown prediction type 'flow_prediction'"),
        ([0.5, 0.9], "epsilon", "do not fall from below 1"),
        ([1.0, 0.5], "epsilon", "do not fall from below 1"),
        ([0.9], "epsilon", "do not fall from below 1"),
        ([0.9, float("nan")], "epsilon", "do not fall from below 1"),
        ([0.9, 0.9], "epsilon", "do not fall from below 1"),
    ],
)
def test_schedules_that_are_none(bar, prediction, words):
    with pytest.raises(UserError, match=words):
        DDPM(torch.tensor(bar), prediction)


@pytest.mark.parametrize("data_at", [0, 1])
def test_round_trip_of_a_flow(data_at):
    """The straight path, and a velocity that points from data to noise or back."""
    flow = Flow(data_at)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    share = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    sigma = share / (1 - share)
    s = share[:, None, None, None]
    x = x0 + sigma[:, None, None, None] * eps
    path, time = flow.network_input(x, sigma)
    assert torch.allclose(path, (1 - s) * x0 + s * eps, atol=1e-12)
    assert torch.allclose(time, 1 - share if data_at == 1 else share, atol=1e-9)
    velocity = x0 - eps if data_at == 1 else eps - x0
    assert torch.allclose(flow.denoised(x, sigma, velocity), x0, atol=1e-9)
    assert not torch.allclose(flow.denoised(x, sigma, -velocity), x0, atol=0.1)


def test_noise_levels_of_a_flow():
    flow = Flow()
    assert flow.sigma_min == pytest.approx(1 / 999)
    assert flow.sigma_max == pytest.approx(999)
    assert flow.sigma_from_t(0.5) == pytest.approx(1.0)
    assert flow.sigma_from_t(1e-9) == pytest.approx(flow.sigma_min, rel=1e-6)
    assert flow.sigma_from_t(1 - 1e-9) == pytest.approx(flow.sigma_max, rel=1e-6)


# The column EDM of Table 1, against identities that the paper derives it from.

SIGMAS = torch.logspace(-2.5, 1.8, 30, dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
def test_edm_preconditioning_has_unit_variance_and_least_amplification(sigma_data):
    """What the paper's appendix B.6 derives the scalings from, checked as identities."""
    edm = EDM(sigma_data=sigma_data)
    c_skip, c_out, c_in = edm.scalings(SIGMAS)
    assert torch.allclose(c_in**2 * (SIGMAS**2 + sigma_data**2), torch.ones_like(SIGMAS))

    def variance(skip):  # of the target y - c_skip (y + n), to which c_out F is fitted
        return (1 - skip) ** 2 * sigma_data**2 + skip**2 * SIGMAS**2

    assert torch.allclose(c_out**2, variance(c_skip))
    for step in (-1e-3, 1e-3):
        assert (variance(c_skip + step) > c_out**2).all()
    assert torch.allclose((4 * edm.time(SIGMAS)).exp(), SIGMAS)


@pytest.mark.parametrize("sigma", [1e-6, 1e-4])
def test_a_clean_image_stays_as_it_is(sigma):
    """D(x; 0) = x whatever the network says, and the change is of first order in sigma."""
    x, output = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    kept = EDM().denoised(x, torch.full((5,), sigma, dtype=torch.float64), output)
    assert torch.allclose(kept - x, sigma * output, atol=100 * sigma**2)


def test_what_a_fingerprint_holds_of_a_schedule_stays():
    """Stored canonical sets hang on it: it follows no name of the code."""
    bar = torch.tensor([0.5, 0.2], dtype=torch.float64)
    assert DDPM(bar, first=1).identity == (
        "DDPM {'_log_sigmas': [0.0, 0.6931471805599453], 'prediction': 'epsilon', "
        "'sigma_max': 2.0, 'sigma_min': 1.0}"
    )
    assert Flow(0).identity.startswith("Flow {'data_at': 0, 'sigma_max': 998.99999")
    assert VP().identity.startswith("VP {'sigma_max': 152.16697")
    assert EDM().identity == "EDM {'sigma_data': 0.5, 'sigma_max': 80.0, 'sigma_min': 0.002}"
