"""Images, labels and answers of every make: taken with the right values, or refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clarep.engine.arrays import as_images, as_labels, as_logits
from clarep.errors import UserError

X = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "given",
    [
        X,
        X.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        X.to(memory_format=torch.channels_last),
        X.clone().requires_grad_(),
        X.numpy(),
        X.numpy()[:, :, ::-1][:, :, ::-1],
        read_only(X.numpy()),
        X.numpy().astype(">f4"),
        np.asfortranarray(X.numpy()),
    ],
)
def test_images_of_any_layout_are_taken(given):
    taken = as_images(given, 0, "mend")
    assert torch.equal(taken, X)
    assert taken.is_contiguous()
    assert not taken.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_raised_and_double_kept(dtype):
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert as_images(X.to(dtype), -1, "mend").dtype == wanted


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (Image.new("RGB", (4, 4)), "Image"),
        ([Image.new("RGB", (4, 4))] * 2, "list"),
        ([X, X], "list"),
        (X.to_sparse(), "sparse"),
        (X.to("meta"), "meta"),
        (X[0], "3 dimensions"),
        (X[:0], "no images"),
        (X[:, :0], "no images"),
        ((X * 255).byte(), "uint8"),
        ((X * 255).byte().numpy(), "uint8"),
        (X > 0.5, "bool"),
        (X * 255, r"in \[0, 1\]"),
        (X * 2 - 1, r"in \[0, 1\]"),
        (torch.where(X.max() == X, torch.nan, X), "nan"),
        (torch.where(X.max() == X, torch.inf, X), "inf"),
        (np.full((2, 3, 4, 4), "a"), "other things than numbers"),
    ],
)
def test_other_images_are_refused_with_the_mend(given, named):
    with pytest.raises(UserError, match=named) as error:
        as_images(given, 0, "do this")
    assert "give" in str(error.value)


def test_an_interpolation_s_rounding_is_borne():
    assert as_images(X * 0 + 1.0005, 0, "").max() > 1
    assert as_images(X * 0 - 1.0005, -1, "").min() < -1


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor([1, 2]),
        torch.tensor([1, 2], dtype=torch.uint8),
        torch.tensor([1, 2], dtype=torch.int16),
        np.array([1, 2], np.uint16),
        np.array([1, 2], ">i4"),
        np.array([2, 1])[::-1],
        read_only(np.array([1, 2])),
        [1, 2],
        (1, 2),
        [np.int64(1), np.int64(2)],
    ],
)
def test_labels_of_any_whole_type_are_taken(given):
    taken = as_labels(given, 2, 3)
    assert taken.dtype == torch.int64
    assert taken.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (torch.tensor([0, 3]), "label 3 is outside"),
        (torch.tensor([-1, 0]), "label -1 is outside"),
        (np.array([2**63, 0], np.uint64), "outside"),
        (torch.tensor([0]), r"shape \(1,\)"),
        (torch.tensor([0, 1, 2]), r"shape \(3,\)"),
        (torch.tensor([[0], [1]]), r"shape \(2, 1\)"),
        (torch.eye(3).long()[:2], r"shape \(2, 3\)"),
        (torch.tensor(1), r"shape \(\)"),
        (torch.tensor([0.0, 1.0]), "float32"),
        ([True, False], "bool"),
        (["cat", "dog"], "other things than numbers"),
        ([None, None], "other things than numbers"),
        ([[0], [1, 2]], "other things than numbers"),
    ],
)
def test_other_labels_are_refused(given, named):
    with pytest.raises(UserError, match=named):
        as_labels(given, 2, 3)


LOGITS = torch.tensor([[0.0, 2.0], [1.0, -1.0]])


@pytest.mark.parametrize(
    "answer",
    [LOGITS, (LOGITS, "features"), [LOGITS], {"logits": LOGITS}, SimpleNamespace(logits=LOGITS)],
)
def test_logits_are_found_in_an_answer(answer):
    assert as_logits(answer, 2) is LOGITS


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (LOGITS[:1], r"shape \(1, 2\)"),
        (LOGITS[:, 0], r"shape \(2,\)"),
        (LOGITS[:, :1], r"shape \(2, 1\)"),
        (LOGITS[None], r"shape \(1, 2, 2\)"),
        (LOGITS.long(), "int64"),
        (LOGITS * torch.nan, "not finite"),
        ({"scores": LOGITS}, "dict"),
        ((), "tuple"),
        (("a", LOGITS), "tuple"),
        (None, "NoneType"),
    ],
)
def test_answers_without_logits_are_refused(answer, named):
    with pytest.raises(UserError, match=named):
        as_logits(answer, 2)
