"""Networks of others, where their weights are at hand: what they know, and CLARID on them."""

import numpy as np
import pytest
import torch

import clarep
from clarep.clarid.clarid import Clarid
from clarep.clarid.diffusion_classifier import recognise
from clarep.data.labelled import to_unit_range
from compiled_law import assert_compiled_as_eager
from third_party import ABSENT, TEACHERS, WEIGHTS, cifar_judge, digit_teacher, digits

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason=ABSENT)
DATA = WEIGHTS.parent / "data"


@pytest.mark.parametrize(("depth", "accuracy"), [(20, 0.809), (56, 0.845)])
def test_the_judges_of_cifar10_are_as_good_as_they_are_said_to_be(depth, accuracy):
    """On 200 of the lossless training images all but surely right, on JPEG test images less."""
    if not DATA.exists():
        pytest.skip(f"{DATA} is not here")
    judge = cifar_judge(depth)
    with np.load(DATA / "cifar10_lossless_4000_train.npz", allow_pickle=False) as archive:
        seen = to_unit_range(torch.from_numpy(archive["x"][:200]).permute(0, 3, 1, 2))
        own = torch.from_numpy(archive["y"][:200].astype(np.int64))
    with torch.no_grad():
        assert float((judge(seen).argmax(1) == own).float().mean()) >= 0.99
        data = clarep.load_data(
            clarep.DataConfig(data=str(DATA / "cifar10_jpegbytes_test.npz"), split="test")
        )
        few = np.random.default_rng(0).permutation(len(data))[:300]
        images, labels = to_unit_range(data.images(few)), torch.from_numpy(data.labels[few])
        right = float((judge(images).argmax(1) == labels).float().mean())
    assert right == pytest.approx(accuracy, abs=0.07)


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module", params=TEACHERS)
def teacher(request):
    return digit_teacher(request.param)


def test_compiled_products_are_the_eager_ones(teacher, request):
    """But for one network, which takes the time out of its tensor."""
    latent = request.node.callspec.params["teacher"] == "latent"
    assert_compiled_as_eager(teacher, traceable=not latent)


@pytest.mark.parametrize(("sigma", "share"), [(0.3, 0.15), (1.0, 0.4), (3.0, 0.85)])
def test_they_denoise_digits(teacher, data, sigma, share):
    """Far better than the mean of all digits, and better under the own label than another."""
    images, labels = data.images(np.arange(100)), torch.from_numpy(data.labels[:100])
    x0 = teacher.encode(to_unit_range(images))
    x = x0 + sigma * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    level = torch.full((100,), sigma)
    own, other = (
        float((teacher.denoise(x, level, which) - x0).square().mean())
        for which in (labels, (labels + 3) % 10)
    )
    assert own < share * float((x0 - x0.mean(0)).square().mean())
    assert own < other


def test_they_know_their_classes(teacher, data):
    found = recognise(teacher, data, np.arange(1000))
    assert found is not None and found.verdict == "known" and found.accuracy > 0.6


def test_the_solver_is_within_its_tolerance_of_a_dense_svd(teacher, data):
    labels = data.labels[:2]
    clarid = Clarid(teacher, t=0.5, k=8, steps=4, guidance=1.0)
    x_te, _ = clarid.invert(data.images([0, 1]), labels)
    jacobian = clarid.jacobian(x_te, labels)
    assert clarid.engine == "forward"
    dense = jacobian.dense().double()
    V = clarid.directions(x_te, labels).V.double()
    best = torch.linalg.svdvals(dense)[:, :8].square().sum(1)
    assert float(((dense @ V).square().sum((1, 2)) / best).min()) > 0.985


def test_the_doctor_takes_them(teacher, data, capsys):
    few = clarep.LabelledImages(
        "few", data.labels[:60], data.class_names, data.sources[:60], data.read
    )
    found = clarep.doctor(teacher, data=few, t=0.5, k=5, steps=8, batch_size=4, for_images=10)
    assert found["differentiation"]["engine"] == "forward"
    assert found["recognition"]["verdict"] == "known"
    assert found["teacher"]["image_shape"] == [3, 28, 28]
    trip = found["round_trip"]
    assert trip["lowest_error"] < 1.5 and 0.4 < trip["latent_spread"] < 1.2
    assert trip["psnr"] > min(25, (trip["autoencoder_psnr"] or 99) - 1)
    capsys.readouterr()
