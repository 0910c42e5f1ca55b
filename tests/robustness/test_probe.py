"""What is found out of a student before it is believed: every kind of answer that is no logit."""

import dataclasses
import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clarep.data.backdrops import load_backdrops
from clarep.data.garments import CLASS_NAMES
from clarep.data.labelled import LabelledImages
from clarep.errors import UserError
from clarep.robustness.suite.suite import SuiteRun, robustness_suite
from clarep.robustness.suite.suite_checks import check_fit
from clarep.robustness.suite.suite_config import QUICK_ATTACKS, SuiteConfig
from clarep.students.foreign_students import load_foreign
from clarep.students.student import Student, StudentInfo

NAMES = ("red", "green", "blue")
SIDE = 16
ATTACK = dataclasses.replace(QUICK_ATTACKS, eps_255=(24.0,), eps_l2=(), attacks=("pgd",))
CONFIG = SuiteConfig(
    images=30,
    attack_images=6,
    corruption_images=6,
    corruptions=("brightness",),
    severities=(5,),
    attack=dataclasses.replace(ATTACK, check_images=0),
)


def of_groups(*groups: str) -> SuiteConfig:
    return dataclasses.replace(CONFIG, groups=groups)


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    """30 images with more of one colour, whose class it is; image 7 alone is nearly white."""
    labels = np.arange(30) % 3
    pixels = np.random.default_rng(0).integers(60, 140, (30, SIDE, SIDE, 3))
    pixels[np.arange(30), :, :, labels] += 40
    pixels[7] = 235
    return LabelledImages(
        "colours",
        labels,
        NAMES,
        [f"image-{i}.png" for i in range(30)],
        lambda i: pixels[i].astype(np.uint8),
    )


def mean_colour(x: torch.Tensor) -> torch.Tensor:
    return 20 * x.mean(dim=(2, 3))


class Given(Student):
    """A user's own student: what it answers is a function of the images."""

    def __init__(self, answer, names=NAMES, side: int = SIDE) -> None:
        super().__init__()
        self.info = StudentInfo("given", names, (3, side, side))
        self.layer, self.feature_dim, self.answer = "logits", len(names), answer

    def features(self, x):
        return mean_colour(x)

    def forward(self, x):
        return self.answer(x)

    def both(self, x):
        return self.features(x), self.forward(x)


def refused(answer, data, config=CONFIG) -> str:
    with pytest.raises(UserError) as caught:
        robustness_suite(Given(answer), data, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_of_one_class_every_answer_is_right(data):
    """A model of a thousand classes and a folder of one, chosen by name, gave 1.000."""
    alone = dataclasses.replace(data, labels=data.labels * 0, class_names=("red",))
    with pytest.raises(UserError, match=r"holds one class, 'red'.* give data of two"):
        robustness_suite(Given(lambda x: mean_colour(x)[:, :1], ("red",)), alone, CONFIG)


def test_a_plain_module_is_told_what_to_become(data):
    check = inspect.unwrap(check_fit)  # the tests' type checker would speak first
    with pytest.raises(UserError, match=r"^Linear is no Student: give .*Student\.from_module"):
        check(nn.Linear(2, 2), data)


# Probabilities


def save_script(path: Path, net: nn.Module) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net, torch.zeros(2, 3, SIDE, SIDE)), path)
    return f"torchscript:{path}"


class Softmax(nn.Module):
    def forward(self, x):
        return (20 * x.mean(dim=(2, 3))).softmax(dim=1)


