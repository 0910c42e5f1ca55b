import math

import pytest
import torch

from clarep.engine.intervals import bootstrap_interval


def test_the_bootstrap_interval_is_about_the_normal_one():
    values = 3 + 2 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap_interval(values)
    half = 1.96 * float(values.std(correction=0)) / math.sqrt(400)
    centre = float(values.mean())
    assert low == pytest.approx(centre - half, abs=0.15 * half)
    assert high == pytest.approx(centre + half, abs=0.15 * half)
    assert bootstrap_interval(values) == (low, high)
