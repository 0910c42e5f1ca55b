"""The examples in the losses' docstrings are true; no loss takes what is not finite."""

import doctest
import math
from importlib import import_module

import pytest
import torch

from clarep.distill import losses
from clarep.errors import UserError


@pytest.mark.parametrize("name", ["cka", "contrast", "kd", "rkd"])
def test_examples_run(name: str) -> None:
    failed, attempted = doctest.testmod(import_module(f"clarep.distill.losses.{name}"))
    assert attempted > 1 and failed == 0


LABELS = torch.tensor([0, 0, 1, 1, 2])
LOSSES = {
    "linear_cka": losses.linear_cka,
    "unbiased cka": lambda a, b: losses.linear_cka(a, b, unbiased=True),
    "rkd_distance": losses.rkd_distance,
    "rkd_angle": losses.rkd_angle,
    "kd": losses.kd,
    "instance_alignment": losses.instance_alignment,
    "class_alignment": lambda a, b: losses.class_alignment(a, LABELS, b, LABELS),
    "supcon": lambda a, b: losses.supcon(torch.cat([a, b]), LABELS.repeat(2)),
}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_takes_what_is_not_finite(name: str, dtype: torch.dtype, bad: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randn(5, 3, generator=generator).to(dtype) for _ in range(2)]
    assert LOSSES[name](*sides).isfinite()
    for i in range(2):
        spoilt = [side.clone() for side in sides]
        spoilt[i][2, 1] = bad
        with pytest.raises(UserError, match="not finite"):
            LOSSES[name](*spoilt)
