"""Evidence before and after the projection, against the closed form of a Gaussian mixture."""

import pytest
import torch

from clarep.audit.projected_evidence import projected_evidence
from clarep.clarid.clareps import CLAReps
from clarep.clarid.clarid import Clarid
from clarep.errors import UserError
from clarep.select.class_evidence import class_evidence
from mixture import MixtureTeacher

SIGMA = 1.0


def reps_of(x_te, latent, label, index=None) -> CLAReps:
    n = len(label)
    return CLAReps(
        index=torch.arange(n) if index is None else index,
        label=label,
        x_te=x_te,
        latent=latent,
        singular_values=torch.ones(n, 1),
        features=torch.zeros(n, 1),
        sample=torch.zeros(n, *x_te.shape[1:]),
        round_trip_psnr=torch.ones(n),
        config={"sigma_te": SIGMA},
    )


@pytest.fixture
def planted():
    """Latents of class 0, 1, 2 with, in the first six, a foreign class's mean added: a cue."""
    teacher = MixtureTeacher(separation=2.5)
    label = torch.arange(30) % 3
    latent = teacher.sample(label, seed=1, sigma=SIGMA)
    centres = teacher.means.reshape(3, 2, *teacher.latent_shape).mean(1)
    x_te = latent.clone()
    x_te[:6] += 2 * centres[(label[:6] + 1) % 3]
    return teacher, reps_of(x_te, latent, label, index=torch.arange(30) + 100)


def test_nats_are_the_closed_form_before_and_after(planted):
    teacher, reps = planted
    found = projected_evidence(teacher, reps)
    exact = {
        name: teacher.nats(x, SIGMA, reps.label)
        for name, x in (("before", reps.x_te), ("after", reps.latent))
    }
    assert float((found.before - exact["before"]).abs().mean()) < 0.25
    assert float((found.after - exact["after"]).abs().mean()) < 0.1
    change = found.of(torch.ones(30, dtype=torch.bool))
    assert change.change == pytest.approx(float((exact["after"] - exact["before"]).mean()), abs=0.3)
    assert change.change_interval[0] < change.change < change.change_interval[1]
    assert found.before[:6].mean() < -1 and found.after[:6].mean() > 0
    assert torch.equal(found.index, reps.index) and change.labels_tried == 3


def test_it_names_the_images_that_are_doubted_for_what_was_taken_out(planted):
    teacher, reps = planted
    found = projected_evidence(teacher, reps)
    likeliest = [teacher.log_posterior(x, SIGMA).argmax(1) for x in (reps.x_te, reps.latent)]
    expected = (likeliest[0] != reps.label) & (likeliest[1] == reps.label)
    assert expected[:6].sum() >= 5
    assert torch.equal(found.against_no_longer[:6], expected[:6])
    assert not found.against_no_longer[6:].any()  # there nothing was taken out
    cued = torch.arange(30) < 6
    told, rest = found.of(cued), found.of(~cued)
    wrong = [int((one != reps.label)[:6].sum()) for one in likeliest]
    assert [told.against_before, told.against_after] == wrong
    assert told.against_no_longer == int(expected[:6].sum())
    assert rest.change == 0 and rest.change_interval == (0, 0)
    assert rest.against_before == rest.against_after


def test_they_are_the_figures_of_identify_and_cost_what_they_say(planted):
    teacher, reps = planted
    clarid = Clarid(teacher, sigma=SIGMA, kind="none", steps=2)
    before = teacher.denoised
    found = projected_evidence(teacher, reps, seed=3)
    spent = teacher.denoised - before
    for latents, nats, right in (
        (reps.x_te, found.before, found.right_before),
        (reps.latent, found.after, found.right_after),
    ):
        known = class_evidence(clarid, latents, reps.label, indices=reps.index, seed=3)
        assert torch.allclose(known.nats, nats) and torch.equal(known.posterior_right, right)
    assert found.of(reps.label >= 0).denoiser_evaluations == spent
    alone = projected_evidence(teacher, reps[7:9], seed=3, batch_size=3)
    assert torch.allclose(alone.after, found.after[7:9])


def test_a_teacher_of_one_class_has_no_evidence():
    teacher = MixtureTeacher(classes=1)
    x = teacher.sample(torch.zeros(2, dtype=torch.int64), sigma=SIGMA)
    with pytest.raises(UserError, match="two classes"):
        projected_evidence(teacher, reps_of(x, x, torch.zeros(2, dtype=torch.int64)))
