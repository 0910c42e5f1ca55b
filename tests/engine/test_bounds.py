"""Bounds stand at the fields, and one walk checks them."""

from dataclasses import dataclass, field
from typing import Annotated

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
    inner: Inner = field(default_factory=Inner)


def test_what_is_within_passes():
    check_bounds(Config())
    check_bounds(Config(share=0.0, rate=1e9, inner=Inner(1)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(share=1.0), "`share=1.0` is outside [0, 1): give 0.1, say"),
        (Config(rate=0.0), "`rate=0.0` is outside (0, inf): give 2.0, say"),
        (Config(rate=float("inf")), "`rate=inf` is outside"),
        (Config(share=float("nan")), "`share=nan` is outside"),
        (Config(inner=Inner(0)), "`inner.steps=0` is outside [1, inf): give one inside, say"),
    ],
)
def test_what_is_outside_is_named_with_its_mend(config, words):
    with pytest.raises(UserError) as caught:
        check_bounds(config)
    assert words in str(caught.value)
