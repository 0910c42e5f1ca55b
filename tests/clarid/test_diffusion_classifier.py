"""The diffusion classifier beside closed forms, and its verdicts."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.datasets import load_digits

from clarep.clarid.diffusion_classifier import Recognition, denoising_errors, recognise
from clarep.data.backdrops import load_backdrops
from clarep.data.labelled import LabelledImages
from clarep.engine.statistics import binomial_interval
from clarep.errors import UserError
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

SHAPE = (3, 4, 4)
N = 48
SCALE = 0.5  # standard deviation of the linear teacher's classes
SPREAD = 0.1  # of the images of a class


def means_of(classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(classes, *SHAPE, generator=generator) - 0.5


def gaussian(means, **settings):
    """A teacher whose classes are Gaussians, in float32; it counts what it denoises."""
    seen = []

    def denoise(x, sigma, labels):
        seen.append((len(x), sigma[0].item()))
        mean = means[labels]
        return mean + (x - mean) * (SPREAD**2 / (SPREAD**2 + sigma**2))[:, None, None, None]

    given = {
        "latent_shape": SHAPE,
        "class_names": [f"class {i}" for i in range(len(means))],
        "sigma_min": 0.01,
        "sigma_max": 80.0,
        "taps": {"x": (3, 1)},
        "fingerprint": "gaussian",
        "has_null": False,
    }
    teacher = Teacher.from_callable(denoise, lambda x, *_: x, **given | settings)
    teacher.seen = seen
    return teacher


def data_of(means, labels, seed=0):
    """Images of the classes `labels`, as a data set."""
    labels = np.array(labels, np.int64)
    rng = np.random.default_rng(seed)
    floats = means.numpy()[labels] + SPREAD * rng.normal(size=(len(labels), *SHAPE))
    pixels = ((floats + 1) * 127.5).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    names = tuple(f"class {i}" for i in range(len(means)))
    return LabelledImages(
        "made", labels, names, [str(i) for i in range(len(labels))], pixels.__getitem__
    )


def tried(teacher, data, **settings) -> Recognition:
    found = recognise(teacher, data, np.arange(len(data)), **settings)
    assert found is not None
    return found


@pytest.mark.parametrize("batch_size", [5, 25])
def test_errors_are_the_closed_form(teacher, images, batch_size):
    """E|D(x) - x_0|^2 = (1 - a)^2 |x_0 - m|^2 + a^2 sigma^2 N, with a = s^2 / (s^2 + sigma^2)."""
    labels = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]])
    sigmas, draws = (0.2, 1.0, 5.0), 2000
    teacher.denoised = 0
    found = denoising_errors(
        teacher, images, labels, sigmas, draws=draws, seed=3, batch_size=batch_size
    )
    assert teacher.denoised == len(sigmas) * labels.numel() * draws
    apart = torch.stack(
        [(images - teacher.mean(labels[:, i])).square().flatten(1).sum(1) for i in range(3)], 1
    )
    for sigma, errors in zip(sigmas, found, strict=True):
        a = SCALE**2 / (SCALE**2 + sigma**2)
        expected = (1 - a) ** 2 * apart + a**2 * sigma**2 * N
        assert torch.allclose(errors, expected, rtol=0.05)


def test_all_labels_of_an_image_share_its_noise(teacher, images):
    """The same label twice gives the same error; another image, noise level or seed another."""
    labels = torch.tensor([[1, 1], [1, 1], [1, 1], [1, 1]])
    same = images[:1].expand(4, -1, -1, -1)
    found = denoising_errors(teacher, same, labels, (0.5, 0.5))
    assert torch.allclose(found[..., 0], found[..., 1])
    assert len(found[..., 0].unique()) == 8
    assert not torch.equal(found, denoising_errors(teacher, same, labels, (0.5, 0.5), seed=1))


def test_weighted_errors_add_up_to_the_log_likelihood(teacher, images):
    """Over log sigma: -log N(x_0; m, s^2) up to a constant of the image."""
    labels = torch.tensor([[0, 1, 2]] * 4)
    sigmas = torch.logspace(-2, 2, 120, dtype=torch.float64)
    found = denoising_errors(teacher, images, labels, sigmas.tolist(), draws=40)
    step = math.log(sigmas[1] / sigmas[0])
    nats = (found / sigmas.square()[:, None, None]).sum(0) * step
    exact = torch.stack(
        [
            (images - teacher.mean(labels[:, i])).square().flatten(1).sum(1) / (2 * SCALE**2)
            for i in range(3)
        ],
        1,
    )
    gaps, expected = nats - nats[:, :1], exact - exact[:, :1]
    assert torch.allclose(gaps, expected, rtol=0.1, atol=2.0)
    assert (gaps.argmin(1) == expected.argmin(1)).all()


def test_a_teacher_that_knows_the_classes():
    means = means_of(10)
    teacher = gaussian(means)
    found = tried(teacher, data_of(means, [i % 10 for i in range(200)]))
    assert found.verdict == "known" and found.accuracy > 0.8 and found.chance == 0.1
    assert str(found).endswith("chance 0.10")
    assert found.margin_interval[0] > 0
    assert found.interval == binomial_interval(found.right, found.images)
    assert found.denoiser_evaluations == sum(count for count, _ in teacher.seen)
    assert tuple(sorted({sigma for _, sigma in teacher.seen})) == found.sigmas
    assert f"{found.right} of 30 images" in str(found)


UNKNOWN = {
    "labels of other images": lambda means: (
        means,
        [(7 * i * i + i // 10) % 10 for i in range(200)],
    ),
    "images of other classes": lambda means: (means_of(10, seed=1), [i % 10 for i in range(200)]),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_teacher_that_does_not(case):
    means = means_of(10)
    drawn, labels = UNKNOWN[case](means)
    data = data_of(drawn, [i % 10 for i in range(200)])
    found = tried(
        gaussian(means),
        LabelledImages(
            data.name, np.array(labels, np.int64), data.class_names, data.sources, data.read
        ),
    )
    assert found.verdict == "near chance"
    assert found.interval[0] <= found.chance


def test_a_label_that_changes_nothing_is_no_hit():
    """All errors of an image are equal then: none is the least."""
    means = means_of(1).expand(10, -1, -1, -1)
    found = tried(gaussian(means), data_of(means_of(10), [i % 10 for i in range(100)]))
    assert (found.right, found.verdict, found.margin) == (0, "near chance", pytest.approx(0))


@pytest.mark.parametrize(
    ("right", "images", "verdict"),
    [(6, 10, "too few"), (4, 10, "near chance"), (18, 30, "known"), (9, 30, "near chance")],
)
def test_few_images_that_look_known_say_nothing(right, images, verdict):
    """Of chance 0.3: six of ten may be known or not, four of ten look like chance."""
    accuracy, interval = right / images, binomial_interval(right, images)
    rest = (0.0, (0.0, 0.0), (1.0,), 0)
    assert Recognition(images, 10, right, accuracy, interval, 0.3, *rest).verdict == verdict


def test_one_class_seen_in_all_images_is_no_knowledge_of_it():
    """Four in five of the images are of that class, and so right; that is their share."""
    means = torch.cat([means_of(1), means_of(9, seed=1) + 5])
    data = data_of(means_of(10), [int(i % 5 == 4) for i in range(30)])
    found = tried(gaussian(means), data)
    assert found.right == 24 and found.chance == 0.8
    assert "chance 0.80 (the share of the largest class)" in str(found)
    assert found.verdict == "near chance"
    alone = tried(gaussian(means), data_of(means_of(10), [0] * 30))
    assert alone.right == 30 and alone.verdict == "too few"


def test_too_few_images_to_tell():
    means = means_of(2)
    assert tried(gaussian(means), data_of(means, [0, 1])).verdict == "too few"
    assert recognise(gaussian(means_of(1)), data_of(means_of(1), [0]), np.arange(1)) is None


def test_of_many_classes_a_few_are_tried_the_data_s_first():
    means = means_of(1000)
    labels, passes = [], gaussian(means)
    plain = passes.condition
    passes.condition = lambda given: (labels.extend(given.tolist()), plain(given))[1]
    found = tried(passes, data_of(means, [17, 400, 999] * 20))
    assert found.labels == 10 and found.verdict == "known"
    counts = {label: labels.count(label) for label in (17, 400, 999)}
    assert set(counts.values()) == {found.images * len(found.sigmas)}


def test_images_are_taken_evenly_from_the_classes():
    means = means_of(5)
    data = data_of(means, [0] * 500 + [1, 2, 3, 4] * 11)
    asked = []
    read = data.read
    data = LabelledImages(
        data.name,
        data.labels,
        data.class_names,
        data.sources,
        lambda i: (asked.append(i), read(i))[1],
    )
    chosen = np.arange(490, 544)
    found = recognise(gaussian(means), data, chosen)
    assert set(asked) <= set(chosen.tolist())
    assert np.bincount(data.labels[asked]).tolist() == [6] * 5 and found.chance == 0.2


def test_noise_levels_that_a_teacher_does_not_know():
    means = means_of(10)
    data = data_of(means, [i % 10 for i in range(50)])
    assert tried(gaussian(means, sigma_max=1.7), data).sigmas == (0.5, 1.0)
    assert tried(gaussian(means, sigma_min=2.0, sigma_max=8.0), data).sigmas == (4.0,)


def test_errors_that_are_not_finite_are_refused():
    means = means_of(3)
    means[1, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match=r"at sigma 0.5, 1, 2 are not finite: check the weights"):
        tried(gaussian(means), data_of(means_of(3), [0, 1, 2]))


def test_the_interval_of_a_share_is_exact():
    """At each end, as many hits or more (or fewer) have a chance of 2.5 %."""
    for right, images in ((3, 30), (15, 50), (29, 30)):
        low, high = binomial_interval(right, images)
        assert binom.sf(right - 1, images, low) == pytest.approx(0.025)
        assert binom.cdf(right, images, high) == pytest.approx(0.025)
    assert binomial_interval(0, 7)[0] == 0 and binomial_interval(7, 7)[1] == 1


def digits():
    """scikit-learn's digits in the size of garments, labels 0 to 9 matched by number."""
    known = load_digits()
    pixels = np.kron(known.images * 15.9375, np.ones((1, 4, 4)))
    rgb = np.repeat(pixels[..., None], 3, 3).astype(np.uint8)
    names = tuple(map(str, range(10)))
    labels = known.target.astype(np.int64)
    sources = [f"digits/{i}" for i in range(len(labels))]
    return LabelledImages("digits", labels, names, sources, rgb.__getitem__)


@pytest.mark.parametrize("name", ["backdrops", "backdrops-biased"])
def test_the_bundled_teachers_know_garments_and_no_digits(name):
    teacher, garments = load_teacher(name), load_backdrops("test")
    assert tried(teacher, garments, seed=1).verdict == "known"
    assert tried(teacher, digits()).verdict == "near chance"
    others = (garments.labels + 3) % 10
    names, sources = garments.class_names, garments.sources
    shifted = LabelledImages("shifted", others, names, sources, garments.read)
    assert tried(teacher, shifted).verdict == "near chance"
