"""What a notebook imports: every type that a public function takes, and examples that run."""

import doctest
import inspect
import types
import typing
from importlib import import_module

import pytest

import clarep

FUNCTIONS = [name for name in clarep.__all__ if inspect.isfunction(getattr(clarep, name))]
CONFIGS = [name for name in clarep.__all__ if name.endswith("Config")]
MODULES = sorted({getattr(clarep, name).__module__ for name in clarep.__all__})


def types_in(hint):
    """All classes in an annotation."""
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        return {hint}
    return {one for inner in typing.get_args(hint) for one in types_in(inner)}


@pytest.mark.parametrize("name", ["Clarid", *FUNCTIONS, *CONFIGS])
def test_every_type_that_is_taken_is_public(name):
    value = getattr(clarep, name)
    function = value.__init__ if inspect.isclass(value) else value
    hints = typing.get_type_hints(inspect.unwrap(function))
    hints.pop("return", None)
    taken = {one for hint in hints.values() for one in types_in(hint)}
    ours = {one.__name__ for one in taken if one.__module__.startswith("clarep.")}
    assert ours <= set(clarep.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    failed, _ = doctest.testmod(import_module(name))
    assert not failed


def test_the_door_has_examples():
    finder = doctest.DocTestFinder()
    for value in (clarep.Clarid, clarep.identify):
        assert any(test.examples for test in finder.find(value))