def test_probabilities_are_refused_or_taken_as_such(tmp_path, data):
    spec = save_script(tmp_path / "m.pt", Softmax())
    config = of_groups("clean", "calibration", "attacks")
    with pytest.raises(UserError, match=r"answers with probabilities .*`outputs=probabilities`"):
        robustness_suite(load_foreign(spec).student(NAMES, (3, SIDE, SIDE)), data, config)
    assert "answers with probabilities" in refused(lambda x: mean_colour(x).softmax(1), data)
    taken = load_foreign(spec, outputs="probabilities").student(NAMES, (3, SIDE, SIDE))
    found = robustness_suite(taken, data, config)
    expected = robustness_suite(Given(mean_colour), data, config)
    for one in expected.measurements:
        assert found[one.key].value == pytest.approx(one.value, abs=1e-5), one.key
    x = data.images(np.arange(30)).float() / 255
    torch.testing.assert_close(found.arrays["probabilities"], Softmax()(x))
    logits = load_foreign(save_script(tmp_path / "l.pt", Logits()), outputs="probabilities")
    with pytest.raises(UserError, match="rows that are no probabilities"):
        robustness_suite(logits.student(NAMES, (3, SIDE, SIDE)), data, config)


class Logits(nn.Module):
    def forward(self, x):
        return 20 * x.mean(dim=(2, 3))


def test_probabilities_that_vanish_stay_finite(tmp_path, data):
    class Sharp(nn.Module):
        def forward(self, x):
            return (2e4 * x.mean(dim=(2, 3))).softmax(dim=1)

    spec = save_script(tmp_path / "m.pt", Sharp())
    taken = load_foreign(spec, outputs="probabilities").student(NAMES, (3, SIDE, SIDE))
    found = robustness_suite(taken, data, of_groups("clean", "calibration"))
    # all right for certain but the white one, wrong at a third
    assert found["calibration/ece"].value == pytest.approx(1 / 90, abs=1e-4)
    assert found["calibration/nll"].value == pytest.approx(np.log(3) / 30, abs=1e-4)


def test_log_probabilities_are_logits(data):
    config = of_groups("clean", "calibration")
    found = robustness_suite(Given(lambda x: mean_colour(x).log_softmax(1)), data, config)
    expected = robustness_suite(Given(mean_colour), data, config)
    assert found["calibration/ece"].value == pytest.approx(expected["calibration/ece"].value)


def test_sigmoids_mark_calibration_alone(data):
    run = SuiteRun(
        Given(lambda x: mean_colour(x).sigmoid()), data, of_groups("clean", "calibration")
    )
    found = run.evaluation()
    (said,) = run.warnings
    assert "calibration" in said and "ood" in said and "sigmoids" in said
    for one in found.measurements:
        assert bool(one.untrustworthy) == one.key.startswith("calibration/"), one.key


# Answers that change


class Draws(nn.Module):
    def forward(self, x):
        return 20 * (x + 0.01 * torch.randn_like(x)).mean(dim=(2, 3))


