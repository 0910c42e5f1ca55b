"""What a notebook gets: one stacked value that is indexed, drawn, stored and handed on."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clareps import CLAReps
from clarep.clarid.clarid import Clarid
from clarep.clarid.identify import identify
from clarep.data.labelled import LabelledImages
from clarep.errors import UserError


@pytest.fixture
def reps(teacher, images, labels):
    return Clarid(teacher, sigma=2.0, steps=2, k=3)(images, labels, indices=[5, 3, 8, 1])


def library(**names):
    module = ModuleType("a stand-in: it is no part of the tests' environment")
    vars(module).update(names)
    return module


def same(one, other):
    return all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        (2, [8]),
        (-1, [1]),
        (slice(1, 3), [3, 8]),
        ([3, 0], [1, 5]),
        (np.array([1]), [3]),
        (torch.tensor([True, False, True, False]), [5, 8]),
    ],
)
def test_rows_are_clareps_again(reps, rows, index):
    some = reps[rows]
    assert isinstance(some, CLAReps) and some.index.tolist() == index
    for i, one in zip(index, some, strict=True):
        whole = reps.index.tolist().index(i)
        assert torch.equal(one.latent, reps.latent[whole][None])
        assert torch.equal(one.original, reps.original[whole][None])
        assert (one.tap, one.sigma_te) == (reps.tap, reps.sigma_te)
    with pytest.raises(IndexError):
        reps[4]


def test_they_say_what_they_are(reps):
    said = repr(reps)
    for words in ("4 images", "3 classes", "3x4x4", "k = 3", "sigma 2", "block2", " dB"):
        assert words in said
    assert len(said) < 150 and repr(reps[:0]).startswith("CLAReps(0 images")


def test_what_made_them(reps, teacher):
    made = reps.config
    assert made["clarid"]["k"] == made["num_dirs"] == 3 and made["seed"] == 0
    assert (made["teacher_sha256"], made["class_names"]) == ("linear", ["cat", "dog", "owl"])
    assert reps.class_names == reps[:0].class_names == teacher.class_names


def test_balanced_takes_classes_in_turn(reps):
    assert reps.balanced(3).label.tolist() == [0, 1, 2]
    assert reps.balanced(9).index.tolist() == [5, 8, 3, 1]


def test_stored_and_read_again(reps, tmp_path):
    stored = reps.save(tmp_path)
    assert isinstance(stored, CanonicalSet) and same(stored, reps)
    assert (stored.sigma_te, stored.tap, stored.class_names) == (2.0, "block2", reps.class_names)
    assert same(CanonicalSet.load(tmp_path)[1:], reps[1:])
    assert reps.save(tmp_path).sha256 == stored.sha256  # the same again
    with pytest.raises(UserError, match="another configuration"):
        reps[:2].save(tmp_path)


def test_a_figure_has_a_row_an_image(reps):
    headings = [axis.get_title() for axis in reps.figure().axes[:3]]
    assert headings == ["original", "canonical sample", "what was removed"]
    assert [axis.get_ylabel() for axis in reps.figure().axes[::3]] == ["cat", "owl", "dog", "owl"]
    assert len(reps.figure(rows=2).axes) == 6
    shown = reps[0].figure().axes[1].get_images()[0].get_array()
    expected = ((reps.sample[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0)
    assert np.array_equal(shown, expected.numpy())


def test_a_data_set_for_a_loader(reps):
    images, labels = next(iter(DataLoader(reps.to_dataset(), batch_size=4)))
    assert images.dtype == torch.float32 and labels.tolist() == [0, 2, 1, 2]
    torch.testing.assert_close(images, ((reps.sample + 1) / 2).clamp(0, 1).float())
    assert torch.equal(reps.to_dataset(features=True)[1][2], reps.features[1])


def test_a_frame_has_a_row_an_image(reps, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", library(DataFrame=dict))
    frame = reps.to_frame()
    assert frame["class"] == ["cat", "owl", "dog", "owl"] and frame["index"].tolist() == [
        5,
        3,
        8,
        1,
    ]
    for i, share in enumerate(frame["removed"].tolist()):
        removed = (reps.x_te[i] - reps.latent[i]).square().sum() / reps.x_te[i].square().sum()
        assert share == pytest.approx(float(removed))


def test_a_data_set_of_hugging_face(reps, monkeypatch):
    made = library(
        ClassLabel=lambda names: names,
        Image=lambda: "image",
        Features=dict,
        Dataset=SimpleNamespace(from_dict=lambda columns, features: (columns, features)),
    )
    monkeypatch.setitem(sys.modules, "datasets", made)
    columns, features = reps.to_hf()
    assert features == {"image": "image", "label": ["cat", "dog", "owl"]}
    assert columns["label"] == [0, 2, 1, 2]
    assert all(isinstance(one, Image.Image) and one.size == (4, 4) for one in columns["image"])


@pytest.mark.parametrize(("method", "module"), [("to_frame", "pandas"), ("to_hf", "datasets")])
def test_a_missing_library_is_named_with_its_extra(reps, monkeypatch, method, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{module} is not installed: .*\.\[notebooks\]"):
        getattr(reps, method)()


def test_every_image_is_decoded_once(teacher, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
    reads = []

    def read(i):
        reads.append(i)
        return pixels[i]

    data = LabelledImages("made", np.arange(8) % 3, teacher.class_names, list("abcdefgh"), read)
    clarid = Clarid(teacher, sigma=2.0, steps=2, k="energy:0.5", batch_size=2)
    stored = identify(clarid, data, tmp_path, [1, 2, 4, 5, 7], shard_size=3)
    assert reads == stored.index.tolist() == [1, 2, 4, 5, 7]
    assert "5/5 images" in capsys.readouterr().err
    whole = identify(Clarid(teacher, sigma=2.0, kind="none"), data, tmp_path / "whole")
    assert len(whole) == 8


def test_a_teacher_by_name():
    assert Clarid("backdrops").tap == Clarid("backdrops").teacher.default_tap
    with pytest.raises(UserError, match="unknown teacher 'backdrop': did you mean backdrops"):
        Clarid("backdrop")


@pytest.mark.parametrize("chosen", [[True, False], [99_999_999], [-1], [1, 1]])
def test_what_are_no_indices_is_refused(chosen, tmp_path):
    """A mask, read as 0s and 1s, would be images 0 and 1."""
    from clarep import load_data

    with pytest.raises(UserError, match=r"indices|chosen twice"):
        identify(Clarid("backdrops", k=2, steps=1), load_data("backdrops"), tmp_path, chosen)
    assert list(tmp_path.iterdir()) == []
