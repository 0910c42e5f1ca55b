"""What is trained on: the share kept apart, epochs cut into batches, canonical batches."""

import numpy as np
import pytest
import torch

from clarep.distill.trainer.canonical_batches import CanonicalImages
from clarep.distill.trainer.train_images import (
    TrainImages,
    check_weights,
    drawn_with_share,
    epoch_batches,
    seed_of,
)
from clarep.errors import UserError


@pytest.mark.parametrize(("images", "size", "steps"), [(100, 32, 3), (108, 16, 7), (5, 128, 1)])
def test_an_epoch_holds_each_image_once_in_nearly_equal_batches(images, size, steps):
    batches = epoch_batches(images, size, 0, 0)
    assert len(batches) == steps
    assert sorted(np.concatenate(batches)) == list(range(images))
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    again, other = epoch_batches(images, size, 0, 0), epoch_batches(images, size, 0, 1)
    assert np.array_equal(np.concatenate(again), np.concatenate(batches))
    assert not np.array_equal(np.concatenate(other), np.concatenate(batches))


def test_an_epoch_by_weights_draws_in_proportion_and_follows_its_seed():
    weights = torch.tensor([0.0, 3.0, 1.0, 0.0]).repeat(250)
    batches = epoch_batches(1000, 32, 0, 0, weights)
    assert [len(batch) for batch in batches] == [
        len(batch) for batch in epoch_batches(1000, 32, 0, 0)
    ]
    kinds = np.bincount(np.concatenate(batches) % 4, minlength=4)
    assert kinds[0] == kinds[3] == 0 and kinds.sum() == 1000
    assert abs(kinds[1] - 750) < 5 * np.sqrt(1000 * 0.75 * 0.25)
    again, scaled = (
        epoch_batches(1000, 32, 0, 0, weights),
        epoch_batches(1000, 32, 0, 0, 8 * weights),
    )
    assert np.array_equal(np.concatenate(again), np.concatenate(batches))
    assert np.array_equal(np.concatenate(scaled), np.concatenate(batches))
    other = epoch_batches(1000, 32, 0, 1, weights)
    assert not np.array_equal(np.concatenate(other), np.concatenate(batches))


def test_a_share_of_the_draws():
    chosen = torch.arange(10) < 2
    weights = drawn_with_share(chosen, 0.7)
    assert weights.tolist() == pytest.approx([0.35] * 2 + [0.3 / 8] * 8)
    assert (
        drawn_with_share(chosen & ~chosen, 0.7) is drawn_with_share(chosen | ~chosen, 0.7) is None
    )


@pytest.mark.parametrize(
    "weights",
    [torch.ones(4), torch.ones(5, 1), torch.ones(5).long(), torch.zeros(5), -torch.ones(5)]
    + [torch.tensor([1, 1, 1, 1, value]) for value in (np.nan, np.inf, -0.5)],
)
def test_weights_that_nothing_can_be_drawn_by_are_refused(weights):
    check_weights(None, 5)
    check_weights(torch.tensor([0.0, 0, 0, 0, 2]), 5)
    with pytest.raises(UserError, match=r"`weights` are .*one float.*each of the 5 training"):
        check_weights(weights, 5)


def test_seeds_of_purposes_differ():
    keys = [("batches", 0, 0), ("batches", 0), ("views", 0, 0), ("views", 0, 0, 1), ("views", 1, 0)]
    assert len({seed_of(*key) for key in keys}) == len(keys) - 1  # trailing zeros do not count
    assert all(0 <= seed_of(*key) < 2**63 for key in keys)


def test_images_in_memory_or_not_are_the_same(data):
    index = np.array([5, 0, 7, 119])
    stored = TrainImages.of(data, index, 100.0, 2)
    decoded = TrainImages.of(data, index, 0.0, 0)
    assert stored.stored is not None and decoded.stored is None
    positions = np.array([3, 1, 1])
    assert torch.equal(stored.images(positions), data.images([119, 0, 0]))
    assert torch.equal(decoded.images(positions), data.images([119, 0, 0]))

    extra, labels = torch.full((2, 3, 16, 16), 9, dtype=torch.uint8), torch.tensor([2, 0])
    positions = np.array([4, 0, 5, 2])
    for images in (stored.with_added(extra, labels), decoded.with_added(extra, labels)):
        assert len(images) == 6 and images.labels[4:].tolist() == [2, 0]
        got = images.images(positions)
        assert torch.equal(got[[0, 2]], extra) and torch.equal(got[[1, 3]], data.images([5, 7]))
        assert images.index[positions].tolist() == [120, 5, 121, 7]
        assert torch.equal(images.images(np.array([5])), extra[:1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_other_processes_decode_the_same(data):
    index = np.arange(20)
    images = TrainImages.of(data, index, 0.0, 1)
    batches = epoch_batches(20, 8, 0, 0)
    got = list(images.batches(batches))
    assert all(
        torch.equal(some, data.images(batch)) for some, batch in zip(got, batches, strict=True)
    )


@pytest.fixture
def canonical(canonical_of):
    return CanonicalImages.of(canonical_of(), pooled=False)


def test_a_canonical_set_in_memory(canonical_of, canonical):
    tensors = canonical_of().tensors
    assert canonical.index.tolist() == tensors["index"].tolist() == list(range(0, 120, 4))
    assert torch.equal(canonical.features, tensors["features"].flatten(1))
    pooled = CanonicalImages.of(canonical_of(), pooled=True).features
    assert torch.allclose(pooled, tensors["features"].mean((2, 3)), atol=1e-6)
    wanted = ((tensors["sample"] + 1) * 127.5).clamp(0, 255)
    assert (canonical.images - wanted).abs().max() <= 0.5


def test_pairs_come_first_and_the_rest_is_balanced(canonical):
    batch_index = np.array([3, 8, -1, 4, 5, 100])  # 8, 4 and 100 have a sample
    batch = canonical.draw(batch_index, 9, 0)
    rows = np.searchsorted(canonical.index, batch.index)
    assert len(batch) == 9 == len(set(rows))
    assert set(batch.pairs.tolist()) == {1, 3, 5}
    assert batch.index[:3].tolist() == batch_index[batch.pairs.numpy()].tolist()
    assert batch.labels.bincount().tolist() == [3, 3, 3]
    assert torch.equal(batch.features, canonical.features[rows])
    assert torch.equal(batch.labels, canonical.labels[rows])
    assert torch.equal(batch.images, canonical.images[rows])


def test_a_draw_follows_its_seed_and_fills_from_all(canonical):
    drawn = [canonical.draw(np.array([1]), 6, seed).index.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    seen = {i for seed in range(40) for i in canonical.draw(np.array([1]), 6, seed).index}
    assert seen == set(canonical.index)


def test_more_pairs_than_asked_for_and_a_set_smaller_than_asked_for(canonical):
    batch = canonical.draw(np.arange(120), 7, 0)
    assert len(batch) == len(batch.pairs) == 7
    assert max(batch.labels.bincount()) - min(batch.labels.bincount()) <= 1
    assert len(canonical.draw(np.array([1]), 100, 0)) == 30


def test_images_to_validate_on_are_left_out(canonical_of, canonical):
    left = CanonicalImages.of(canonical_of(), False, np.array([0, 8, 9]))
    assert left.index.tolist() == [i for i in range(0, 120, 4) if i not in (0, 8)]
    assert torch.equal(left.features, canonical.features[[1, *range(3, 30)]])
    with pytest.raises(UserError, match="all 30 images of the canonical set lie in the validation"):
        CanonicalImages.of(canonical_of(), False, np.arange(120))
