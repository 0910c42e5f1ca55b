"""What all sets share: batches, draws, ranges, the balanced choice, the check before work."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from clarep.data.class_balance import class_balanced_choice
from clarep.data.held_out import training_splits
from clarep.data.labelled import (
    LabelledImages,
    UnreadableImage,
    in_memory,
    readable_indices,
    to_uint8,
    to_unit_range,
)
from clarep.data.load import DataConfig
from clarep.data.subset import subset
from clarep.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)


def labelled(bad: tuple[int, ...] = ()) -> LabelledImages:
    def read(i: int) -> np.ndarray:
        if i in bad:
            raise UnreadableImage(f"image {i}", "it is empty")
        return PIXELS[i]

    labels = np.array([0, 0, 0, 1, 1, 1])
    return LabelledImages("toy", labels, ("a", "b"), [f"image {i}" for i in range(6)], read)


def test_images_are_stacked_channels_first_in_the_order_asked():
    batch = labelled().images([4, 1])
    assert batch.shape == (2, 3, 4, 5)
    assert batch.dtype == torch.uint8
    assert_array_equal(batch[0], PIXELS[4].transpose(2, 0, 1))
    assert_array_equal(batch[1], PIXELS[1].transpose(2, 0, 1))


def test_no_images_is_a_users_mistake():
    with pytest.raises(UserError, match="at least one index"):
        labelled().images([])


@pytest.mark.parametrize(
    "wrong", [[6], [0, -1], np.arange(6) == 3, [0.0, 1.5], np.zeros((1, 2), int)]
)
def test_what_are_no_indices_is_refused_and_a_mask_is_told_how(wrong):
    for ask in (labelled().images, labelled().sha256):
        with pytest.raises(UserError, match=r"from 0 to 5.*np\.flatnonzero\(mask\)"):
            ask(np.asarray(wrong))


@pytest.mark.parametrize("given", [np.array([4, 1]), torch.tensor([4, 1]), (4, 1)])
def test_indices_may_be_arrays_tensors_and_tuples(given):
    assert_array_equal(labelled().images(given), labelled().images([4, 1]))


@pytest.mark.parametrize("made", [np.asarray, lambda x: torch.from_numpy(np.asarray(x))])
def test_pixels_are_mapped_to_the_unit_range(made):
    assert to_unit_range(made(np.array([0, 255], np.uint8))).tolist() == [-1, 1]
    given = np.array([0.0, 0.25, 1.0]).reshape(1, 3, 1, 1)
    assert to_unit_range(made(given)).flatten().tolist() == [-1, -0.5, 1]
    for wrong in (made(given * 255), made(given * 2 - 1), made(given.astype(int)), [0, 255]):
        with pytest.raises(UserError, match="give"):
            to_unit_range(wrong)


def test_a_draw_mirrors_about_half():
    indices = np.zeros(200, np.int64)
    draw = labelled().draw(indices, np.random.default_rng(0)).numpy()
    image = PIXELS[0].transpose(2, 0, 1)
    kept = (draw == image).all(axis=(1, 2, 3))
    mirrored = (draw == image[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 60 < kept.sum() < 140


def test_the_ranges_are_inverse_and_saturate():
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit_range(levels)
    assert (unit.min(), unit.max()) == (-1, 1)
    assert_array_equal(to_uint8(unit), levels)
    assert_array_equal(to_uint8(torch.tensor([-3.0, 3.0])), [0, 255])


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    fraction=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_balanced_choice(labels: list[int], fraction: float, seed: int):
    array = np.array(labels)
    chosen = class_balanced_choice(array, fraction, seed)
    assert_array_equal(chosen, np.unique(chosen))  # sorted, none twice
    assert_array_equal(chosen, class_balanced_choice(array, fraction, seed))
    for label, size in zip(*np.unique(array, return_counts=True), strict=True):
        assert (array[chosen] == label).sum() == max(1, round(fraction * size))


def test_balanced_choice_depends_on_the_seed():
    labels = np.arange(100) % 2
    first = class_balanced_choice(labels, 0.2, 0)
    assert (first != class_balanced_choice(labels, 0.2, 1)).any()


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_balanced_choice_refuses_no_share(fraction: float):
    with pytest.raises(UserError, match="outside"):
        class_balanced_choice(np.zeros(3, np.int64), fraction, 0)


def test_readable_indices_passes_good_ones_in_order():
    indices, bad = readable_indices(labelled(), np.array([5, 2, 0]), skip_bad=False)
    assert indices.tolist() == [5, 2, 0]
    assert indices.dtype == np.int64
    assert bad == []


def test_readable_indices_names_the_bad_one_and_the_way_on():
    with pytest.raises(UserError, match="image 2: it is empty; `skip_bad` goes on without it"):
        readable_indices(labelled(bad=(2,)), np.array([5, 2, 0]), skip_bad=False)


def test_readable_indices_skips_and_lists():
    indices, bad = readable_indices(labelled(bad=(2, 3)), np.array([5, 2, 0, 3]), skip_bad=True)
    assert indices.tolist() == [5, 0]
    assert bad == ["image 2: it is empty", "image 3: it is empty"]


def test_readable_indices_needs_one_that_is_left():
    with pytest.raises(UserError, match=r"all 1 are unreadable, first image 2: it is empty"):
        readable_indices(labelled(bad=(2,)), np.array([2]), skip_bad=True)
    with pytest.raises(UserError, match="none was chosen: give one index"):
        readable_indices(labelled(), np.array([], np.int64), skip_bad=True)


def counted(data: LabelledImages) -> tuple[LabelledImages, list[int]]:
    """Return the set, and a list that it notes each reading in."""
    reads: list[int] = []

    def read(i: int) -> np.ndarray:
        reads.append(i)
        return data.read(i)

    return replace(data, read=read), reads


def test_a_set_in_memory_is_read_once_and_stays_the_same():
    data, reads = counted(labelled())
    whole, kept, bad = in_memory(data, skip_bad=False)
    images = whole.images([2, 0])
    assert reads == kept.tolist() == [0, 1, 2, 3, 4, 5] and bad == []
    assert torch.equal(images, labelled().images([2, 0]))
    assert whole.name == data.name and whole.labels is data.labels


def test_a_set_in_memory_is_what_can_be_read_of_it():
    data, reads = counted(labelled(bad=(0, 4)))
    whole, kept, bad = in_memory(data, skip_bad=True)
    images = whole.images(kept)
    assert reads == [0, 1, 2, 3, 4, 5] and kept.tolist() == [1, 2, 3, 5]
    assert bad == ["image 0: it is empty", "image 4: it is empty"]
    assert torch.equal(images, labelled().images([1, 2, 3, 5]))
    some = subset(whole, kept, "without two")
    assert some.name == "toy without two" and some.labels.tolist() == [0, 0, 1, 1]
    assert list(some.sources) == ["image 1", "image 2", "image 3", "image 5"]
    assert torch.equal(some.images(range(4)), images)
    with pytest.raises(UserError, match="image 0: it is empty; `skip_bad` goes on without it"):
        in_memory(data, skip_bad=False)


def test_a_set_too_large_for_memory_is_read_again(monkeypatch):
    monkeypatch.setattr("clarep.data.labelled._MEMORY", 6 * PIXELS[0].nbytes - 1)
    data, reads = counted(labelled())
    whole, kept, _ = in_memory(data, skip_bad=False)
    assert set(reads) == {0} and kept.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(UserError, match="image 0: it is empty; `skip_bad` goes on without it"):
        in_memory(labelled(bad=(0,)), skip_bad=False)
    reads.clear()
    whole, _, _ = in_memory(data, skip_bad=True)
    assert reads == [0, 1, 2, 3, 4, 5] and len(whole.images([2, 0])) == 2 and reads[6:] == [2, 0]
    whole, kept, _ = in_memory(labelled(bad=(0,)), skip_bad=True)
    assert torch.equal(whole.images(kept), labelled().images([1, 2, 3, 4, 5]))


@pytest.mark.parametrize("most", [1e9, 1])
def test_whether_images_are_read_again_is_said(tmp_path, monkeypatch, capsys, most):
    monkeypatch.setattr("clarep.data.labelled._MEMORY", most)
    for i in range(6):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(PIXELS[i]).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    training_splits(DataConfig(data=str(tmp_path)), False, print, print)
    said = capsys.readouterr().err
    assert "reading the 6 images" in said
    assert ("each is read again whenever it is needed" in said) == (most == 1)


FOUR = PIXELS[:4]


def set_of(pixels, labels=(0, 1, 0, 1), names=("a", "b"), path="x"):
    return LabelledImages(
        name=path,
        labels=np.array(labels, np.int64),
        class_names=names,
        sources=[f"{path}/{i}" for i in range(len(pixels))],
        read=lambda i: pixels[i],
    )


def test_a_set_is_told_by_its_content_alone():
    whole = set_of(FOUR).sha256()
    assert set_of(FOUR.copy(), path="elsewhere").sha256() == whole
    assert set_of(FOUR, labels=(0, 1, 0, 0)).sha256() != whole
    assert set_of(FOUR, names=("b", "a")).sha256() != whole
    assert set_of(FOUR.reshape(4, 5, 4, 3)).sha256() != whole
    for i in range(4):  # the last image counts as much as the first
        changed = FOUR.copy()
        changed[i, -1, -1, -1] ^= 1
        other = set_of(changed)
        assert other.sha256() != whole
        rest = [j for j in range(4) if j != i]
        assert other.sha256(rest) == set_of(FOUR).sha256(rest)
    assert len({set_of(FOUR).sha256(at) for at in ([0, 1], [1, 0], [0], [2])}) == 4


def test_an_image_is_read_once_for_all_hashes():
    read = []
    data = replace(set_of(FOUR), read=lambda i: read.append(i) or FOUR[i])
    for indices in ([0, 2], [2, 3], None, None):
        data.sha256(indices)
    assert sorted(read) == [0, 1, 2, 3]
    flipped = replace(data, read=lambda i: 255 - FOUR[i])  # no hash outlives its reader
    assert flipped.sha256() == set_of(255 - FOUR).sha256() != data.sha256()


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.int16), None]
)
def test_images_that_are_not_uint8_rgb_are_refused(pixels):
    """Floats in [0, 1] would be measured as black images."""
    data = LabelledImages("own", np.zeros(2, np.int64), ("a",), ["0", "1"], lambda _: pixels)
    for ask in (lambda: data.images([0]), data.sha256):
        with pytest.raises(UserError, match=r"reads .* as image 0: give uint8 RGB"):
            ask()


@pytest.mark.parametrize("labels", [np.arange(3), np.zeros((2, 1), np.int64)])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(UserError, match=r"has labels .* for 2 sources"):
        LabelledImages("own", labels, ("a", "b"), ["0", "1"], lambda _: None)
