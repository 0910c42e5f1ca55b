"""Class evidence beside the closed forms of a Gaussian mixture, and what is planted."""

import math

import numpy as np
import pytest
import torch

from clarep.clarid.clarid import Clarid
from clarep.errors import UserError
from clarep.select.class_evidence import class_evidence
from mixture import MixtureTeacher

LABELS = torch.arange(12) % 3


class Deaf(MixtureTeacher):
    """Hears no label."""

    def denoise(self, x, sigma, cond):
        return x / (1 + 4 * sigma.square()[:, None, None, None])  # one pixel at a time: no rounding


class Obedient(MixtureTeacher):
    """Sees no image: it gives the mean of what it is told, of nothing the mean of all."""

    def denoise(self, x, sigma, cond):
        self.denoised += len(x)
        means = self.log_weights.exp() @ self.means
        return means[cond].reshape(x.shape)


def evidence(teacher, latents, labels=LABELS, judge=None, sigma=1.0, **settings):
    asked = {
        name: settings.pop(name)
        for name in ("indices", "seed", "levels", "most_labels")
        if name in settings
    }
    clarid = Clarid(teacher, sigma=sigma, kind="none", **{"steps": 3} | settings)
    return class_evidence(clarid, latents, labels, judge, **asked)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 4.17])
def test_nats_are_the_closed_form(sigma):
    """Also of latents that have lost their class, or hold another."""
    teacher = MixtureTeacher()
    drawn = teacher.sample(LABELS, seed=1, sigma=sigma)
    latents = torch.cat([drawn, drawn.roll(1, 0), 0.3 * drawn])
    labels = LABELS.repeat(3)
    exact = teacher.nats(latents, sigma, labels)
    assert exact.max() - exact.min() > 0.4
    found = [
        evidence(teacher, latents, labels, sigma=sigma, levels=20, seed=seed) for seed in range(8)
    ]
    nats = torch.stack([each.nats for each in found])
    error = nats.std(0) / math.sqrt(len(found))
    assert ((nats.mean(0) - exact).abs() < 5 * error + 0.01 * (1 + exact.abs())).all()
    assert float(error.mean()) < 0.04
    usual = evidence(teacher, latents, labels, sigma=sigma)
    assert float((usual.nats - exact)[:12].abs().mean()) < 0.06  # of draws of their class
    surest = teacher.log_posterior(latents, sigma).sort(1).values
    clear = surest[:, -1] - surest[:, -2] > 0.3
    likeliest = teacher.log_posterior(latents, sigma).argmax(1)
    assert clear.sum() > 10
    assert torch.equal(found[0].posterior_right[clear], (likeliest == labels)[clear])


def test_below_sigma_te_it_is_the_posterior_of_what_is_decoded_under_no_class():
    teacher = MixtureTeacher(separation=0.7)
    latents = teacher.sample(LABELS, seed=1, sigma=2.0)
    found = evidence(teacher, latents, judge=teacher.judge, sigma=2.0, levels=200)
    null = torch.full_like(LABELS, teacher.null_label)
    from clarep.sampling.ode import decode

    clean = decode(teacher.denoiser(null), latents, 2.0, teacher.sigma_min, 3, solver="heun")
    exact = teacher.nats(clean, 0.0, LABELS)
    assert found.below_nats is not None
    assert exact.min() < -1 < 1 < exact.max()
    assert torch.allclose(found.below_nats, exact, atol=0.1, rtol=0.1)
    assert torch.equal(found.below_right, exact > 0.5)
    right = teacher.judge(clean.clamp(-1, 1)).argmax(1) == LABELS
    assert torch.equal(found.null_right, right)
    assert 0 < int(right.sum()) < 12


def test_a_teacher_that_hears_no_label_gives_no_nats_and_decodes_alike_under_all():
    teacher = Deaf()
    latents = teacher.sample(LABELS, seed=1, sigma=1.0)
    found = evidence(teacher, latents, judge=teacher.judge)
    assert found.nats.tolist() == found.below_nats.tolist() == [0] * 12
    assert not found.posterior_right.any()
    assert torch.equal(found.null_right, found.swap_kept)
    assert torch.equal(found.null_right, found.swap_kept_guided)
    assert int(found.null_right.sum()) > 6  # all is in the latent