class Dropout(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(20 * x.mean(dim=(2, 3)), 0.5, training=True)


class OverTheBatch(nn.Module):
    def forward(self, x):
        return nn.functional.batch_norm(20 * x.mean(dim=(2, 3)), None, None, training=True)


class Alike(nn.Module):
    def forward(self, x):
        return nn.functional.batch_norm(
            20 * x.mean(dim=(2, 3)), torch.zeros(3), torch.ones(3), training=False
        )


@pytest.mark.parametrize("kind", [Draws, Dropout])
def test_answers_that_differ_from_pass_to_pass_mark_every_figure(data, kind):
    config = of_groups("clean", "calibration", "corruptions", "attacks")
    run = SuiteRun(Given(kind().eval()), data, config)
    assert "two passes of one image differ" in run.warnings[0]
    found = run.evaluation()
    assert found.measurements and "corruption/mean" in found
    assert all("two passes of one image differ" in one.untrustworthy for one in found.measurements)
    assert found.config["answers"]["twice"] > 1e-3
    assert run.warnings[0] in found.config["said"]


def test_answers_that_depend_on_the_batch_mark_every_figure(data):
    def answer(x):
        # an image alone has no deviation: torch refuses it where it is trained
        values = mean_colour(x)
        return (values - values.mean(dim=0)) * 3 + values

    found = robustness_suite(Given(answer), data, of_groups("clean", "calibration"))
    assert all("depends on the batch" in one.untrustworthy for one in found.measurements)
    assert found.config["answers"]["alone"] > 0.01 > found.config["answers"]["twice"]


def test_a_batch_norm_that_cannot_take_one_image_is_refused_or_marked(data):
    said = refused(OverTheBatch(), data)
    assert "given fails on images of colours" in said and "than 1 value" in said


def test_a_sound_student_has_no_mark(data):
    run = SuiteRun(Given(Alike().eval()), data, of_groups("clean", "calibration", "attacks"))
    found = run.evaluation()
    assert run.warnings == run.notes == found.config["said"] == []
    assert not any(one.untrustworthy for one in found.measurements)
    answers = found.config["answers"]
    assert answers["gradient"] == "reaches the image" and answers["kind"] == "graded"
    assert answers["twice"] == 0 and answers["alone"] < 1e-5 and answers["images"] == 8


def test_a_baseline_that_draws_noise_is_refused(data):
    config = of_groups("clean", "corruptions")
    noisy = robustness_suite(Given(Draws()), data, config)
    with pytest.raises(UserError, match=r"baseline.*two passes of one image differ"):
        SuiteRun(Given(mean_colour), data, config, baseline=noisy)


# Answers that are no numbers


def nan_where(condition):
    def answer(x):
        bad = condition(x)[:, None]
        return torch.where(bad, torch.full((len(x), 3), torch.nan), mean_colour(x))

    return answer


def bright(x):
    return x.mean(dim=(1, 2, 3)) > 0.8


def infinite(x):
    return mean_colour(x) / (~bright(x))[:, None].float()


@pytest.mark.parametrize("answer", [nan_where(bright), infinite])
def test_the_first_logit_that_is_not_finite_names_group_and_image(data, answer):
    said = refused(answer, data, of_groups("clean"))
    assert "clean" in said and "image-7.png" in said and ("nan" in said or "inf" in said)


def test_also_where_all_answers_are_none(data):
    said = refused(lambda x: mean_colour(x) * torch.nan, data)
    assert "clean" in said and "image-0.png" in said and "nan" in said


def test_also_under_a_corruption(data):
    flat = dataclasses.replace(data, read=lambda i: data.read(0 if i == 7 else i))
    brightest = max(float(flat.read(i).mean()) for i in range(30)) / 255
    answer = nan_where(lambda x: x.mean(dim=(1, 2, 3)) > brightest + 0.05)
    assert robustness_suite(Given(answer), flat, of_groups("clean"))
    said = refused(answer, flat, of_groups("clean", "corruptions"))
    assert "corruptions/brightness" in said and "image-" in said


def test_also_under_attack(data):
    """The image that an attack changed is named by what it was made from."""
    images = data.images(np.arange(30)).float() / 255
    known = {tuple(one.flatten().tolist()) for one in images}
    at = 3

    def is_changed(x):
        changed = [tuple(one.flatten().tolist()) not in known for one in x.detach()]
        near = [int((images - one.detach()).flatten(1).norm(dim=1).argmin()) == at for one in x]
        return torch.tensor(changed) & torch.tensor(near)

    config = dataclasses.replace(of_groups("clean", "attacks"), attack_images=30)
    said = refused(nan_where(is_changed), data, config)
    assert "attacks/linf" in said and f"image-{at}.png" in said


def test_also_of_other_sets(data):
    others = dataclasses.replace(
        data,
        name="white",
        sources=[f"white-{i}" for i in range(30)],
        read=lambda i: np.full((SIDE, SIDE, 3), 255 if i == 4 else 9, np.uint8),
    )
    config = of_groups("clean", "ood")
    answer = nan_where(lambda x: x.mean(dim=(1, 2, 3)) > 0.95)
    with pytest.raises(UserError, match=r"ood/others .*white-4"):
        robustness_suite(Given(answer), data, config, ood={"others": others})


# Gradients


def no_grad(x):
    with torch.no_grad():
        return mean_colour(x)


def in_inference(x):
    with torch.inference_mode():
        return mean_colour(x)


NO_GRADIENT = {
    "no_grad": no_grad,
    "inference_mode": in_inference,
    "uint8 cast": lambda x: mean_colour((x * 255).round().to(torch.uint8).float() / 255),
    "whole logits": lambda x: (10 * mean_colour(x)).long(),
    "floor": lambda x: mean_colour((x * 32).floor() / 32),
    "numpy": lambda x: torch.from_numpy(mean_colour(x.detach()).numpy()),
    "parameters alone": lambda x: mean_colour(x.detach()) * nn.Parameter(torch.ones(3)),
}


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_without_a_gradient_the_rest_is_measured(data, name):
    answer = NO_GRADIENT[name]
    run = SuiteRun(Given(answer), data, CONFIG)
    assert "attacks" in run.left_out and "gradient" in run.left_out
    found = run.evaluation()
    groups = {one.key.split("/")[0] for one in found.measurements}
    assert groups == {"clean", "calibration", "corruption"}
    expected = robustness_suite(Given(mean_colour), data, of_groups("clean"))
    assert found["clean/accuracy"].value == expected["clean/accuracy"].value
    assert run.left_out in found.config["said"]
    assert found.config["answers"]["gradient"] == ("zero" if "floor" in name else "none")
    assert "gradient" in refused(answer, data, of_groups("clean", "attacks"))


def test_a_gradient_that_is_no_number_counts_as_none(data):
    def answer(x):
        return mean_colour(x) + 0 * (x - x.detach()).sqrt().mean(dim=(2, 3))

    run = SuiteRun(Given(answer), data, CONFIG)
    assert "attacks" in run.left_out and "not finite" in run.left_out


def test_one_class_alone_has_neither_gradient_nor_confidence(data):
    def answer(x):
        return nn.functional.one_hot(mean_colour(x).argmax(1), 3)

    run = SuiteRun(Given(answer), data, CONFIG)
    assert all(group in run.left_out for group in ("calibration", "attacks", "confidences"))
    groups = {one.key.split("/")[0] for one in run.evaluation().measurements}
    assert groups == {"clean", "corruption"}
    assert "confidences" in refused(answer, data, of_groups("calibration"))


def test_focus_and_saliency_are_left_out_of_data_with_masks():
    student = Given(lambda x: x.detach().flatten(1)[:, :10], CLASS_NAMES, side=32)
    config = dataclasses.replace(CONFIG, images=10, flip_backdrops=1)
    run = SuiteRun(student, load_backdrops("test"), config)
    assert "focus" in run.left_out and "backgrounds" not in run.left_out
    found = run.evaluation()
    assert "background/mixed_rand" in found and "focus/area" not in found
    assert "examples/original" in found.arrays and "examples/saliency" not in found.arrays


def test_images_changed_in_place_are_a_copy(data):
    def answer(x):
        x.sub_(0.5).div_(0.25)
        return mean_colour(x)

    config = of_groups("clean", "attacks")
    found = robustness_suite(Given(answer), data, config)
    expected = robustness_suite(Given(lambda x: mean_colour((x - 0.5) / 0.25)), data, config)
    assert found.measurements == expected.measurements
    assert expected["attack/pgd-linf/eps_255=24"].value < expected["attack/clean"].value


# Other answers


def test_logits_in_a_tuple_are_found(data):
    found = robustness_suite(Given(lambda x: (mean_colour(x), x)), data, of_groups("clean"))
    assert found["clean/accuracy"].value == pytest.approx(29 / 30, abs=0.04)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: mean_colour(x)[:, :2], ["(8, 2)", "(8, 3)"]),
        (lambda x: mean_colour(x).argmax(1), ["(8,)", "(8, 3)"]),
        (lambda x: mean_colour(x)[:1], ["(1, 3)", "(8, 3)"]),
        (lambda x: {"out": mean_colour(x)}, ["dict of out", "logits"]),
        (lambda x: nn.Linear(3, 3).double()(x.mean(dim=(2, 3))), ["given fails", "float32"]),
    ],
)
def test_other_answers_are_refused(data, answer, words):
    said = refused(answer, data)
    assert all(word in said for word in words), said


def test_a_student_that_is_yet_to_be_trained_is_not_asked(data):
    run = SuiteRun(Given(lambda x: 0 * mean_colour(x).detach()), data, CONFIG, untrained=True)
    assert "attacks" not in run.left_out and run.warnings == []
