import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from clarep.data.backdrops import load_backdrops
from clarep.data.garments import CLASS_NAMES
from clarep.data.labelled import to_unit_range
from clarep.errors import UserError
from clarep.report.model_card import garment_quality, student_quality
from clarep.report.quality import (
    SampleSettings,
    frechet_distance,
    sample_classes,
    student_judge,
    teacher_quality,
)
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, load_judge
from clarep.teachers.teacher import Teacher
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import UNetTeacher


def white(rows=400, dim=6, seed=0):
    """Features whose sample mean is 0 and whose sample covariance is the identity, exactly."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    z = z - z.mean(dim=0)
    return z @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T


def test_equal_sets_have_no_distance():
    assert frechet_distance(white(), white()) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(white(), white(rows=300, seed=1)) == pytest.approx(0, abs=1e-9)


def test_shifted_mean():
    shift = torch.arange(6, dtype=torch.float64)
    assert frechet_distance(white(), white() + shift) == pytest.approx(55.0)


def test_scaled_axes():
    scale = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.0, 1.5], dtype=torch.float64)
    expected = float((1 - scale).square().sum())
    assert frechet_distance(white(), white(seed=1) * scale) == pytest.approx(expected)


def test_covariances_that_do_not_commute():
    from scipy.linalg import sqrtm

    generator = torch.Generator().manual_seed(3)
    mixes = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    a, b = white() @ mixes[0], white(seed=1) @ mixes[1] + 1
    cov_a, cov_b = (mix.T @ mix for mix in mixes)
    assert not torch.allclose(cov_a @ cov_b, cov_b @ cov_a, atol=0.1)
    cross = np.trace(sqrtm((cov_a @ cov_b).numpy())).real
    expected = 6 + float(cov_a.trace() + cov_b.trace()) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_one_feature():
    a = torch.tensor([[-1.0], [0.0], [1.0]])
    assert frechet_distance(a, 2 * a + 3) == pytest.approx(9 + 1)


class Remembered(Teacher):
    """A teacher that has learnt one image of each class by heart."""

    latent_shape = image_shape = (3, 32, 32)
    class_names = CLASS_NAMES
    null_label = 10
    sigma_min, sigma_max = 0.01, 80.0
    default_tap = "mid"
    fingerprint = "none"

    def __init__(self, images):
        self.images = images

    def taps(self):
        return {"mid": (3, 1)}

    def condition(self, labels):
        return labels

    def denoise(self, x: Float[Tensor, "b c h w"], sigma: Tensor, cond: Tensor):
        return self.images[cond]

    def features(self, x, sigma, cond, tap):
        return x

    def sigma_from_t(self, t):
        return t


FEW = SampleSettings((1.0,), images_per_class=2, steps=2)


def one_of_each_class():
    """An image of each class that the judge names rightly, (10, 3, 32, 32)."""
    data, judge = load_backdrops("test"), load_judge()
    chosen = []
    for label in range(10):
        images = to_unit_range(data.images(np.flatnonzero(data.labels == label)[:20]))
        right = student_judge(judge)(images).argmax(1) == label
        chosen.append(images[right][0])
    return torch.stack(chosen)


def test_samples_are_measured_against_their_labels_and_the_reference():
    images, judge = one_of_each_class(), load_judge()
    reference = images.repeat_interleave(2, dim=0)
    right, wrong = (
        teacher_quality(Remembered(remembered), judge, reference, FEW)[0]
        for remembered in (images, images.roll(1, dims=0))
    )
    assert right["guidance"] == 1.0 and right["class_accuracy"] == 1.0
    assert right["accuracy_by_class"] == [1.0] * 10
    assert right["frechet_distance"] == pytest.approx(0, abs=1e-3)
    assert wrong["class_accuracy"] == 0.0
    assert wrong["frechet_distance"] == pytest.approx(0, abs=1e-3)  # the same set of images
    grey = teacher_quality(Remembered(torch.zeros(10, 3, 32, 32)), judge, reference, FEW)[0]
    assert grey["class_accuracy"] == pytest.approx(0.1)
    assert grey["frechet_distance"] > 1


def tiny_teacher():
    net = UNet(UNetConfig(image_size=16, num_classes=3, widths=(8, 16), embed_dim=16))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return UNetTeacher(net, ("a", "b", "c"), 0.01, 80.0)


def test_samples_depend_on_the_seed_and_not_on_chunks():
    teacher, labels = tiny_teacher(), torch.tensor([0, 1, 2, 0, 1])
    whole = sample_classes(teacher, labels, 2.0, steps=4, seed=0)
    assert whole.shape == (5, 3, 16, 16) and float(whole.abs().max()) <= 1
    assert whole.std() > 0.01 and not torch.equal(whole[0], whole[3])
    parts = sample_classes(teacher, labels, 2.0, steps=4, seed=0, chunk=2)
    assert torch.allclose(whole, parts, atol=1e-4)
    assert not torch.allclose(whole, sample_classes(teacher, labels, 2.0, steps=4, seed=1))
    assert not torch.allclose(whole, sample_classes(teacher, labels, 1.0, steps=4, seed=0))


def test_equal_numbers_of_images_are_compared(monkeypatch):
    from clarep.report import model_card as card

    seen = []

    def counting(a, b):
        seen.append((len(a), len(b)))
        return frechet_distance(a, b)

    monkeypatch.setattr(card, "frechet_distance", counting)
    monkeypatch.setattr("clarep.report.quality.frechet_distance", counting)
    teacher = Remembered(one_of_each_class())
    quality = garment_quality(teacher, SampleSettings((1.0,), images_per_class=3, steps=1))
    assert seen == [(30, 30)] * 2  # training images, then samples
    assert quality["reference"] == "30 test images" and quality["images_per_class"] == 3


@pytest.mark.parametrize("images_per_class", [0, 101])
def test_more_samples_than_test_images(images_per_class):
    teacher = Remembered(torch.zeros(10, 3, 32, 32))
    with pytest.raises(UserError, match="give between 1 and 100 images per class"):
        garment_quality(teacher, SampleSettings(images_per_class=images_per_class))


def test_a_student_measures_as_the_judge_does():
    """What the student's own pass says of each sample and test image is what is counted."""
    data = (load_backdrops("train"), load_backdrops("test"))
    student = build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 32, 32)), seed=0).eval()
    teacher = Remembered(one_of_each_class())
    quality = student_quality(teacher, student, data, FEW)
    with torch.no_grad():
        predicted = student(data[1].images(np.arange(1_000)).float() / 255).argmax(1)
        samples = student((teacher.images + 1) / 2).argmax(1)
    right = predicted == torch.from_numpy(data[1].labels)
    assert quality["classifier"]["test_accuracy"] == pytest.approx(float(right.float().mean()))
    expected = float((samples == torch.arange(10)).float().mean())
    assert quality["samples"][0]["class_accuracy"] == pytest.approx(expected)
    other = build_student(StudentInfo("resnet8", CLASS_NAMES[::-1], (3, 32, 32)), seed=0)
    with pytest.raises(
        UserError,
        match=r"classes are not those of the teacher .*'ankle boot' there, 't-shirt' here",
    ):
        student_quality(teacher, other, data, FEW)


def test_a_student_judges_images_of_the_teachers_range():
    student = build_student(StudentInfo("resnet8", ("a", "b", "c"), (3, 16, 16)), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    shades = torch.rand(5, 3, 16, 16, generator=generator)
    said = student_judge(student)(2 * shades - 1)
    assert not said.requires_grad
    with torch.no_grad():
        assert torch.allclose(said, student(shades), atol=1e-5)
        assert not torch.allclose(said, student(2 * shades - 1), atol=1e-2)


def test_the_judge_refuses_other_classes():
    with pytest.raises(UserError, match="knows 32x32 garments only, and the teacher draws 16x16"):
        garment_quality(tiny_teacher(), SampleSettings())