def test_a_teacher_that_sees_no_image_keeps_nothing_in_a_swap():
    teacher = Obedient()
    latents = teacher.sample(LABELS, seed=1, sigma=1.0)
    found = evidence(teacher, latents, judge=teacher.judge)
    assert not found.swap_kept.any()
    assert not found.swap_kept_guided.any()
    assert int(found.null_right.sum()) == 4  # the same sample of all


def test_a_swap_is_to_another_class_of_those_present():
    """A judge that says 1 of everything: kept wherever the own class is 1, whatever is decoded."""
    teacher = MixtureTeacher(classes=5)
    labels = torch.tensor([1, 3] * 6)
    swapped = []

    def denoiser(labels, guidance=1.0):
        swapped.append((labels.clone(), guidance))
        return MixtureTeacher.denoiser(teacher, labels, guidance)

    teacher.denoiser = denoiser
    latents = teacher.sample(labels, seed=1, sigma=1.0)

    def says_one(images):
        assert float(images.abs().max()) <= 1
        return torch.eye(5, dtype=torch.float64)[[1] * len(images)]

    found = evidence(teacher, latents, labels, judge=says_one, guidance=2.5)
    assert torch.equal(found.swap_kept, labels == 1)
    assert torch.equal(found.swap_kept_guided, labels == 1)
    asked = [(given.tolist(), guidance) for given, guidance in swapped]
    others = (4 - labels).tolist()  # 3 of 1, 1 of 3
    assert asked == [([5] * 12, 1.0), (others, 1.0), (others, 2.5)]


