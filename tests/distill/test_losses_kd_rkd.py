"""Plain and relational distillation against loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clarep.distill.losses import kd, rkd_angle, rkd_distance
from clarep.errors import UserError


def _randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _softmax(row: Tensor, t: float) -> list[float]:
    weights = [math.exp(float(v) / t) for v in row]
    return [w / sum(weights) for w in weights]


def _huber(a: float, b: float) -> float:
    gap = abs(a - b)
    return gap**2 / 2 if gap <= 1 else gap - 0.5


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_the_loop(temperature: float) -> None:
    student, teacher = 3 * _randn(5, 4), 3 * _randn(5, 4, seed=1)
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        pairs = zip(_softmax(t, temperature), _softmax(s, temperature), strict=True)
        total += sum(p * math.log(p / q) for p, q in pairs)
    expected = temperature**2 * total / 5
    assert float(kd(student, teacher, temperature)) == pytest.approx(expected, rel=1e-10)


def test_kd_of_identical_logits_is_zero_with_zero_gradient() -> None:
    logits = _randn(4, 3).float().requires_grad_()
    loss = kd(logits, logits.detach().clone())
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-6


def test_kd_does_not_see_a_constant_added_to_a_row() -> None:
    s, t = _randn(4, 3), _randn(4, 3, seed=1)
    torch.testing.assert_close(kd(s + 7, t - 3), kd(s, t))


def test_gradients_are_right_and_the_teacher_has_none() -> None:
    s, t = _randn(5, 4).requires_grad_(), _randn(5, 4, seed=1).requires_grad_()
    for loss in (kd, rkd_distance, rkd_angle):
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, t.detach()), s)
        loss(s, t).backward()
        assert t.grad is None


def _distances(x: Tensor) -> dict[tuple[int, int], float]:
    n = range(len(x))
    d = {(i, j): math.dist(x[i].tolist(), x[j].tolist()) for i in n for j in n if i != j}
    mean = sum(d.values()) / len(d)
    return {pair: value / mean for pair, value in d.items()}


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 7), d1=st.integers(1, 5), d2=st.integers(1, 5), seed=st.integers(0, 99))
def test_rkd_distance_is_the_loop(n: int, d1: int, d2: int, seed: int) -> None:
    s, t = _randn(n, d1, seed=seed), _randn(n, d2, seed=seed + 1)
    ours, theirs = _distances(s), _distances(t)
    expected = sum(_huber(ours[pair], theirs[pair]) for pair in ours) / len(ours)
    assert float(rkd_distance(s, t)) == pytest.approx(expected, abs=1e-10)


def _cosine_at(x: Tensor, i: int, j: int, k: int) -> float:
    a, b = (x[i] - x[j]).tolist(), (x[k] - x[j]).tolist()
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 6), d1=st.integers(1, 5), d2=st.integers(1, 5), seed=st.integers(0, 99))
def test_rkd_angle_is_the_loop(n: int, d1: int, d2: int, seed: int) -> None:
    s, t = _randn(n, d1, seed=seed), _randn(n, d2, seed=seed + 1)
    triples = [
        (i, j, k) for i in range(n) for j in range(n) for k in range(n) if len({i, j, k}) == 3
    ]
    errors = [_huber(_cosine_at(s, *triple), _cosine_at(t, *triple)) for triple in triples]
    assert float(rkd_angle(s, t)) == pytest.approx(sum(errors) / len(errors), abs=1e-10)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10), seed=st.integers(0, 99))
def test_relations_do_not_see_rotation_scale_and_shift(
    scale: float, shift: float, seed: int
) -> None:
    s, t = _randn(5, 4, seed=seed), _randn(5, 3, seed=seed + 1)
    rotation, _ = torch.linalg.qr(_randn(4, 4, seed=seed + 2))
    moved = (s + shift) @ rotation * scale
    for loss in (rkd_distance, rkd_angle):
        torch.testing.assert_close(loss(moved, t), loss(s, t), rtol=1e-6, atol=1e-9)
        assert float(loss(moved, s)) < 1e-12


@pytest.mark.parametrize("loss", [kd, rkd_distance, rkd_angle])
@pytest.mark.parametrize(
    "x",
    [torch.zeros(4, 3), torch.ones(4, 3), torch.ones(1, 3), torch.ones(2, 3), torch.ones(0, 3),
     torch.eye(3)[[0, 0, 1, 2]], torch.full((4, 3), 1e4)],
    ids=["zero", "identical", "one", "two", "none", "two of four alike", "large"],
)  # fmt: skip
def test_values_and_gradients_stay_finite(loss, x: Tensor) -> None:  # type: ignore[no-untyped-def]
    other = _randn(len(x), 3).float()
    for student, teacher in [(x.clone(), other), (other.clone(), x)]:
        student.requires_grad_()
        value = loss(student, teacher)
        value.backward()
        assert bool(value.isfinite()) and value >= 0
        assert student.grad is not None and bool(student.grad.isfinite().all())


def test_too_few_samples_have_no_relation() -> None:
    x, y = _randn(2, 3), _randn(2, 3, seed=1)
    assert float(rkd_distance(x[:1], y[:1])) == 0.0
    assert float(rkd_angle(x, y)) == 0.0


def test_half_precision_computes_in_float32() -> None:
    x, y = _randn(4, 3).bfloat16(), _randn(4, 3, seed=1).bfloat16()
    for loss in (kd, rkd_distance, rkd_angle):
        assert torch.equal(loss(x, y), loss(x.float(), y.float()))


def test_temperature_must_be_above_zero() -> None:
    with pytest.raises(UserError, match=r"temperature 0.0 is not above 0: give"):
        kd(torch.ones(3, 2), torch.ones(3, 2), 0.0)
