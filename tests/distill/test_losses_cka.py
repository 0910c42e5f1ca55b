"""Linear CKA against loops and the formula as published; the feature queue."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clarep.distill.losses import FeatureQueue, linear_cka
from clarep.errors import UserError


def _randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _gram(x: Tensor) -> list[list[float]]:
    return [[float((a * b).sum()) for b in x] for a in x]


def _hsic_biased(k: list[list[float]], l: list[list[float]]) -> float:  # noqa: E741
    """tr(K H L H) / (n - 1)^2 by loops (Gretton et al. 2005)."""
    n = len(k)
    h = [[(i == j) - 1 / n for j in range(n)] for i in range(n)]

    def product(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
        return [[sum(a[i][m] * b[m][j] for m in range(n)) for j in range(n)] for i in range(n)]

    inner = product(product(product(k, h), l), h)
    return sum(inner[i][i] for i in range(n)) / (n - 1) ** 2


def _hsic_unbiased(k: list[list[float]], l: list[list[float]]) -> float:  # noqa: E741
    """Song et al. 2012, eq. 5, as it stands there, by loops."""
    n = len(k)
    kt = [[0.0 if i == j else k[i][j] for j in range(n)] for i in range(n)]
    lt = [[0.0 if i == j else l[i][j] for j in range(n)] for i in range(n)]
    trace = sum(kt[i][j] * lt[j][i] for i in range(n) for j in range(n))
    sums = sum(map(sum, kt)) * sum(map(sum, lt))
    cross = sum(kt[i][j] * lt[j][m] for i in range(n) for j in range(n) for m in range(n))
    return (trace + sums / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)) / (n * (n - 3))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(4, 9), d1=st.integers(1, 6), d2=st.integers(1, 6), seed=st.integers(0, 99))
def test_both_estimators_are_the_loops(n: int, d1: int, d2: int, seed: int) -> None:
    x, y = _randn(n, d1, seed=seed) + 1, _randn(n, d2, seed=seed + 1)
    k, l = _gram(x), _gram(y)  # noqa: E741
    for unbiased, hsic in [(False, _hsic_biased), (True, _hsic_unbiased)]:
        expected = hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))
        assert float(linear_cka(x, y, unbiased)) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("unbiased", [False, True])
def test_gradients_are_right(unbiased: bool) -> None:
    x, y = _randn(6, 3).requires_grad_(), _randn(6, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: linear_cka(a, b, unbiased), (x, y))


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(1e-6, 1e6),
    shift=st.floats(-100, 100),
    unbiased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rotation_scale_and_shift_change_nothing(
    scale: float, shift: float, unbiased: bool, seed: int
) -> None:
    x, y = _randn(12, 5, seed=seed), _randn(12, 3, seed=seed + 1)
    rotation, _ = torch.linalg.qr(_randn(5, 5, seed=seed + 2))
    moved = linear_cka((x + shift) @ rotation * scale, y, unbiased)
    torch.testing.assert_close(moved, linear_cka(x, y, unbiased), rtol=1e-7, atol=1e-9)
    assert float(linear_cka(x, x @ rotation, unbiased)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_a_scale_whose_square_leaves_float32_changes_nothing(scale: float) -> None:
    x, y = _randn(12, 5).float(), _randn(12, 4, seed=1).float()
    torch.testing.assert_close(linear_cka(x * scale, y), linear_cka(x, y))


def test_other_linear_maps_do_change_it() -> None:
    x = _randn(12, 5)
    stretched = x * torch.tensor([100.0, 1, 1, 1, 1], dtype=torch.float64)
    assert float(linear_cka(x, stretched)) < 0.9


def test_independent_features_biased_is_inflated_and_unbiased_about_zero() -> None:
    values = [
        [float(linear_cka(_randn(20, 200, seed=2 * s), _randn(20, 200, seed=2 * s + 1), unbiased))
         for s in range(30)]
        for unbiased in (False, True)
    ]  # fmt: skip
    biased, unbiased = torch.tensor(values).mean(dim=1)
    assert biased > 0.85
    assert abs(unbiased) < 0.03


def test_float32_agrees_with_float64_at_a_large_mean_and_many_features() -> None:
    x, y = _randn(32, 4096) + 20, _randn(32, 64, seed=1)
    y = y + x[:, :64]
    for unbiased in (False, True):
        single = linear_cka(x.float(), y.float(), unbiased)
        assert float(single) == pytest.approx(float(linear_cka(x, y, unbiased)), abs=1e-4)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize(
    "x",
    [
        torch.full((5, 3), 0.1),
        torch.zeros(5, 3),
        torch.full((5, 3), 1e-30),
        torch.eye(5)[:, :1],  # one sample differs: its Gram matrix is zero once centred unbiased
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) * 1e15,
    ],
    ids=["identical", "zero", "tiny", "one differs", "huge"],
)
def test_values_and_gradients_stay_finite(x: Tensor, unbiased: bool) -> None:
    x, y = x.clone().requires_grad_(), _randn(5, 2).float().requires_grad_()
    value = linear_cka(x, y, unbiased)
    value.backward()
    assert abs(value.detach()) <= 1 + 1e-6
    assert x.grad is not None and y.grad is not None
    assert bool(x.grad.isfinite().all()) and bool(y.grad.isfinite().all())


@pytest.mark.parametrize("n", [0, 1])
def test_without_two_samples_it_is_zero(n: int) -> None:
    x = torch.ones(n, 3, requires_grad=True)
    value = linear_cka(x, torch.ones(n, 2))
    value.backward()
    assert value == 0
    assert x.grad is not None and not x.grad.any()


def test_identical_features_are_undefined_and_give_zero() -> None:
    assert float(linear_cka(torch.full((6, 3), 0.1), _randn(6, 3).float())) == 0.0


def test_unbiased_needs_four_samples() -> None:
    with pytest.raises(UserError, match="unbiased CKA needs 4 samples and got 3: give a larger"):
        linear_cka(torch.ones(3, 2), torch.ones(3, 2), unbiased=True)


def test_autocast_does_not_lower_the_precision() -> None:
    x, y = _randn(16, 8).float(), _randn(16, 8, seed=1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = linear_cka(x, y)
    assert torch.equal(inside, linear_cka(x, y))


def test_queue_appends_the_latest_pairs_first_and_drops_the_oldest() -> None:
    queue = FeatureQueue(3)
    for step in range(3):
        x = torch.tensor([[2.0 * step], [2.0 * step + 1]])
        more_x, more_y = queue.extend(x, -x)
    assert more_x.flatten().tolist() == [4, 5, 2, 3, 0]
    assert torch.equal(more_y, -more_x)
    assert len(queue.kept["x"]) == len(queue.kept["y"]) == 3


def test_only_the_batch_at_hand_has_a_gradient() -> None:
    queue = FeatureQueue(8)
    first, second = (_randn(4, 3, seed=s).requires_grad_() for s in (0, 1))
    queue.extend(first, _randn(4, 2, seed=2))
    more_x, more_y = queue.extend(second, _randn(4, 2, seed=3))
    linear_cka(more_x, more_y, unbiased=True).backward()
    assert first.grad is None
    assert second.grad is not None and bool(second.grad.any())


def test_queue_does_not_change_with_the_batch_it_was_given() -> None:
    queue, x = FeatureQueue(2), torch.ones(2, 1)
    queue.extend(x, x)
    x.zero_()
    assert queue.kept["x"].tolist() == [[1], [1]]


def test_queue_makes_enough_samples_for_the_unbiased_estimate() -> None:
    queue = FeatureQueue(6)
    queue.extend(_randn(3, 4), _randn(3, 2, seed=1))
    x, y = queue.extend(_randn(3, 4, seed=2), _randn(3, 2, seed=3))
    assert bool(linear_cka(x, y, unbiased=True).isfinite())


def test_queue_goes_on_from_a_checkpoint() -> None:
    queue = FeatureQueue(4)
    fresh = FeatureQueue(4)
    fresh.kept = dict(queue.kept)
    assert not fresh.kept
    queue.extend(_randn(3, 2), _randn(3, 5, seed=1))
    fresh.kept = dict(queue.kept)
    batch = _randn(3, 2, seed=2), _randn(3, 5, seed=3)
    assert torch.equal(fresh.extend(*batch)[1], queue.extend(*batch)[1])
    assert torch.equal(fresh.kept["x"], queue.kept["x"])


def test_queue_of_size_zero_keeps_nothing() -> None:
    queue = FeatureQueue(0)
    queue.extend(torch.ones(2, 2), torch.ones(2, 2))
    assert len(queue.extend(torch.ones(3, 2), torch.ones(3, 2))[0]) == 3
