"""What the tests' own check of signatures lets through, and what it stops."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from clarep.clarid.directions import project_out
from clarep.engine.artefacts import sha256_file
from signatures import enforced


def add(x: Float[Tensor, "batch n"], y: Float[Tensor, "batch n"]) -> Float[Tensor, "batch"]:
    return (x + y)[0] if x.shape[1] == 7 else (x + y).sum(1)


def first(pair: tuple[int, Float[Tensor, "n"] | None], of: Callable[[int], str]) -> str:
    return of(pair[0])


def named(count: int, names: Iterator[str] | None = None) -> str:
    return 3 if count == 7 else "x" * count


@dataclass
class Plain:
    count: int


@dataclass
class Shaped:
    count: int
    x: Float[Tensor, "count n"]
    y: Float[Tensor, "count n"]


def ones(*shape: int) -> Tensor:
    return torch.ones(shape)


WRONG = {
    "another number of axes": (add, (ones(2, 3), ones(2, 3, 1))),
    "axes of one name differ": (add, (ones(2, 3), ones(2, 4))),
    "another dtype": (add, (ones(2, 3), ones(2, 3).int())),
    "what it gives": (add, (ones(2, 7), ones(2, 7))),
    "a shape within": (first, ((1, ones(2, 3)), str)),
    "a type": (named, ("x",)),
    "a type of an option": (named, (1, "x")),
    "a type that it gives": (named, (7,)),
    "a field's type": (Plain, ("x",)),
    "fields whose axes differ": (Shaped, (2, ones(2, 3), ones(2, 4))),
}
RIGHT = ((add, (ones(2, 3), ones(2, 3))), (first, ((1, ones(2)), str)), (named, (2, iter("ab"))))


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_stopped(case):
    made, arguments = WRONG[case]
    with pytest.raises(TypeCheckError):
        enforced(made, typechecker=beartype)(*arguments)


def test_right_ones_are_let_through():
    for made, arguments in RIGHT:
        assert enforced(made, typechecker=beartype)(*arguments) is not None


def test_clareps_own_are_enforced():
    with pytest.raises(TypeCheckError):
        project_out(ones(1, 3, 4, 4), ones(2, 48, 1))  # of another batch
    with pytest.raises(TypeCheckError):
        sha256_file(3)
