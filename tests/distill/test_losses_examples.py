"""The examples in the losses' docstrings are true."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["alignment", "cka", "clustering", "kd", "rkd", "supcon"])
def test_examples_run(name: str) -> None:
    failed, attempted = doctest.testmod(import_module(f"clarep.distill.losses.{name}"))
    assert attempted > 1 and failed == 0