def test_inverting_under_a_label_puts_no_evidence_for_it_into_the_latent():
    """Images inverted and asked under another class than theirs speak against it."""
    teacher = MixtureTeacher(separation=1.2)
    images, wrong = teacher.sample(LABELS, seed=5), (LABELS + 1 + torch.arange(12) // 6) % 3
    clarid = Clarid(teacher, sigma=1.0, kind="none", steps=6)
    for labels, right in ((LABELS, True), (wrong, False)):
        x_te, _ = clarid.invert((images.clamp(-1, 1) + 1) / 2, labels)
        found = class_evidence(clarid, x_te, labels)
        assert (float(found.nats.mean()) > 0.2) is right
        assert (float(found.posterior_right.double().mean()) > 0.5) is right


def test_names_of_classes_mean_nothing():
    """Numbered anew, the same classes give the same evidence."""
    teacher, other, order = MixtureTeacher(), MixtureTeacher(), [2, 0, 1]
    other.log_weights = teacher.log_weights[[*order, 3]]
    latents = teacher.sample(LABELS, seed=1, sigma=1.0)
    renamed = torch.tensor([order.index(int(label)) for label in LABELS])
    found = [evidence(teacher, latents), evidence(other, latents, renamed)]
    assert torch.allclose(found[0].nats, found[1].nats)
    assert torch.allclose(found[0].below_nats, found[1].below_nats)


def test_an_image_is_asked_the_same_whatever_stands_beside_it():
    teacher = MixtureTeacher(classes=4)
    labels = torch.arange(12) % 4
    latents = teacher.sample(labels, seed=1, sigma=1.0)
    whole = evidence(teacher, latents, labels, judge=teacher.judge, most_labels=3)
    parts = evidence(teacher, latents, labels, judge=teacher.judge, most_labels=3, batch_size=5)
    some = torch.tensor([7, 2, 1, 8])  # all four classes
    few = evidence(teacher, latents[some], labels[some], teacher.judge, most_labels=3, indices=some)
    for name in ("nats", "below_nats"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name))
        assert torch.allclose(getattr(whole, name)[some], getattr(few, name))
    for name in ("posterior_right", "null_right", "swap_kept", "swap_kept_guided"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
        assert torch.equal(getattr(whole, name)[some], getattr(few, name))
    again = evidence(teacher, latents, labels, most_labels=3)
    assert torch.equal(again.nats, whole.nats)
    other = evidence(teacher, latents, labels, most_labels=3, seed=1)
    assert not torch.equal(other.nats, whole.nats)


def test_of_many_classes_a_few_random_rivals_are_tried():
    teacher, asked = MixtureTeacher(classes=12, components=1), []
    inner = teacher.denoise

    def denoise(x, sigma, cond):
        asked.append(cond)
        return inner(x, sigma, cond)

    teacher.denoise, teacher.has_null = denoise, False
    latents = teacher.sample(torch.tensor([4, 4]), seed=1, sigma=1.0)
    found = evidence(teacher, latents, torch.tensor([4, 4]), guidance=1.0, most_labels=5, levels=40)
    assert found.labels == 5
    rivals = [tried.unique().tolist() for tried in torch.cat(asked).view(-1, 2, 5).unbind(1)]
    assert all(len(tried) == 5 and 4 in tried for tried in rivals)
    assert rivals[0] != rivals[1]
    logs = teacher.log_posterior(latents, 1.0)
    for nats, log, tried in zip(found.nats, logs, rivals, strict=True):
        among = log[tried].log_softmax(0)[tried.index(4)] + math.log(5)
        assert float(nats) == pytest.approx(float(among), abs=0.05)


def test_what_it_cost_and_what_is_not_known():
    teacher = MixtureTeacher()
    latents = teacher.sample(LABELS, seed=1, sigma=1.0)
    clarid = Clarid(teacher, sigma=1.0, kind="none", steps=3)
    teacher.denoised = 0
    found = class_evidence(clarid, latents, LABELS, teacher.judge, levels=2)
    # Two posteriors of three labels, two levels, both signs; decoded once, swapped twice.
    assert found.denoiser_evaluations == 12 * (2 * 12 + 7 + 7 + 14) == teacher.denoised
    assert clarid.ledger.denoiser_evaluations == found.denoiser_evaluations
    assert found.without_null == ""
    unjudged = evidence(teacher, latents)
    assert unjudged.null_right is unjudged.swap_kept is unjudged.swap_kept_guided is None
    assert unjudged.below_nats is not None
    teacher.has_null = False
    without = evidence(teacher, latents, judge=teacher.judge, guidance=1.0)
    assert "null" in without.without_null
    assert without.below_nats is without.below_right is without.null_right is None
    assert torch.equal(without.nats, unjudged.nats)
    assert torch.equal(without.swap_kept, without.swap_kept_guided)


def test_at_the_highest_noise_level_there_is_no_evidence():
    teacher = MixtureTeacher()
    teacher.sigma_max = 4.0
    latents = teacher.sample(LABELS, seed=1, sigma=4.0)
    found = evidence(teacher, latents, sigma=4.0)
    assert found.nats.tolist() == [0] * 12
    assert not found.posterior_right.any()


def test_what_cannot_be_asked_is_refused():
    teacher = MixtureTeacher()
    latents = teacher.sample(LABELS, seed=1, sigma=1.0)
    for wrong in ({"levels": 0}, {"most_labels": 1}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            evidence(teacher, latents, **wrong)
    with pytest.raises(UserError, match="1 classes"):
        evidence(MixtureTeacher(classes=1), latents, torch.zeros(12, dtype=torch.int64))
    with pytest.raises(UserError, match="label 3"):
        evidence(teacher, latents, LABELS + 1)
    with pytest.raises(UserError, match="finite"):
        evidence(teacher, latents / 0)
    with pytest.raises(UserError, match="4, 2"):
        evidence(teacher, latents[..., :2])
    with pytest.raises(UserError, match="3 indices"):
        evidence(teacher, latents, indices=torch.arange(3))
    with pytest.raises(UserError, match="finite"):
        evidence(teacher, latents, judge=lambda images: images.flatten(1)[:, :3] * np.nan)
