"""A few of a teacher's classes, found by their names: the same answers under other labels."""

import numpy as np
import pytest
import torch

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.data.load import DataConfig, load_data
from clarep.errors import UserError
from clarep.teachers.classes_by_name import of_classes
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

NAMES = ("tabby, tabby cat", "pug", "crane", "crane", "sloth bear")
SHAPE = (3, 4, 4)


def make(names=NAMES, has_null: bool = True) -> Teacher:
    """Return a teacher whose estimate is its label."""

    def denoise(x, sigma, labels):
        return labels.to(x.dtype)[:, None, None, None].expand_as(x)

    return Teacher.from_callable(
        denoise,
        lambda x, sigma, labels, tap: x * labels[:, None, None, None],
        latent_shape=SHAPE,
        class_names=names,  # as ImageNet's, two of which are cranes
        sigma_min=0.01,
        sigma_max=80.0,
        taps={"all": (3, 1)},
        fingerprint="labels",
        has_null=has_null,
    )


def estimates(teacher: Teacher, labels: list[int], guidance: float = 1.0) -> list[float]:
    x = torch.zeros(len(labels), *SHAPE)
    found = teacher.denoiser(torch.tensor(labels), guidance)(x, torch.ones(len(labels)))
    return found[:, 0, 0, 0].tolist()


def test_labels_are_those_of_the_names() -> None:
    whole = make()
    few = of_classes(whole, ("sloth bear", "tabby cat", "pug"))
    assert few.class_names == ("sloth bear", "tabby cat", "pug")
    few.check_attributes()
    assert estimates(few, [0, 1, 2, 0]) == [4, 0, 1, 4]
    # guidance: null (5 of the whole) + 2 (label - null)
    assert estimates(few, [0, 1], guidance=2.0) == estimates(whole, [4, 0], guidance=2.0)
    assert estimates(few, [few.null_label]) == [5]
    x, sigma = torch.ones(1, *SHAPE), torch.ones(1)
    tapped = few.features(x, sigma, few.condition(torch.tensor([0])), "all")
    assert torch.equal(tapped, 4 * x)
    with pytest.raises(UserError, match="label 3 is outside"):
        few.check_labels(torch.tensor([3]))
    others = [whole, of_classes(whole, ("pug", "tabby cat", "sloth bear")), make()]
    assert few.fingerprint not in [other.fingerprint for other in others]
    assert few.fingerprint == of_classes(make(), few.class_names).fingerprint


def test_a_teacher_without_a_null_class_has_none_then_either() -> None:
    few = of_classes(make(has_null=False), ("pug", "tabby"))
    assert not few.has_null
    with pytest.raises(UserError, match="no null class"):
        estimates(few, [0], guidance=2.0)


@pytest.mark.parametrize(
    "class_names",
    [("pug", "hat"), NAMES, ("pug", "tabby", "hat", "x", "y", "z"), ("0", "1"), ("00", "01"), ()],
)
def test_otherwise_it_is_the_teacher_itself(class_names) -> None:
    whole = make()
    assert of_classes(whole, class_names) is whole


def test_a_few_numbers_are_the_classes_of_these_numbers_or_refused() -> None:
    """Folders 10 and 2 were taken for classes 0 and 1."""
    whole = make(tuple(str(i) for i in range(12)))
    few, named = of_classes(whole, ("10", "2")), make()
    assert few.class_names == ("10", "2")
    labels = torch.tensor([0, 1])
    assert torch.equal(few.condition(labels), whole.condition(torch.tensor([10, 2])))
    with pytest.raises(UserError, match=r"the numbers 0, 3"):
        of_classes(named, ("0", "3"))


def test_a_name_of_two_classes_is_refused() -> None:
    with pytest.raises(UserError, match="'crane' is the name of 2 classes"):
        of_classes(make(), ("crane", "pug"))


def test_identify_chooses_and_says_so(tmp_path, tiny_teacher_path, capsys) -> None:
    """The set is the one that the whole teacher gives under its own labels."""
    names = (CLASS_NAMES[7], CLASS_NAMES[2])
    pixels = np.random.default_rng(0).integers(256, size=(4, 32, 32, 3), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1])
    path = tmp_path / "few.npz"
    np.savez(path, x_train=pixels, y_train=labels, classes=np.array(names))
    given = f"--teacher {tiny_teacher_path} --data {path} --fraction 1 --k 4 --steps 2"
    options = "--tolerance 0.9 --controls --control-images 0"
    code = main(["identify", *given.split(), *options.split(), "--out", str(tmp_path / "x")])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "the teacher knows 10 classes; the 2 of the data are chosen by name" in printed.err
    canonical = CanonicalSet.load(tmp_path / "x" / "canon")
    assert canonical.manifest["config"]["class_names"] == list(names)
    config = ClaridConfig(k=4, steps=2, tolerance=0.9)
    clarid = Clarid(load_teacher(str(tiny_teacher_path)), config)
    data = load_data(DataConfig(data=str(path)))
    images = data.images(np.arange(4))
    expected = clarid(images, torch.tensor([7, 2, 7, 2]))
    found = canonical[0]
    torch.testing.assert_close(found.x_te, expected[0].x_te, rtol=1e-4, atol=1e-4)
    other = clarid(images[:1], torch.tensor([0]))[0]
    assert not torch.allclose(found.x_te, other.x_te, rtol=1e-4, atol=1e-4)
