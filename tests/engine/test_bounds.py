"""Bounds stand at the fields, and one walk checks them."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import pytest

from clarep.engine.bounds import Within, check_bounds
from clarep.errors import UserError


@dataclass(frozen=True)
class Inner:
    steps: Annotated[int, Within(1)] | None = None


@dataclass(frozen=True)
class Config:
    share: Annotated[float, Within(0, 1, "[)")] = 0.1
    rate: Annotated[float, Within(0, ends="(]")] = 2.0
    free: float = -1.0
    several: tuple[Annotated[int, Within(1)], ...] = (1, 2)
    kind: Literal["top", "none"] = "top"
    inner: Inner = field(default_factory=Inner)


def test_what_is_within_passes():
    check_bounds(Config())
    check_bounds(Config(share=0.0, rate=1e9, inner=Inner(1)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(share=1.0), "`share=1.0` is outside [0, 1): give 0.1, say"),
        (Config(rate=0.0), "`rate=0.0` is not above 0: give 2.0, say"),
        (Config(rate=float("inf")), "`rate=inf` is not finite and below 2^32: give 2.0, say"),
        (Config(share=float("nan")), "`share=nan` is not finite"),
        (Config(free=2.0**32), "`free=4294967296.0` is not finite and below 2^32: give -1.0, say"),
        (Config(inner=Inner(0)), "`inner.steps=0` is below 1: give a number inside"),
        (Config(several=(1, 0)), "`several=0` is below 1: give 1, say"),
        (Config(kind="c"), "unknown kind 'c': valid are top, none"),
    ],
)
def test_what_is_outside_is_named_with_its_mend(config, words):
    with pytest.raises(UserError) as caught:
        check_bounds(config)
    assert words in str(caught.value)


def given(**values):
    """A config with values of any type, as a user gives them without the tests' type checks."""
    from clarep.distill.distill_config import DistillConfig

    config = DistillConfig()
    for name, value in values.items():
        object.__setattr__(config, name, value)
    return config


@pytest.mark.parametrize(
    "values", [{"epochs": 1.5}, {"epochs": "a"}, {"epochs": None}, {"learning_rate": "a"}]
)
def test_what_is_no_number_or_no_whole_one(values):
    """1.5 epochs would be two, and a progress of 42/31.5 images."""
    with pytest.raises(UserError, match=r"is no (whole )?number: give"):
        check_bounds(given(**values))


def test_numbers_of_numpy_are_numbers():
    check_bounds(given(epochs=np.int64(2), learning_rate=np.float64(0.1)))
