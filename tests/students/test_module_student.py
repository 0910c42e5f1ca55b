"""Any torch module as a student: evaluated, attacked and trained."""

import doctest
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clarep.data.labelled import LabelledImages
from clarep.distill.distill_config import DistillConfig
from clarep.distill.train_student import train_student
from clarep.errors import UserError
from clarep.robustness.attacks import Threat, pgd
from clarep.robustness.suite.suite import robustness_suite
from clarep.robustness.suite.suite_config import SuiteConfig
from clarep.students import student as student_module
from clarep.students.student import Student
from clarep.students.student_files import load_student, save_student

NAMES = ("dark", "light")


def net(classes=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, classes))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    shade = 100 * labels[:, None, None, None]
    pixels = (rng.integers(0, 128, (60, 8, 8, 3)) + shade).astype(np.uint8)
    sources = [f"shades/{i}" for i in range(60)]
    return LabelledImages("shades", labels, NAMES, sources, pixels.__getitem__)


def test_the_example():
    assert doctest.testmod(student_module).failed == 0


def test_it_answers_as_the_module_does_and_features_are_what_its_head_reads():
    module, x = net(), torch.rand(3, 3, 8, 8)
    student = Student.from_module(module, NAMES, (3, 8, 8), mean=[0.5] * 3, std=[0.25] * 3)
    assert torch.equal(student(x), module((x - 0.5) / 0.25))
    features, logits = student.both(x)
    assert torch.equal(features, module[:3]((x - 0.5) / 0.25)) and torch.equal(logits, student(x))
    assert (student.layer, student.feature_dim) == ("3", 16)
    other = Student.from_module(module, NAMES, (3, 8, 8), layer="1")
    assert torch.equal(other.features(x), x.flatten(1))


class Wrapped(nn.Module):
    """Logits in a mapping, and no linear layer of its classes."""

    def forward(self, x):
        return {"logits": x.mean(dim=(2, 3))[:, :2]}


def test_without_a_linear_head_the_logits_stand_for_features():
    student = Student.from_module(Wrapped(), NAMES, (3, 8, 8))
    assert student.layer == "logits" and student.feature_dim == 2


@pytest.mark.parametrize(
    ("module", "names", "shape", "layer", "says"),
    [
        (net(), ("a", "b", "c"), (3, 8, 8), None, "one class name for each"),
        (net(), NAMES, (3, 9, 9), None, "9x9 .* give another size"),
        (net(), NAMES, (3, 8, 8), "head", "unknown layer of the module 'head'"),
    ],
)
def test_what_does_not_fit_is_refused(module, names, shape, layer, says):
    with pytest.raises(UserError, match=says):
        Student.from_module(module, names, shape, layer=layer)


def test_it_is_trained_stored_measured_and_attacked(data, tmp_path):
    student = Student.from_module(net(), NAMES, (3, 8, 8), name="mine")
    before = {name: value.clone() for name, value in student.state_dict().items()}
    config = DistillConfig(epochs=2, batch_size=20, flip=False, validation_share=0.2)
    trained = train_student(data, tmp_path / "run", student=student, config=config)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert not torch.equal(trained.state_dict()["net.1.weight"], before["net.1.weight"])
    again = load_student(tmp_path / "run", into=Student.from_module(net(), NAMES, (3, 8, 8)))
    assert torch.equal(again.state_dict()["net.1.weight"], trained.state_dict()["net.1.weight"])
    found = robustness_suite(trained, data, SuiteConfig(groups=("clean",), images=60))
    images, labels = data.images(range(60)).float() / 255, torch.from_numpy(data.labels)
    assert found["clean/accuracy"].value == pytest.approx(
        float((trained(images).argmax(1) == labels).float().mean())
    )
    threat = Threat("linf", 8 / 255)
    attacked = pgd(trained, images, labels, threat, generator=torch.Generator().manual_seed(0))
    assert attacked.shape == images.shape
    other = Student.from_module(net(), NAMES, (3, 8, 8), layer="1")
    with pytest.raises(UserError, match="another configuration"):
        torch.nn.init.zeros_(other.net[1].weight)
        train_student(data, tmp_path / "run", student=other, config=config)
    with pytest.raises(UserError, match=r"9x9: give `image_size=8`"):
        train_student(
            replace(data, read=lambda i: np.zeros((9, 9, 3), np.uint8)),
            tmp_path / "other",
            student=student,
            config=config,
        )


def test_a_file_of_a_module_says_that_it_needs_the_module(tmp_path):
    save_student(Student.from_module(net(), NAMES, (3, 8, 8)), tmp_path / "student.safetensors")
    with pytest.raises(UserError, match="module"):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("names", "options"),
    [(("a", "a"), {}), (NAMES, {"std": [1.0, 0.0, 1.0]}), (NAMES, {"mean": [0.5]})],
)
def test_names_that_are_one_and_what_normalises_nothing(names, options):
    with pytest.raises(UserError, match=r"twice: name each class|do not normalise 3 channels"):
        Student.from_module(net(), names, (3, 8, 8), **options)


def test_a_net_in_evaluation_mode_stays_so():
    """A trained network with batch statistics would else answer otherwise, without a word."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    x = 5 + torch.randn(6, 3, 8, 8)
    body(x)
    body.eval()
    want, mean = body(x), body[1].running_mean.clone()
    student = Student.from_module(body, NAMES, (3, 8, 8), std=[1.0] * 3)
    assert not student.training and torch.equal(student(x), want)
    assert torch.equal(body[1].running_mean, mean)
    body.train()
    body[1].eval()  # frozen, as people do
    student = Student.from_module(body, NAMES, (3, 8, 8))
    assert student.training and not body[1].training


def test_a_layer_of_a_given_student_is_refused(data, tmp_path):
    student = Student.from_module(net(), NAMES, (3, 8, 8))
    with pytest.raises(UserError, match=r"`layer=1` means nothing"):
        train_student(data, tmp_path / "run", student=student, layer="1")
    assert not (tmp_path / "run").exists()
