"""supcon, class and instance alignment against loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clarep.distill.losses import class_alignment, instance_alignment, supcon
from clarep.errors import UserError


def _randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _labels(count: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))


def _cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def _contrast_by_loops(
    anchors: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    t: float,
    *,
    same_set: bool,
) -> float:
    losses = []
    for i in range(len(anchors)):
        counted = [j for j in range(len(others)) if not (same_set and i == j)]
        weight = {j: math.exp(_cosine(anchors[i], others[j]) / t) for j in counted}
        total = sum(weight.values())
        positives = [j for j in counted if labels[i] == other_labels[j]]
        if positives:
            logs = [math.log(weight[j] / total) for j in positives]
            losses.append(-sum(logs) / len(positives))
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 9),
    classes=st.integers(1, 4),
    temperature=st.sampled_from([0.1, 0.5, 2.0]),
    seed=st.integers(0, 99),
)
def test_supcon_is_the_loop(count: int, classes: int, temperature: float, seed: int) -> None:
    features, labels = _randn(count, 5, seed=seed), _labels(count, classes, seed)
    expected = _contrast_by_loops(features, labels, features, labels, temperature, same_set=True)
    assert float(supcon(features, labels, temperature)) == pytest.approx(expected, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 7),
    canonical=st.integers(1, 7),
    classes=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_class_alignment_is_the_loop(images: int, canonical: int, classes: int, seed: int) -> None:
    f, labels = _randn(images, 5, seed=seed), _labels(images, classes, seed)
    c, c_labels = _randn(canonical, 5, seed=seed + 1), _labels(canonical, classes, seed + 1)
    expected = _contrast_by_loops(f, labels, c, c_labels, 0.3, same_set=False)
    assert float(class_alignment(f, labels, c, c_labels, 0.3)) == pytest.approx(expected, abs=1e-10)


def test_instance_alignment_is_the_loop_and_keeps_its_range() -> None:
    f, c = _randn(6, 4), _randn(6, 4, seed=1)
    expected = sum(1 - _cosine(a, b) for a, b in zip(f, c, strict=True)) / 6
    assert float(instance_alignment(f, c)) == pytest.approx(expected, abs=1e-12)
    assert float(instance_alignment(f, 3 * f)) == pytest.approx(0, abs=1e-12)
    assert float(instance_alignment(f, -f)) == pytest.approx(2, abs=1e-12)


def test_gradients_are_right() -> None:
    f, c = _randn(5, 3).requires_grad_(), _randn(4, 3, seed=1).requires_grad_()
    labels, c_labels = torch.tensor([0, 1, 0, 2, 1]), torch.tensor([0, 0, 1, 3])
    assert torch.autograd.gradcheck(lambda x: supcon(x, labels, 0.5), f)
    assert torch.autograd.gradcheck(
        lambda x, y: class_alignment(x, labels, y, c_labels, 0.5), (f, c)
    )
    assert torch.autograd.gradcheck(lambda x, y: instance_alignment(x[:4], y), (f, c))


def test_image_whose_class_has_no_canonical_sample_is_left_out_of_the_mean() -> None:
    f, c = _randn(3, 4), _randn(2, 4, seed=1)
    c_labels = torch.tensor([0, 1])
    with_orphan = class_alignment(f, torch.tensor([0, 1, 7]), c, c_labels)
    assert with_orphan == class_alignment(f[:2], torch.tensor([0, 1]), c, c_labels)


def test_scale_of_a_feature_does_not_matter() -> None:
    f, labels = _randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    scale = torch.tensor([[0.01], [1], [7], [100], [2], [5]], dtype=torch.float64)
    torch.testing.assert_close(supcon(f * scale, labels), supcon(f, labels))


def test_a_step_down_brings_images_closer_to_their_class() -> None:
    f, labels = _randn(8, 6).requires_grad_(), torch.arange(8) % 2
    c, c_labels = _randn(8, 6, seed=1), torch.arange(8) % 2
    before = class_alignment(f, labels, c, c_labels)
    (gradient,) = torch.autograd.grad(before, f)
    assert class_alignment(f - 0.1 * gradient, labels, c, c_labels) < before


_HARD = {
    "identical": torch.ones(4, 3),
    "zero": torch.zeros(4, 3),
    "one sample": torch.ones(1, 3),
    "none": torch.ones(0, 3),
    "tiny": torch.full((4, 3), 1e-30),
    "huge": torch.full((4, 3), 1e15),
}


@pytest.mark.parametrize("single_class", [True, False])
@pytest.mark.parametrize("name", _HARD)
def test_values_and_gradients_stay_finite(name: str, single_class: bool) -> None:
    f, c = _HARD[name].clone().requires_grad_(), torch.eye(3).requires_grad_()
    labels = torch.zeros(len(f), dtype=torch.int64) if single_class else torch.arange(len(f))
    c_labels = torch.zeros(3, dtype=torch.int64)
    losses = [
        supcon(f, labels, 0.01),
        class_alignment(f, labels, c, c_labels, 0.01),
        class_alignment(c, c_labels, f, labels, 0.01),
        instance_alignment(f, c[:1].expand(len(f), 3)),
    ]
    sum(losses).backward()
    assert all(bool(loss.isfinite()) and loss >= 0 for loss in losses)
    assert f.grad is not None and c.grad is not None
    assert bool(f.grad.isfinite().all()) and bool(c.grad.isfinite().all())


def test_without_any_positive_loss_and_gradient_are_zero() -> None:
    f = _randn(3, 4).requires_grad_()
    loss = supcon(f, torch.arange(3))
    loss.backward()
    assert loss == 0
    assert f.grad is not None and not f.grad.any()


def test_half_precision_and_autocast_compute_in_float32() -> None:
    f, labels = _randn(6, 4).float(), torch.tensor([0, 0, 1, 1, 2, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(supcon(f, labels), supcon(f.clone(), labels=labels))
        inside = supcon(f, labels)
    assert torch.equal(inside, supcon(f, labels))
    assert supcon(f.bfloat16(), labels).dtype == torch.float32


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_must_be_above_zero(temperature: float) -> None:
    with pytest.raises(UserError, match=r"temperature .* is not above 0: give"):
        supcon(torch.ones(2, 2), torch.tensor([0, 0]), temperature)
