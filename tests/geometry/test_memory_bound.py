"""Where memory runs out in a chunk of products, half as many go at once, and it is said once."""

import re

import pytest
import torch

from clarep.clarid.clarid import Clarid
from clarep.geometry.jacobian import ENGINES, Jacobian
from clarep.geometry.memory_bound import MemoryBound, is_out_of_memory

MATRIX = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def function(x):
    return torch.tanh(x @ MATRIX.T)


class Small:
    """A memory that holds a product with so many directions, and no more."""

    def __init__(self, jacobian: Jacobian, monkeypatch, most: int, error: Exception) -> None:
        self.asked: list[int] = []
        for name in ("_forward", "_double_backward", "_finite_difference", "_backward"):
            product = getattr(jacobian, name)

            def bounded(directions, product=product):
                self.asked.append(len(directions))
                if len(directions) > most:
                    raise error
                return product(directions)

            monkeypatch.setattr(jacobian, name, bounded)


ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"
    ),
    MemoryError(),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_the_chunk_is_halved_until_it_fits(engine, error, monkeypatch, capsys):
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    block = torch.randn(3, 5, 13, generator=torch.Generator().manual_seed(2))
    whole = Jacobian(function, x, engine).matmat(block)
    bound = MemoryBound(1024.0)
    jacobian = Jacobian(function, x, engine, bound)
    small = Small(jacobian, monkeypatch, 3, error)
    found = jacobian.matmat(block)
    assert torch.allclose(found, whole, atol=1e-5)
    assert jacobian.products == 13
    assert small.asked[:3] == [13, 6, 3]
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and re.search("memory ran out .* 6 directions at once", said[0])
    before = len(small.asked)
    jacobian.rmatmat(torch.randn(3, 6, 4))  # keeps to what fitted
    assert max(small.asked[before:]) <= 3 and not capsys.readouterr().err


def test_one_direction_that_does_not_fit_is_told(monkeypatch):
    jacobian = Jacobian(function, torch.randn(3, 5))
    Small(jacobian, monkeypatch, 0, ERRORS[0])
    with pytest.raises(torch.cuda.OutOfMemoryError):
        jacobian.matmat(torch.randn(3, 5, 4))


def test_another_error_is_not_taken_for_it(monkeypatch):
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    jacobian = Jacobian(function, torch.randn(3, 5))
    small = Small(jacobian, monkeypatch, 1, RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        jacobian.matmat(torch.randn(3, 5, 4))
    assert small.asked == [4]


def test_all_jacobians_of_a_clarid_share_the_bound(mixture_clarid: Clarid):
    clarid = mixture_clarid
    bytes_each = clarid.jacobian(torch.zeros(1, *clarid.teacher.latent_shape), [0])._bytes_each
    before = clarid.memory.chunk(bytes_each)
    clarid.memory.halve(before, bytes_each)
    again = clarid.jacobian(torch.zeros(1, *clarid.teacher.latent_shape), [0])
    assert again._bound is clarid.memory and again._bound.chunk(bytes_each) == before // 2
    assert clarid.config.memory_mb is None and clarid.memory.mb < 1024.0


@pytest.fixture
def mixture_clarid() -> Clarid:
    from mixture import MixtureTeacher

    return Clarid(MixtureTeacher(), sigma=2.0, k=2, steps=2)
