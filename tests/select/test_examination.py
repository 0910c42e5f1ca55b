"""`clarep.doctor` in Python: the command's page, of any teacher."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import clarep
from clarep.cli.main import main
from clarep.errors import UserError
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher
from mixture import MixtureTeacher

KEYS = ["teacher", "taps", "noise", "differentiation", "round_trip", "recognition", "basis"]


def named(page):
    """The names of the lines, which stand in the first columns."""
    return [line[:13].strip() for line in page.splitlines()]


def of_functions(**more):
    mixture = MixtureTeacher()
    described = {
        "latent_shape": mixture.latent_shape,
        "class_names": mixture.class_names,
        "sigma_min": mixture.sigma_min,
        "sigma_max": mixture.sigma_max,
        "taps": mixture.taps(),
        "fingerprint": mixture.fingerprint,
        "dtype": mixture.dtype,
    }
    return Teacher.from_callable(mixture.denoise, mixture.features, **described | more)


@pytest.mark.parametrize("make", [MixtureTeacher, of_functions])
def test_what_it_finds_of_a_teacher_given_in_python(make, capsys):
    teacher = make()
    data = MixtureTeacher().data([0, 1, 2] * 10)
    found = clarep.doctor(teacher, data=data, t=0.5, k=4, steps=4, for_images=30)
    printed = capsys.readouterr()
    assert list(found) == [*KEYS, "clarid"] and printed.err == ""
    about = found["teacher"]
    assert (about["spec"], about["class"]) == (None, type(teacher).__name__)
    assert (about["fingerprint"], about["latent_shape"]) == (teacher.fingerprint, [3, 4, 4])
    assert found["differentiation"]["engine"] == "forward"
    assert found["differentiation"]["features"] == [24]
    assert found["recognition"]["verdict"] == "known"
    assert found["basis"]["k"] == 4 and found["clarid"]["images"] == 30
    for shown in (teacher.fingerprint, "forward", f"{found['round_trip']['psnr']:.1f} dB"):
        assert shown in printed.out
    again = clarep.doctor(teacher, data=data, t=0.5, k=4, steps=4)
    assert again["round_trip"] == found["round_trip"]


def test_data_of_other_classes_names_are_told(capsys):
    teacher = MixtureTeacher()
    data = MixtureTeacher().data([0, 1, 2] * 10)
    data = replace(data, class_names=("x", *data.class_names[1:]))
    clarep.doctor(teacher, data=data, t=0.5, k=4, steps=4)
    said = capsys.readouterr().out
    assert "note" in named(said) and f"'x' with '{teacher.class_names[0]}'" in said


def test_the_page_is_the_commands(tiny_teacher_path, capsys):
    settings = {"k": 3, "steps": 8, "t": 0.5}
    by_path = clarep.doctor(tiny_teacher_path, **settings)
    page = capsys.readouterr().out
    given = clarep.doctor(load_teacher(tiny_teacher_path), **settings)
    page_given = capsys.readouterr().out
    command = f"doctor --teacher {tiny_teacher_path} --k 3 --t 0.5"
    assert main(command.split()) == 0
    assert named(page) == named(capsys.readouterr().out) == named(page_given)
    assert by_path["round_trip"] == given["round_trip"]
    assert by_path["teacher"]["parameters"] == given["teacher"]["parameters"]


def test_a_module_is_counted_and_a_teacher_without_a_null_class_is_not_guided(capsys):
    net = nn.Linear(2, 3).eval()
    teacher = of_functions(has_null=False, fingerprint=net)
    found = clarep.doctor(teacher, k=2, steps=2)
    assert found["clarid"]["guidance"] == 1 and found["recognition"] == {}
    assert list(found["teacher"]["parameters"].values()) == [9]
    with pytest.raises(UserError, match="no null class"):
        clarep.doctor(teacher, k=2, guidance=2.0)
    assert clarep.doctor(of_functions(), k=2, steps=2)["clarid"]["guidance"] == 3
    config = clarep.ClaridConfig(guidance=1.5, k=2, steps=2)
    assert clarep.doctor(of_functions(), config)["clarid"]["guidance"] == 1.5
    capsys.readouterr()


@pytest.mark.parametrize("off", [0.0, 0.3])
def test_an_inversion_that_starts_where_the_denoiser_is_off(off, capsys):
    """An estimate that is off by 0.3 everywhere is worse than the noisy image below that level."""
    mixture = MixtureTeacher()
    teacher = of_functions()
    teacher._denoise = lambda *given: mixture.denoise(*given) + off
    image = MixtureTeacher().data([0, 1, 2] * 10)
    found = clarep.doctor(teacher, data=image, k=2, t=0.5)["round_trip"]
    said = "sigma_min 0.01" in capsys.readouterr().out
    assert said == (found["lowest_error"] > 1.5) == (off > 0)
    if off:
        assert found["lowest_error"] == pytest.approx(30, rel=0.1)
        assert found["latent_spread"] > 1.1
    else:
        assert found["latent_spread"] == pytest.approx(1, abs=0.25)


def test_what_fails_is_one_sentence(tmp_path):
    data = MixtureTeacher().data([0, 1, 2])
    with pytest.raises(UserError, match="`data` and `image` are both given"):
        clarep.doctor(of_functions(), data=data, image="x.png")
    with pytest.raises(UserError, match="`for_images=0` is below 1"):
        clarep.doctor(of_functions(), for_images=0)
    with pytest.raises(UserError, match="cannot read none"):
        clarep.doctor(of_functions(), image="none.png", k=2)

    def broken(x, sigma, labels, tap):
        raise TypeError("forward() takes 3 positional arguments")

    teacher = Teacher.from_callable(
        lambda x, *_: x,
        broken,
        latent_shape=(3, 4, 4),
        class_names=["a", "b"],
        sigma_min=0.01,
        sigma_max=80.0,
        taps={"t": (3, 1)},
        fingerprint="broken",
    )
    with pytest.raises(UserError, match=r"fails in differentiating its features \(TypeError"):
        clarep.doctor(teacher, k=2)


def test_a_grey_model_takes_the_images_that_clarep_loads(capsys):
    """It is tried on a photograph in RGB, of which it sees the mean channel."""
    grey = MixtureTeacher((1, 4, 4))
    teacher = of_functions(
        latent_shape=(1, 4, 4), image_channels=3, taps={"x": (16, 4)}, dtype=torch.float32
    )
    teacher._denoise, teacher._features = (
        lambda x, *rest: grey.denoise(x, *rest).float(),
        lambda x, *_: x.flatten(1) * 2,
    )
    found = clarep.doctor(teacher, k=2, steps=20, t=0.5)
    assert found["teacher"]["image_shape"] == [3, 4, 4]
    assert found["round_trip"]["autoencoder_psnr"] > 15  # what of the cat's colour is not grey
    capsys.readouterr()
