import pytest
import torch

from clarep.sampling.ode import karras_sigmas


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize(("low", "high"), [(0.01, 80.0), (0.002, 0.7)])
def test_karras_list_falls_between_its_exact_ends(steps, low, high):
    sigmas = karras_sigmas(steps, low, high)
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == torch.float64
    assert float(sigmas[0]) == high and float(sigmas[-1]) == low
    assert bool((sigmas.diff() < 0).all())


def test_karras_list_is_even_in_the_seventh_root():
    gaps = karras_sigmas(10, 0.01, 80.0).pow(1 / 7).diff()
    assert torch.allclose(gaps, gaps.mean().expand_as(gaps), atol=1e-12)
    assert abs(float(gaps[0])) > 0.1
