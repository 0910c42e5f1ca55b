"""What is stored beside a set, so that nobody needs its teacher or its images to look at it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clarep.clarid.clarid import Clarid
from clarep.clarid.identify import identify
from clarep.clarid.set_pictures import PICTURES, principal_coordinates, read_pictures
from clarep.data.labelled import to_uint8
from clarep.data.load import DataConfig, load_data
from clarep.geometry.dense import exact_spectrum
from clarep.teachers.zoo import load_teacher


@pytest.fixture
def found(tiny_teacher_path, tmp_path):
    data = load_data(DataConfig())
    clarid = Clarid(load_teacher(str(tiny_teacher_path)), k=2, steps=1, batch_size=4)
    canonical = identify(clarid, data, tmp_path / "canon", np.arange(12))
    return clarid, data, canonical


def test_pictures_are_what_the_teacher_gives_of_the_first_of_each_class(found):
    clarid, data, canonical = found
    shown, pictures = canonical.balanced(10).tensors, read_pictures(canonical)
    x_te, labels = shown["x_te"], shown["label"]
    assert torch.equal(pictures.original, data.images(shown["index"].numpy()))
    assert torch.equal(pictures.guidance_alone, to_uint8(clarid.sample(x_te, labels)))
    plain = Clarid(clarid.teacher, replace(clarid.config, guidance=1.0))
    assert torch.equal(pictures.reconstruction, to_uint8(plain.sample(x_te, labels)))
    assert pictures.classes == [data.class_names[i] for i in labels]
    exact = exact_spectrum(clarid.jacobian(x_te[:1], labels[:1]).dense()[0])
    assert torch.allclose(pictures.spectrum.double(), exact)
    every = canonical.balanced(300).tensors
    features = clarid.features(every["x_te"], every["label"]).flatten(1)
    distances = torch.cdist(features.double(), features.double())
    placed = pictures.features_before.double()
    assert torch.allclose(torch.cdist(placed, placed), distances, rtol=1e-4, atol=1e-4)


def test_pictures_that_are_lost_are_made_again_with_the_same_bytes(found):
    clarid, data, canonical = found
    path = canonical.folder / PICTURES
    before = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(b"cut")):
        damage()
        assert len(identify(clarid, data, canonical.folder, np.arange(12))) == 12
        assert path.read_bytes() == before


def test_principal_coordinates_against_an_svd():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(7, 3, 5, generator=generator)
    found = principal_coordinates(features).double()
    flat = features.flatten(1).double()
    left, values, _ = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    assert torch.allclose(found.abs()[:, :6], (left * values).abs()[:, :6], atol=1e-5)
    assert principal_coordinates(torch.zeros(4, 2)).abs().max() == 0
    assert principal_coordinates(torch.ones(4, 2)).shape == (4, 2)
